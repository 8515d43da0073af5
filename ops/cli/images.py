"""``lookalike images``: what is in the collection."""

from __future__ import annotations

from typing import Any

import click

from ops.cli.collection import check_collection
from ops.cli.console import Console, plain, shown
from ops.cli.jobs import DEFAULT_LIMIT
from ops.cli.options import COLLECTION, Group, settings_options
from ops.cli.session import opened
from ops.wording import counted
from store import Image
from workers.settings import Settings


@click.group(cls=Group, default="list")
def images() -> None:
    """List, show and delete stored images. Without a name: list."""


@images.command("list")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=DEFAULT_LIMIT,
    show_default=True,
    help="Most images to print.",
)
@settings_options(*COLLECTION)
@click.pass_obj
def list_(console: Console, limit: int, settings: Settings) -> None:
    """List the images, newest first."""
    check_collection(settings)
    with opened(settings, console, workers=False) as client:
        page, count = client.recent(limit=limit), client.count()
    for image in page.images:
        console.result(_record(image), _line(image))
    console.note(f"{len(page.images):,} of {counted(count, 'image')}.")


@images.command("show")
@click.argument("image_id", metavar="ID")
@settings_options(*COLLECTION)
@click.pass_obj
def show(console: Console, image_id: str, settings: Settings) -> None:
    """Show an image's record, with all its sources and labels."""
    check_collection(settings)
    with opened(settings, console, workers=False) as client:
        image = client.image(image_id)
    told = [_line(image), *(f"  {shown(source)}" for source in image.sources)]
    if image.labels:
        told.append(f"  labels: {', '.join(map(shown, image.labels))}")
    console.result(_record(image), "\n".join(told))


@images.command("delete")
@click.argument("image_ids", metavar="ID...", nargs=-1, required=True)
@settings_options(*COLLECTION)
@click.pass_obj
def delete(console: Console, image_ids: tuple[str, ...], settings: Settings) -> None:
    """Delete images from the collection; the files that they were taken from are left alone.

    With an id that is unknown nothing is deleted.
    """
    check_collection(settings)
    with opened(settings, console, workers=False) as client:
        for image_id in image_ids:
            client.image(image_id)
        for image_id in dict.fromkeys(image_ids):
            client.delete_image(image_id)
            console.result({"deleted": image_id}, f"{image_id} deleted.")


def _record(image: Image) -> dict[str, Any]:
    # Rows and origins are the store's own business.
    return {name: value for name, value in plain(image).items() if name not in ("row", "origin")}


def _line(image: Image) -> str:
    size = f"{image.width_px}x{image.height_px}"
    first = image.sources[0] if image.sources else ""
    return (
        f"{image.id}  {image.format:<5}  {size:<11}  {image.size_bytes:>11,} bytes  {shown(first)}"
    )
