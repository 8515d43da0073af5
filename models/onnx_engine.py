"""The engine that runs `network.onnx` by ONNX Runtime on the CPU."""

from __future__ import annotations

import importlib
import mmap
import os
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from models.engine import Engine
from models.errors import BundleError, EngineError

if TYPE_CHECKING:
    from pathlib import Path

    import onnxruntime
    from numpy.typing import NDArray

    from models.bundle import Bundle

# From 1.29 on ONNX Runtime reports its use over the network, and keeps a database in the user's
# home, unless one of these is set before it is imported (the name changed on the way).
_NO_TELEMETRY = ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED")

# How a node of type LRN says so in a file: field 4 of NodeProto, three letters.
_LRN = b"\x22\x03LRN"


class OnnxEngine(Engine):
    """One ONNX Runtime session."""

    def __init__(self, bundle: Bundle, *, threads: int) -> None:
        super().__init__(bundle, bundle.network)
        self._session: Any = _open_session(bundle, threads)
        _check_signature(bundle, self._session)

    def _run(self, planes: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        session = self._session
        if session is None:
            raise EngineError(f"the engine of bundle {self.bundle.name} is closed; open a new one")
        outputs = [self.bundle.feature_name]
        if self.bundle.bits:
            outputs.append(self.bundle.latent_name)
        try:
            features, *latent = session.run(outputs, {self.bundle.input_name: planes})
        # ONNX Runtime's errors share no base class of their own.
        except Exception as error:
            raise EngineError(
                f"the network of bundle {self.bundle.name} failed: {error}"
            ) from error
        return features, latent[0] if latent else np.empty((len(planes), 0), np.float32)

    def close(self) -> None:
        """Free the network; a call under way in another thread still finishes."""
        self._session = None


def load_runtime() -> ModuleType:
    """Import ONNX Runtime, silenced. Whoever needs it before an engine is open comes here."""
    for name in _NO_TELEMETRY:
        os.environ.setdefault(name, "1")
    return importlib.import_module("onnxruntime")


def _open_session(bundle: Bundle, threads: int) -> onnxruntime.InferenceSession:
    onnxruntime = load_runtime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin while they wait take the cores from those who decode images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            _network(bundle.network), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise EngineError(f"ONNX Runtime cannot open {bundle.network}: {error}") from error


def _network(path: Path) -> Path | bytes:
    """Return what ONNX Runtime opens: the file, or another form of it that is faster there."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data.find(_LRN) < 0:
            return path
    # Few networks need it, and the others are spared the import.
    import onnx

    from models.graphs.lrn import expand_lrn

    return bytes(expand_lrn(onnx.load(path)).SerializeToString())


def _check_signature(bundle: Bundle, session: onnxruntime.InferenceSession) -> None:
    side = bundle.preprocess.input_px
    expected = {
        bundle.input_name: [3, side, side],
        bundle.feature_name: [bundle.dims],
    }
    if bundle.bits:
        expected[bundle.latent_name] = [bundle.bits]
    found = {node.name: node.shape for node in (*session.get_inputs(), *session.get_outputs())}
    for name, shape in expected.items():
        if name not in found:
            raise BundleError(
                f"{bundle.network} has no input or output {name!r} (it has {', '.join(found)}); "
                "correct the names in bundle.toml"
            )
        if list(found[name][1:]) != shape:
            raise BundleError(
                f"{bundle.network}: {name!r} has shape {found[name]}, bundle.toml says "
                f"{['N', *shape]}; correct the sizes in bundle.toml"
            )
