"""What is built, and where the result is kept."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Recipe:
    """One source package, and what a wheel of it is called.

    Attributes:
        project: Its name on the package index.
        version: Its version there.
        sha256: Digest of the source archive, in hex.
        build: The wheel's build number. Raise it when the build changes: a wheel with another
            number is built anew.
    """

    project: str
    version: str
    sha256: str
    build: int

    @property
    def folder(self) -> str:
        """The folder inside the archive, which is also the archive's name without ending."""
        return f"{self.project}-{self.version}"


# The package holds BVLC Caffe at commit 9b891540183ddc834a02b2bd81b31afae71b2153 (1.0).
CAFFE = Recipe(
    project="brocolli-caffe",
    version="9.0.2",
    sha256="c6410cc60bdd6db685d441b66be7df05410f8850ac88d6b75d48ef9b2315c08a",
    build=1,
)


def cache_folder(recipe: Recipe, environ: Mapping[str, str] = os.environ) -> Path:
    """Return where a wheel for this Python on this kind of machine is kept, outside the clone."""
    # An empty or relative XDG_CACHE_HOME counts as none: XDG Base Directory Specification 0.8.
    named = Path(environ.get("XDG_CACHE_HOME", ""))
    root = named if named.is_absolute() else Path.home() / ".cache"
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    # A wheel holds libraries of this system, which ask for its C library or a newer one.
    system = "-".join((platform.machine(), *platform.libc_ver()))
    return root / "lookalike" / "caffe" / f"{recipe.version}-{recipe.build}-{python}-{system}"
