"""Decode a file in children and wait to be killed: ``python -m tests.workers.decoding_parent``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tests.workers.test_decode import PREPROCESS
from workers.decoders import Decoders, ToDecode
from workers.files import Files
from workers.settings import Settings

if __name__ == "__main__":
    path = Path(sys.argv[1])
    decoders = Decoders(
        Settings(data_dir=path.parent), PREPROCESS, Files(path.parent), processes=2
    )
    decoders.decode([ToDecode(path, path.name)])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    time.sleep(600)
