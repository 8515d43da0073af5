"""A connection to the site that is kept open, as a program that searches a lot keeps it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.client import HTTPConnection
from types import TracebackType
from typing import Any, Self

from ops.errors import OpsError

_TIMEOUT_S = 60.0
_BOUNDARY = "lookalike-bench-0d5a1f7e"


class Api:
    """The API of a site at an address such as ``127.0.0.1:8080``; a context manager."""

    def __init__(self, address: str) -> None:
        self._connection = HTTPConnection(address, timeout=_TIMEOUT_S)

    def get(self, path: str) -> dict[str, Any]:
        """Ask for a path below ``/api/v1``.

        Raises:
            OpsError: The site answers with an error.
        """
        return self._ask("GET", path, None, {})

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send a JSON body.

        Raises:
            OpsError: The site answers with an error.
        """
        return self._ask(
            "POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )

    def post_file(
        self, path: str, name: str, content: bytes, fields: Mapping[str, object]
    ) -> dict[str, Any]:
        """Send a file and fields as a form does.

        Raises:
            OpsError: The site answers with an error.
        """
        kind = f"multipart/form-data; boundary={_BOUNDARY}"
        return self._ask("POST", path, _form(name, content, fields), {"Content-Type": kind})

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> dict[str, Any]:
        self._connection.request(method, f"/api/v1{path}", body, headers)
        response = self._connection.getresponse()
        answer = response.read()
        if response.status >= 400:
            raise OpsError(f"{method} {path} was answered {response.status}: {answer[:500]!r}")
        found: dict[str, Any] = json.loads(answer)
        return found


def _form(name: str, content: bytes, fields: Mapping[str, object]) -> bytes:
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
        for field, value in fields.items()
    ]
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return "".join([*parts, head]).encode() + content + f"\r\n--{_BOUNDARY}--\r\n".encode()
