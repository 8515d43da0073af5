"""Real Caffe inside this process: loading it quietly, its threads, and trying out a network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import EngineError

if TYPE_CHECKING:
    from models.bundle import CaffeFiles

_TRIAL_S = 300
_ROOT = Path(__file__).parents[1]
# glog's levels are INFO, WARNING, ERROR, FATAL. Caffe tells every layer's size at INFO.
_QUIET = ("GLOG_minloglevel", "2")


def import_caffe() -> Any:
    """Return the module `caffe`.

    Raises:
        EngineError: It is not installed or cannot be loaded.
    """
    # glog reads it once, when it is loaded.
    os.environ.setdefault(*_QUIET)
    try:
        import caffe
    except ModuleNotFoundError as error:
        raise EngineError(
            f"pycaffe is not installed ({error.name} is missing); run `make caffe`, or use the "
            "engine onnx"
        ) from error
    except ImportError as error:
        raise EngineError(f"pycaffe cannot be loaded: {error}; run `make caffe` again") from error
    return caffe


def use_device(caffe: Any, device: str) -> None:
    """Choose the device for the calling thread: Caffe keeps that for each thread."""
    caffe.set_mode_gpu() if device == "gpu" else caffe.set_mode_cpu()


class BlasThreads:
    """The number of threads that Caffe multiplies matrices with.

    Caffe has no threads of its own; its OpenBLAS has one pool for the process, apart from the
    OpenBLAS of NumPy. Where two engines ask for different numbers, each call sets its own.
    """

    def __init__(self, threads: int) -> None:
        import threadpoolctl

        found = threadpoolctl.ThreadpoolController().select(internal_api="openblas")
        # NumPy's lies in a folder of its own and is left alone.
        self._pools = [
            pool for pool in found.lib_controllers if "brocolli_caffe" in str(pool.filepath)
        ]
        self._threads = threads

    def apply(self) -> None:
        """Set the number."""
        for pool in self._pools:
            pool.set_num_threads(self._threads)


def try_out(files: CaffeFiles, *, side_px: int, device: str) -> None:
    """Load a network in a child process and run one grey picture through it.

    Caffe ends the process on whatever it does not like: a layer it does not know, weights of
    another shape, sizes that do not fit, a GPU that it was built without. The child's end is
    told as an error, and this process goes on.

    Raises:
        EngineError: The network cannot be used; the message has Caffe's reason.
    """
    blobs = (files.input_name, str(side_px), device)
    command: list[str | Path] = [
        sys.executable,
        "-P",
        "-m",
        "models.caffe_trial",
        files.prototxt,
        files.weights,
    ]
    environ = os.environ | {"PYTHONPATH": _search_path(), _QUIET[0]: _QUIET[1]}
    try:
        done = subprocess.run(  # noqa: S603 - our own module, and no shell
            [*command, *blobs],
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            env=environ,
            timeout=_TRIAL_S,
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(
            f"Caffe did not run {files.prototxt} within {_TRIAL_S} s; free the machine, or use "
            "the engine onnx"
        ) from error
    if done.returncode:
        reason = _reason(done.stderr) or f"it ended with {done.returncode}"
        raise EngineError(
            f"Caffe cannot run {files.prototxt} with {files.weights.name} on the {device}: "
            f"{reason}; correct the files, or use the engine onnx"
        )


def _search_path() -> str:
    paths = (str(_ROOT), os.environ.get("PYTHONPATH", ""))
    return os.pathsep.join(path for path in paths if path)


def _reason(output: str) -> str:
    """Return the message of glog's fatal line, or the last line of a traceback."""
    lines = [line for line in output.splitlines() if line.strip()]
    fatal = [line.partition("] ")[2] for line in lines if line[:1] == "F" and "] " in line]
    return " ".join((fatal or lines[-1:])[:1])
