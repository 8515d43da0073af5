"""``lookalike search``: ask, wait, print the hits."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import click

from ops.cli.collection import check_collection
from ops.cli.console import Console, leave, plain, shown
from ops.cli.exits import Exit
from ops.cli.ingest import is_url
from ops.cli.options import COLLECTION, Command, settings_options
from ops.cli.paths import in_a_folder, is_there, unreadable
from ops.cli.search_options import search_options
from ops.cli.session import opened
from ops.cli.sheet import write_contact_sheet
from ops.wording import counted
from workers.client import Client
from workers.errors import NotFound, Rejected, Unavailable
from workers.options import DEFAULT_EFFORT, DEFAULT_K, SearchOptions
from workers.records import FoundImage, Search, SearchState
from workers.settings import Settings

DEFAULT_TIMEOUT_S = 60.0

_ID_CHARS = 32


def _png(_ctx: click.Context, _param: click.Parameter, value: Path | None) -> Path | None:
    """Look at the name before the search, whose answer would be lost with the error."""
    if value is not None:
        if value.suffix.lower() != ".png":
            raise click.BadParameter(f"{value} does not end in .png.")
        in_a_folder(value)
    return value


@click.command(cls=Command)
@click.argument("image", metavar="FILE|URL|ID")
@search_options
@click.option(
    "--contact-sheet",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_png,
    help="Also write the query and its hits as one PNG, in a folder that is there.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    default=DEFAULT_TIMEOUT_S,
    show_default=True,
    help="Seconds to wait for the answer.",
)
@settings_options(*COLLECTION)
@click.pass_obj
def search(
    console: Console,
    image: str,
    options: SearchOptions,
    contact_sheet: Path | None,
    timeout_s: float,
    settings: Settings,
) -> None:
    """Find the images that look like one: a file (- is standard input), a URL or a stored image.

    A part of the collection that did not answer in time makes the result partial, and the exit
    code 1.
    """
    check_collection(settings)
    with opened(settings, console) as client:
        answer = ask(client, image, options, timeout_s=timeout_s)
        console.result(record_of(answer), summary(answer))
        if contact_sheet is not None:
            write_contact_sheet(client, answer, contact_sheet)
            console.note(f"Contact sheet: {shown(contact_sheet)}")
    leave(Exit.DONE if answer.state is SearchState.DONE else Exit.FAILED)


def ask(client: Client, image: str, options: SearchOptions, *, timeout_s: float) -> Search:
    """Search with what a person named, and return the answer.

    Raises:
        NotFound: There is no such file or image.
        Rejected: The image cannot be searched with.
        Unavailable: The broker does not answer, or no worker did in time.
    """
    found = client.wait_search(_submit(client, image, options).ticket, timeout_s)
    if found.state.open:
        client.cancel_search(found.ticket)
        raise Unavailable(
            f"There is no answer after {timeout_s:g} s; {_ahead(found)}.",
            remedy="Start `lookalike worker`, or give it more time with --timeout.",
            code="no_answer",
        )
    if found.error is not None:
        raise Rejected(found.error.message, remedy=found.error.remedy, code=found.error.code)
    return found


def record_of(answer: Search) -> dict[str, Any]:
    """Return an answer as the API gives it, with what was asked beside the rest."""
    plainly: dict[str, Any] = plain(answer)
    asked = plainly.pop("options")
    return {**plainly, **asked}


def _submit(client: Client, image: str, options: SearchOptions) -> Search:
    asked = vars(options)
    if is_url(image):
        return client.submit_search(url=image, **asked)
    if image == "-":
        upload = ("standard input", sys.stdin.buffer)
        return client.submit_search(upload=upload, **asked)
    path = Path(image).expanduser()
    if is_there(path) and not path.is_dir():
        with _opened(path) as stream:
            return client.submit_search(upload=(path.name, stream), **asked)
    if len(image) == _ID_CHARS and not is_there(path):
        return client.submit_search(image_id=image, **asked)
    raise NotFound(f"{image} is no file, URL or image id.", remedy="Check the path.")


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from error


def summary(answer: Search) -> str:
    """Return the hits as a table, with the report in one line below it."""
    if not answer.hits:
        return _nothing(answer)
    lines = ["rank  distance  bits  source"]
    lines += [_row(hit) for hit in answer.hits]
    return "\n".join([*lines, *_told(answer.report)])


def _nothing(answer: Search) -> str:
    narrow = replace(answer.options, k=DEFAULT_K, effort=DEFAULT_EFFORT, collapse=None)
    if narrow == SearchOptions():
        return "Nothing was found: the collection is empty. `lookalike ingest FOLDER` fills it."
    return "Nothing was found that fits the options. Ask for less of them, or add images."


def _row(hit: FoundImage) -> str:
    source = hit.sources[0] if hit.sources else hit.id
    more = f" (and {len(hit.sources) - 1} more)" if len(hit.sources) > 1 else ""
    labels = f"  [{', '.join(map(shown, hit.labels))}]" if hit.labels else ""
    alike = f"  (+{len(hit.duplicates)} alike)" if hit.duplicates else ""
    where = f"{shown(source)}{more}{labels}{alike}"
    return f"{hit.rank:4d}  {hit.distance:8.4f}  {hit.hamming:4d}  {where}"


def _told(report: dict[str, Any] | None) -> list[str]:
    if report is None:
        return []
    if report["complete"]:
        reach = "nothing was missed"
    else:
        reach = f"nothing missed up to {report['radius']} differing bits"
    # Few images of a label are compared without any look into buckets.
    place = f" in {counted(report['buckets'], 'bucket')}" if report["buckets"] else ""
    how = (
        f"{report['timings_ms']['total']:.0f} ms; {report['reranked']:,} of "
        f"{counted(report['candidates'], 'candidate')}{place} were compared; {reach}."
    )
    lines = [how]
    if report["groups_answered"] < report["groups_asked"]:
        lines.append(
            f"Partial: {report['groups_answered']} of {report['groups_asked']} parts answered "
            "in time."
        )
    return lines


def _ahead(found: Search) -> str:
    if found.state is SearchState.RUNNING:
        return "it is being worked on"
    return f"{counted(found.position or 0, 'search')} before it"
