"""The choice of an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.errors import EngineError

if TYPE_CHECKING:
    from models.bundle import Bundle
    from models.engine import Engine

ENGINES = ("onnx", "caffe")
DEVICES = ("cpu", "gpu")


def open_engine(
    bundle: Bundle, *, engine: str = ENGINES[0], threads: int, device: str = DEVICES[0]
) -> Engine:
    """Open a bundle's network.

    Args:
        bundle: As `load_bundle` or `ensure_bundle` returns it.
        engine: One of `ENGINES`.
        threads: How many threads one call of `embed` may use.
        device: One of `DEVICES`; `gpu` is Caffe's alone, where it was built with CUDA.

    Raises:
        ValueError: There is no such engine or device, or `threads` is not positive.
        BundleError: The network is not what the bundle says.
        EngineError: The network cannot be opened, or not by this engine on this device.
    """
    _check_choice("an engine", engine, ENGINES)
    _check_choice("a device", device, DEVICES)
    if threads < 1:
        raise ValueError(f"expected at least 1 thread, got {threads}")
    # Here, so that reading a bundle does not load a runtime.
    if engine == "caffe":
        from models.caffe_engine import CaffeEngine

        return CaffeEngine(bundle, threads=threads, device=device)
    if device != DEVICES[0]:
        raise EngineError("the engine onnx runs on the CPU only; use the device cpu")
    from models.onnx_engine import OnnxEngine

    return OnnxEngine(bundle, threads=threads)


def _check_choice(what: str, choice: str, choices: tuple[str, ...]) -> None:
    if choice not in choices:
        raise ValueError(f"expected {what} among {', '.join(choices)}, got {choice!r}")
