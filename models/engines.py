"""The choice of an engine."""

from models.bundle import Bundle
from models.engine import Engine

ENGINES = ("onnx",)


def open_engine(bundle: Bundle, *, engine: str = "onnx", threads: int) -> Engine:
    """Open a bundle's network.

    Args:
        bundle: As `load_bundle` or `ensure_bundle` returns it.
        engine: One of `ENGINES`.
        threads: How many threads one call of `embed` may use.

    Raises:
        ValueError: There is no such engine, or `threads` is not positive.
        BundleError: The network is not what the bundle says.
        EngineError: The network cannot be opened.
    """
    if engine not in ENGINES:
        raise ValueError(f"expected an engine among {', '.join(ENGINES)}, got {engine!r}")
    if threads < 1:
        raise ValueError(f"expected at least 1 thread, got {threads}")
    # Here, so that reading a bundle does not load a runtime.
    from models.onnx_engine import OnnxEngine

    return OnnxEngine(bundle, threads=threads)
