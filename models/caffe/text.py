"""The text of a prototxt, parsed layer by layer so that each knows its line."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from models.caffe.schema import message
from models.errors import NetworkError

# ResNet-152's description has 90 KB and 800 layers.
_LARGEST_BYTES = 4 << 20
_MOST_LAYERS = 10_000
# Protobuf's parser takes a hundred times the memory of a string.
_LONGEST_LINE = 1 << 18

_TOKEN = re.compile(r"""#[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[{}<>]|\w+""")
_UNKNOWN_FIELD = re.compile(r'Message type "[\w.]*?(\w+)" has no field named "(\w+)"')
# Protobuf begins with the place, and later releases with the whole line.
_PLACE = re.compile(r"^\d+:\d+ : ('.*': )?", re.DOTALL)
# Where a field that lookalike does not know changes nothing that it computes.
_MAY_HOLD_UNKNOWN = {
    "AccuracyParameter",
    "DataParameter",
    "FillerParameter",
    "ImageDataParameter",
    "LayerParameter",
    "MemoryDataParameter",
    "NetParameter",
    "ParamSpec",
    "TransformationParameter",
    "V1LayerParameter",
}

_LAYERS = {"LayerParameter", "V1LayerParameter"}


@dataclass(frozen=True)
class ParsedLayer:
    """A `LayerParameter` or a `V1LayerParameter`, and the line where it begins.

    `unknown` is a group of parameters that it sets and that lookalike does not know; empty where
    there is none.
    """

    parameters: Any
    line: int
    unknown: str = ""


@dataclass(frozen=True)
class ParsedNet:
    """A `NetParameter` without its layers, the layers, and whether they are of an old kind."""

    parameters: Any
    layers: list[ParsedLayer]
    old: bool


def parse(path: Path) -> ParsedNet:
    """Parse a prototxt of any of Caffe's formats, without upgrading it.

    Raises:
        NetworkError: The file cannot be read, is not a prototxt, or sets a field that would
            change what a layer computes and that lookalike does not know; with the line.
    """
    text = _read(path)
    blocks = list(islice(_blocks(text), _MOST_LAYERS + 1))
    if not blocks:
        raise NetworkError(f"{path} describes no layer; expected the prototxt of a Caffe network")
    if len(blocks) > _MOST_LAYERS:
        raise NetworkError(f"{path} describes more than {_MOST_LAYERS} layers")
    rest, end = [], 0
    for start, stop in blocks:
        rest += [text[end:start], "\n" * text.count("\n", start, stop)]
        end = stop
    net, _ = _parse("".join([*rest, text[end:]]), path, line=1)
    layers: list[ParsedLayer] = []
    line, end, kinds = 1, 0, set()
    for start, stop in blocks:
        line, end = line + text.count("\n", end, start), start
        parsed, unknown = _parse(text[start:stop], path, line=line)
        kinds.add(bool(parsed.layers))
        layers.append(ParsedLayer((parsed.layers or parsed.layer)[0], line, unknown))
    if len(kinds) > 1:
        raise NetworkError(
            f"{path} mixes `layer` and `layers`, and Caffe would drop some; use one of them"
        )
    return ParsedNet(net, layers, old=kinds.pop())


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise NetworkError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > _LARGEST_BYTES:
        raise NetworkError(
            f"{path} is larger than {_LARGEST_BYTES >> 20} MiB; expected a prototxt, which "
            "describes a network in text, and not its weights"
        )
    # Caffe's own files hold authors' names in whatever encoding; only comments do.
    text = data.decode("utf-8", errors="replace")
    if max(map(len, text.split("\n"))) > _LONGEST_LINE:
        raise NetworkError(
            f"{path} has a line of more than {_LONGEST_LINE} characters; break it where layers end"
        )
    return text


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Find where each `layer { ... }` and `layers { ... }` begins and ends."""
    depth, start, word = 0, -1, None
    for token in _TOKEN.finditer(text):
        mark = token.group()
        if mark in "{<":
            if depth == 0 and word and word.group() in ("layer", "layers"):
                start = word.start()
            depth += 1
        elif mark in "}>":
            depth -= 1
            if depth == 0 and start >= 0:
                yield start, token.end()
                start = -1
        elif not mark.startswith("#"):
            word = token
    if start >= 0:
        # Left open: the parser says so, and where.
        yield start, len(text)


def _parse(text: str, path: Path, *, line: int) -> tuple[Any, str]:
    try:
        return _parse_or_fail(text)
    except text_format.ParseError as error:
        where = line + (error.GetLine() or 1) - 1
        raise NetworkError(f"{path}, line {where}: {_problem(str(error))}") from error
    except RecursionError as error:
        raise NetworkError(f"{path}, line {line}: braces are nested too deeply") from error


def _problem(message: str) -> str:
    if unknown := _UNKNOWN_FIELD.search(message):
        return (
            f"{unknown.group(1)} has no field {unknown.group(2)!r} that lookalike knows; drop it "
            "if it changes nothing"
        )
    return _PLACE.sub("", message)[:200]


def _parse_or_fail(text: str) -> tuple[Any, str]:
    try:
        return text_format.Parse(text, message("NetParameter")), ""
    except text_format.ParseError as error:
        found = _UNKNOWN_FIELD.search(str(error))
        if found is None or found.group(1) not in _MAY_HOLD_UNKNOWN:
            raise
    unknown = found.group(2) if found.group(1) in _LAYERS else ""
    parsed = text_format.Parse(text, message("NetParameter"), allow_unknown_field=True)
    return parsed, unknown if unknown.endswith("_param") else ""
