"""The shards of a collection as folders, for the commands that look at the files alone."""

from __future__ import annotations

import re
from pathlib import Path

from ops.cli.collection import no_collection

_NAME = re.compile(r"\d+-of-\d+")


def shard_folders(data_dir: Path) -> list[Path]:
    """Return the folders of a collection's shards, in order.

    Raises:
        NotFound: There is no collection.
    """
    found = (path for path in shards_folder(data_dir).glob("*-of-*") if _NAME.fullmatch(path.name))
    folders = sorted(found, key=lambda path: int(path.name.partition("-")[0]))
    if not folders:
        raise no_collection(data_dir)
    return folders


def shards_folder(data_dir: Path) -> Path:
    """Return the folder that a collection's shards are in."""
    return data_dir / "shards"
