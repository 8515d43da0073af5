"""Images of a folder as a bundle's network takes them, for commands that try networks out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle
from ops.bench.photos import photos_in
from ops.cli.console import Console, shown
from ops.errors import OpsError
from workers.decode import Limits, decode, read_file
from workers.errors import WorkerError
from workers.settings import Settings


def drawn(folder: Path, count: int, seed: int) -> list[Path]:
    """Draw image files below a folder, in the order that a job takes them.

    Raises:
        OpsError: There are none.
    """
    paths = photos_in(folder)
    rows = np.random.default_rng(seed).permutation(len(paths))[:count]
    return [paths[row] for row in sorted(rows)]


def pixels_of(
    paths: Sequence[Path], bundle: Bundle, settings: Settings, console: Console
) -> NDArray[np.uint8]:
    """Decode and preprocess files; those that cannot be used are told of and left out.

    Returns:
        shape=(N, input_px, input_px, 3), dtype=uint8, N at least 1.

    Raises:
        OpsError: None can be used.
    """
    usable = list(_decoded(paths, bundle, settings, console))
    if not usable:
        raise OpsError("None of the images can be used; name another folder with --images.")
    return np.stack(usable)


def _decoded(
    paths: Sequence[Path], bundle: Bundle, settings: Settings, console: Console
) -> Iterator[NDArray[np.uint8]]:
    limits = Limits(settings.max_image_bytes, settings.max_image_pixels)
    for path in paths:
        label = str(path)
        try:
            data = read_file(path, max_bytes=limits.max_bytes, label=label)
            yield decode(data, label=label, preprocess=bundle.preprocess, limits=limits)[0].pixels
        except WorkerError as error:
            console.note(f"left out: {shown(error)}")
