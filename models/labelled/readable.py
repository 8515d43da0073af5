"""Finds the images of a corpus that can be read, before they are needed again and again."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from models.errors import ImageError
from models.labelled.corpus import Corpus
from models.labelled.pictures import no_warnings, read_picture
from models.labelled.skipped import Skipped, nothing_readable
from models.progress import progress

_AT_ONCE = 1024


def readable(corpus: Corpus, *, min_side_px: int) -> tuple[Corpus, tuple[Skipped, ...]]:
    """Open every image of a corpus.

    Args:
        corpus: The images.
        min_side_px: Large JPEGs may be decoded down to twice this, which is faster.

    Returns:
        The images that can be read, and the others with their reasons.

    Raises:
        CorpusError: None of them can be read.
    """

    def reason(path: Path) -> str | None:
        try:
            read_picture(path, min_side_px=min_side_px)
        except ImageError as error:
            return str(error)
        return None

    reasons: list[str | None] = []
    with (
        no_warnings(),
        ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool,
        progress(total=len(corpus), title=f"checking {corpus.root.name}") as bar,
    ):
        for start in range(0, len(corpus), _AT_ONCE):
            found = list(pool.map(reason, corpus.paths[start : start + _AT_ONCE]))
            reasons += found
            bar.update(len(found))
    both = zip(corpus.paths, reasons, strict=True)
    skipped = tuple(Skipped(path, why) for path, why in both if why is not None)
    if len(skipped) == len(corpus):
        raise nothing_readable(corpus.root, skipped)
    return corpus.take([row for row, why in enumerate(reasons) if why is None]), skipped
