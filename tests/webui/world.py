"""A site, its client, and tiny images to give it."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from workers.client import Client

API = "/api/v1"
PATIENCE_S = 30


def picture(seed: int, *, side_px: int = 64, format_: str = "PNG") -> bytes:
    """Return an image file of soft colours; another seed gives another image."""
    grid = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(grid).resize((side_px, side_px), Image.Resampling.BICUBIC)
    buffer = BytesIO()
    image.save(buffer, format_)
    return buffer.getvalue()


@dataclass
class World:
    """A site and the client that it works through."""

    client: Client
    app: Flask

    @property
    def http(self) -> FlaskClient:
        """A browser without a window."""
        return self.app.test_client()

    def get(self, path: str, **kwargs: Any) -> TestResponse:
        return self.http.get(API + path, **kwargs)

    def post(self, path: str, **kwargs: Any) -> TestResponse:
        return self.http.post(API + path, **kwargs)

    def delete(self, path: str, **kwargs: Any) -> TestResponse:
        return self.http.delete(API + path, **kwargs)

    def search(self, *, file: bytes | None = None, name: str = "query.png", **fields: Any) -> Any:
        """Ask for a search and return it when it is finished."""
        if file is None:
            asked = self.post("/searches", json=fields)
        else:
            asked = self.post("/searches", data={"file": (BytesIO(file), name), **fields})
        assert asked.status_code == 202, asked.text
        return self.http.get(asked.headers["Location"], query_string={"wait": PATIENCE_S}).json

    def add(self, *files: bytes, **fields: Any) -> Any:
        """Upload files as one job and return it when it is finished."""
        named = [(BytesIO(file), f"{number}.png") for number, file in enumerate(files)]
        asked = self.post("/jobs", data={"files": named, **fields})
        assert asked.status_code == 202, asked.text
        return self.finished(asked)

    def finished(self, asked: TestResponse) -> Any:
        """Return the job that an answer names, when it is finished."""
        return self.http.get(asked.headers["Location"], query_string={"wait": PATIENCE_S}).json
