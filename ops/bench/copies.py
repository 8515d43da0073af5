"""Whether altered copies find their originals: smaller, harder compressed, cropped."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from models.progress import progress
from ops.bench.output import put
from ops.bench.served import Served, await_search, post_search, served
from ops.bench.stack import unfinished
from ops.cli.console import Console
from ops.errors import OpsError
from workers.decode import image_id_of

_NEAR = 3
_CROPPED = 0.1


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        images: Folder of photographs, or ``None`` for variants of the demo ones.
        photos: How many variants to make then.
        queries: Photographs to alter and search with.
        effort: Time against recall, 1 to 10.
    """

    images: Path | None
    photos: int
    queries: int
    effort: int


def half(photo: Image.Image) -> bytes:
    """Return a copy at half the size."""
    return _jpeg(photo.resize((photo.width // 2, photo.height // 2)), quality=90)


def compressed(photo: Image.Image) -> bytes:
    """Return a copy as JPEG of quality 40."""
    return _jpeg(photo, quality=40)


def cropped(photo: Image.Image) -> bytes:
    """Return a copy without a tenth of its width and of its height."""
    left, top = (round(side * _CROPPED / 2) for side in photo.size)
    box = (left, top, photo.width - left, photo.height - top)
    return _jpeg(photo.crop(box), quality=90)


COPIES: dict[str, Callable[[Image.Image], bytes]] = {
    "half_size": half,
    "quality_40": compressed,
    "cropped": cropped,
}


def bench_copies(plan: Plan, console: Console) -> None:
    """Start everything, ingest, search with photos and their copies, and put out one object."""
    with served(plan.images, plan.photos, console) as collection:
        step = max(1, len(collection.photos) // plan.queries)
        photos = collection.photos[::step][: plan.queries]
        console.note(f"Searching with {len(photos)} photos and {len(COPIES)} copies of each.")
        try:
            ranks = []
            with progress(total=len(photos), title="searching", unit="photo") as bar:
                for photo in photos:
                    ranks.append(_ranks(collection, photo, plan))
                    bar.update(1)
        except (OpsError, OSError) as error:
            raise unfinished(str(error), collection.logs) from error
    put(console, "copies", _figures(plan, collection, ranks))


def _ranks(collection: Served, photo: Path, plan: Plan) -> dict[str, int]:
    """Return at which rank a photo and each of its copies find it; 0 for nowhere near."""
    content = photo.read_bytes()
    with Image.open(photo) as opened:
        image = opened.convert("RGB")
    queries = {"self": content, **{name: alter(image) for name, alter in COPIES.items()}}
    wanted = image_id_of(content)
    return {name: _rank(collection, query, wanted, plan) for name, query in queries.items()}


def _rank(collection: Served, content: bytes, wanted: str, plan: Plan) -> int:
    posted = post_search(collection.api, content, k=_NEAR, effort=plan.effort)
    found = [hit["id"] for hit in await_search(collection.api, posted)["hits"]]
    return found.index(wanted) + 1 if wanted in found else 0


def _figures(plan: Plan, collection: Served, ranks: Sequence[dict[str, int]]) -> dict[str, Any]:
    def share(name: str, worst: int) -> float:
        return round(sum(0 < rank[name] <= worst for rank in ranks) / len(ranks), 4)

    return {
        "self_first": share("self", 1),
        **{f"{name}_first": share(name, 1) for name in COPIES},
        **{f"{name}_top{_NEAR}": share(name, _NEAR) for name in COPIES},
        "queries": len(ranks),
        "images": collection.indexed,
        "photos": str(plan.images or "variants of the demo photos"),
        "effort": plan.effort,
    }


def _jpeg(image: Image.Image, *, quality: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()
