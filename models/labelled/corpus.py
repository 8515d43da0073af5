"""A corpus: image files with a class each, as folders or as a CSV."""

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.labelled.errors import CorpusError, MissingCorpus
from models.labelled.pictures import FORMATS

COLUMNS = ("path", "label")
"""What the header of a CSV must name."""

# Several JPEG images in one file, which the reader of JPEG opens too.
_SEVERAL = "MPO"
_PARTS = {"train", "training", "test", "val", "valid", "validation"}


@dataclass(frozen=True)
class Corpus:
    """Images with a class each.

    Attributes:
        root: The folder or CSV that was read.
        paths: Their files, N of them.
        labels: shape=(N,), dtype=int64; indices into `classes`.
        classes: Names of the classes, sorted.
    """

    root: Path
    paths: tuple[Path, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: NDArray[np.integer] | Sequence[int]) -> Self:
        """Return some of the images, in the order of `rows`; the classes stay as they are."""
        chosen = np.asarray(rows, np.int64)
        paths = tuple(self.paths[row] for row in chosen)
        return type(self)(self.root, paths, self.labels[chosen], self.classes)


def read_corpus(path: Path) -> Corpus:
    """List labelled images without opening them.

    Args:
        path: A folder with a folder of images for each class, however deep the images lie in it;
            files with another extension than those of images, and what begins with a dot, do not
            count. Or a CSV file in UTF-8 whose header names the columns `path` (relative to the
            CSV's folder, or absolute) and `label`; other columns do not count.

    Returns:
        The images, in the order of their paths for folders, of the lines for a CSV.

    Raises:
        MissingCorpus: There is no such folder or CSV.
        CorpusError: A class folder is empty, there are fewer than two classes, or a line of the
            CSV lacks a path or a label.
    """
    if path.is_dir():
        pairs = list(_of_folders(path))
    elif path.is_file():
        pairs = list(_of_csv(path))
    else:
        raise MissingCorpus(
            f"there is no folder or CSV {path}; give a folder with a folder of images for each "
            "class, or a CSV with the columns path,label"
        )
    return _corpus(path, pairs)


def read_photos(root: Path) -> Corpus:
    """List class folders as `read_corpus` does, or files `CLASS_rest.EXT` that lie in one folder.

    Raises:
        CorpusError: As `read_corpus`.
    """
    flat = sorted(path for path in root.glob("*") if _is_image(path.name))
    if not flat:
        return read_corpus(root)
    return _corpus(root, [(path, path.stem.split("_")[0]) for path in flat])


def _corpus(root: Path, pairs: list[tuple[Path, str]]) -> Corpus:
    names = [name for _, name in pairs]
    found, labels = np.unique(names, return_inverse=True)
    classes = tuple(found.tolist())
    if len(classes) < 2:
        held = f"only the class {classes[0]!r}" if names else "no image"
        raise CorpusError(
            f"{root} has {held}; at least two classes are needed, each a folder of images (or a "
            "label of the CSV)"
        )
    paths = tuple(path for path, _ in pairs)
    return Corpus(root, paths, labels.astype(np.int64), classes)


def _of_folders(root: Path) -> Iterator[tuple[Path, str]]:
    folders = sorted(each for each in root.iterdir() if each.is_dir() and _is_shown(each.name))
    if folders and {each.name.lower() for each in folders} <= _PARTS:
        raise CorpusError(
            f"{root} holds the parts {', '.join(each.name for each in folders)}, not classes; "
            f"give one of them, such as {folders[-1]}"
        )
    for folder in folders:
        images = sorted(_images_below(folder))
        if not images:
            raise CorpusError(
                f"the class folder {folder} has no image; delete it, or put images "
                "(JPEG, PNG, WebP, ...) into it"
            )
        yield from ((image, folder.name) for image in images)


def _images_below(folder: Path) -> Iterator[Path]:
    # Data sets are often put together of links.
    for where, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [each for each in folders if _is_shown(each)]
        yield from (Path(where, each) for each in files if _is_image(each))


def _is_shown(name: str) -> bool:
    return not name.startswith(".")


def _is_image(name: str) -> bool:
    extension = os.path.splitext(name)[1].lower()  # noqa: PTH122 - 100,000s of names
    # The table is filled by the first look at any extension that Pillow does not know yet.
    known = Image.EXTENSION or Image.registered_extensions()
    return _is_shown(name) and known.get(extension) in (*FORMATS, _SEVERAL)


def _of_csv(path: Path) -> Iterator[tuple[Path, str]]:
    try:
        # With the mark that spreadsheets put before UTF-8, or without it.
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file)
            missing = set(COLUMNS) - set(lines.fieldnames or ())
            if missing:
                raise CorpusError(
                    f"{path} has no column {', '.join(sorted(missing))}; its first line must name "
                    f"the columns {','.join(COLUMNS)}"
                )
            for line in lines:
                yield _entry(path, lines.line_num, line)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"cannot read {path}: {error}; save it as CSV in UTF-8") from error


def _entry(path: Path, number: int, line: dict[str, str | None]) -> tuple[Path, str]:
    image, label = ((line[column] or "").strip() for column in COLUMNS)
    if not image or not label:
        raise CorpusError(f"line {number} of {path} lacks a path or a label; add it")
    return path.parent / image, label
