"""Which images are searched and which are searched for, as a network sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.engine import Engine
from models.errors import ImageError
from models.evaluation.retrieval import Embedded
from models.labelled.corpus import Corpus, read_corpus
from models.labelled.extraction import Extracted, Skipped, extract
from models.labelled.pictures import read_picture
from models.labelled.skipped import nothing_readable
from workers.errors import InvalidRequest

DATABASE_PART, QUERY_PARTS = "train", ("test", "val", "valid", "validation")

_DRAWN_SHARE, _MOST_DRAWN = 10, 1000


@dataclass(frozen=True)
class Split:
    """Labelled images in two parts.

    Attributes:
        database: What is searched.
        queries: What is searched for; its classes are those of the database.
        whole: The corpus that both were drawn from, or None where they are two corpora.
    """

    database: Corpus
    queries: Corpus
    whole: Corpus | None


@dataclass(frozen=True)
class Images:
    """Images as one network sees them.

    Attributes:
        paths: N files.
        embedded: Features, codes and labels; equal classes have equal labels in both parts.
        skipped: Files that could not be read.
    """

    paths: tuple[Path, ...]
    embedded: Embedded
    skipped: tuple[Skipped, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: NDArray[np.int64]) -> Images:
        """Return some of the images, in the order of `rows`."""
        paths = tuple(self.paths[row] for row in rows)
        return Images(paths, self.embedded.take(rows), self.skipped)


def read_split(data: Path, queries: Path | None, *, sample: int | None, seed: int) -> Split:
    """List the images of both parts.

    Args:
        data: A folder with `train` and one of `QUERY_PARTS` in it, or a folder of class folders,
            or a CSV, see `models.labelled.corpus.read_corpus`.
        queries: The queries, if they are elsewhere; then `data` is the database.
        sample: How many queries to draw. None takes all where they are a part of their own, and
            otherwise a tenth of the images, at most 1,000.
        seed: For the draw.

    Raises:
        CorpusError: The images or their classes are not there, or cannot be read.
        InvalidRequest: The database lacks a class of the queries, or there are too few images.
    """
    part = next((data / name for name in QUERY_PARTS if (data / name).is_dir()), None)
    database = data / DATABASE_PART
    if queries is not None:
        database = data
    elif part is not None and database.is_dir():
        queries = part
    if queries is None:
        return _drawn(read_corpus(data), sample, seed)
    found = _relabelled(read_corpus(queries), read_corpus(database))
    return replace(found, queries=_sampled(found.queries, sample, seed))


def embed_split(split: Split, engine: Engine, *, seed: int, cache: Path | None) -> list[Images]:
    """Run the network on both parts.

    Args:
        split: The images.
        engine: The network.
        seed: For the order of the database, which decides between equal distances. Files are
            listed class by class; a search of a real collection has no such order.
        cache: Folder for features, or None.

    Returns:
        The database, in random order, and the queries.

    Raises:
        InvalidRequest: No image of a query's class could be read.
        CorpusError: No image could be read.
        CacheError: The cache cannot be written.
    """
    if split.whole is not None:
        whole = _images(extract(split.whole, engine, cache=cache), engine)
        parts = [_those_of(whole, part) for part in (split.database, split.queries)]
    else:
        parts = [
            _images(extract(part, engine, cache=cache), engine)
            for part in (split.database, split.queries)
        ]
    database, queries = parts
    known = np.unique(database.embedded.labels)
    _insist_on_classes(split.database.classes, queries.embedded.labels, known, split.database.root)
    order = np.random.default_rng(seed).permutation(len(database))
    return [database.take(order), queries]


def _drawn(corpus: Corpus, sample: int | None, seed: int) -> Split:
    order = np.random.default_rng(seed).permutation(len(corpus))
    # The first of each class stays in the database, so that every query has something to find.
    first = np.unique(corpus.labels[order], return_index=True)[1]
    free = np.delete(order, first)
    wanted = max(1, min(len(corpus) // _DRAWN_SHARE, _MOST_DRAWN)) if sample is None else sample
    if not len(free):
        raise _nothing_to_draw(corpus)
    if not 1 <= wanted <= len(free):
        raise InvalidRequest(
            f"{wanted} queries cannot be drawn from the {len(corpus)} images of {corpus.root}: "
            "one of each class stays in the database.",
            remedy=f"Give more images, or --sample from 1 to {len(free)}.",
        )
    queries = np.sort(free[:wanted])
    database = np.setdiff1d(np.arange(len(corpus)), queries)
    return Split(corpus.take(database), corpus.take(queries), corpus)


def _nothing_to_draw(corpus: Corpus) -> Exception:
    """Say why: a folder where every class has one image mostly has images that are none."""
    skipped = []
    for path in corpus.paths:
        try:
            read_picture(path)
        except ImageError as error:
            skipped.append(Skipped(path, str(error)))
        else:
            return InvalidRequest(
                f"Each class of {corpus.root} has one image only, so none is left to search for.",
                remedy="Add images of the same classes, or give queries with --queries.",
            )
    return nothing_readable(corpus.root, skipped)


def _sampled(queries: Corpus, sample: int | None, seed: int) -> Corpus:
    if sample is None or sample == len(queries):
        return queries
    if not 1 <= sample < len(queries):
        raise InvalidRequest(
            f"--sample is {sample}, and {queries.root} has {len(queries)} images.",
            remedy=f"Give --sample from 1 to {len(queries)}, or leave it out to take all.",
        )
    rows = np.random.default_rng(seed).permutation(len(queries))[:sample]
    return queries.take(np.sort(rows))


def _relabelled(queries: Corpus, database: Corpus) -> Split:
    """Give the queries the class numbers of the database."""
    classes = np.array(database.classes)
    missing = sorted(set(queries.classes) - set(database.classes))
    if missing:
        raise InvalidRequest(
            f"{database.root} has no image of the class {missing[0]!r}, which {queries.root} asks "
            f"for ({len(missing)} such classes).",
            remedy="Add images of it to the database, or take its queries out.",
        )
    numbers = np.searchsorted(classes, np.array(queries.classes))
    renamed = replace(queries, labels=numbers[queries.labels], classes=database.classes)
    return Split(database, renamed, None)


def _insist_on_classes(
    classes: Sequence[str], wanted: NDArray[np.int64], known: NDArray[np.int64], root: Path
) -> None:
    missing = np.setdiff1d(wanted, known)
    if len(missing):
        raise InvalidRequest(
            f"None of the images of the class {classes[missing[0]]!r} in {root} can be read, and "
            "there are queries of it.",
            remedy="Repair the images, or take the class out.",
        )


def _images(found: Extracted, engine: Engine) -> Images:
    codes = np.packbits(found.latent > engine.bundle.code_threshold, axis=1)
    embedded = Embedded(found.features, codes, found.corpus.labels)
    return Images(found.corpus.paths, embedded, found.skipped)


def _those_of(whole: Images, part: Corpus) -> Images:
    wanted = set(part.paths)
    rows = [row for row, path in enumerate(whole.paths) if path in wanted]
    skipped = tuple(each for each in whole.skipped if each.path in wanted)
    return replace(whole.take(np.array(rows, np.int64)), skipped=skipped)
