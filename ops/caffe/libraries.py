"""Where the system keeps what Caffe is built from."""

from __future__ import annotations

import platform
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from ops.caffe.commands import BuildError

_LIBRARIES = Path("/usr/lib")
_INSTALLER = Path(__file__).with_name("install_build_deps.sh")


@dataclass(frozen=True)
class Libraries:
    """Folders and files of the system.

    Attributes:
        python: Python's headers.
        numpy: NumPy's headers.
        hdf5: HDF5's headers.
        hdf5_library: Folder of HDF5's libraries, which Debian keeps apart.
        boost_python: Boost.Python for the running Python.
    """

    python: Path
    numpy: Path
    hdf5: Path
    hdf5_library: Path
    boost_python: Path


def install_libraries() -> None:
    """Install Debian's packages that are missing, where that is allowed.

    Raises:
        BuildError: Some are missing and may not be installed; what they are has been said.
    """
    command: list[str | Path] = [_INSTALLER, sysconfig.get_paths()["include"]]
    done = subprocess.run(command, check=False)  # noqa: S603 - our own script
    if done.returncode:
        raise BuildError(
            "Caffe needs packages that could not be installed; install them as said above, then "
            "run `make caffe` again"
        )


def find_libraries() -> Libraries:
    """Find what the build has to be told of.

    Raises:
        BuildError: There is no Boost.Python for the running Python.
    """
    import numpy as np

    # Not every Python says what Debian calls the machine.
    machine = sysconfig.get_config_var("MULTIARCH") or f"{platform.machine()}-linux-gnu"
    folder = _LIBRARIES / machine
    return Libraries(
        python=Path(sysconfig.get_paths()["include"]),
        numpy=Path(np.get_include()),
        hdf5=Path("/usr/include/hdf5/serial"),
        hdf5_library=folder / "hdf5" / "serial",
        boost_python=_boost_python(folder),
    )


def _boost_python(folder: Path) -> Path:
    ours = f"3.{sys.version_info.minor}"
    library = folder / f"libboost_python{ours.replace('.', '')}.so"
    if library.exists():
        return library
    others = sorted(folder.glob("libboost_python3*.so"))
    versions = [f"3.{path.stem.removeprefix('libboost_python3')}" for path in others]
    raise BuildError(
        f"the system has Boost.Python for Python {' and '.join(versions) or '(none)'} and this is "
        f"Python {ours}; make the environment with that Python: "
        f"make clean setup caffe PYTHON=python{versions[-1] if versions else '3.11'}"
    )
