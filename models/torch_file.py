"""Reads weights that PyTorch saved before version 1.6, without PyTorch.

Such a file is five pickles (magic number, protocol, machine, the tensors by name, the keys of
their storages) followed by the storages: for each an int64 length and that many raw elements.
"""

import hashlib
import io
import math
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import WeightsError

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


@dataclass(frozen=True)
class _Tensor:
    """A view into a storage that stands further down in the file."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage: str, offset: int, shape: Any, strides: Any, *_: Any) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


# Unpickling foreign bytes raises whatever the opcode that they happen to hit raises.
_NOT_A_PICKLE = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
)
_DTYPES = {
    "HalfStorage": np.dtype("<f2"),
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "LongStorage": np.dtype("<i8"),
}
# A pickle may name any function to call; these names are all that a file of weights needs.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    """Refuses everything but tensors, and notes which storages they refer to."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.dtypes: dict[str, np.dtype[Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} has no place here") from None

    def persistent_load(self, pid: Any) -> str:
        _, dtype, key, *_ = pid
        self.dtypes[key] = dtype
        return str(key)


def read_torch_file(path: Path, *, sha256: str) -> dict[str, NDArray[Any]]:
    """Read every tensor of a file that PyTorch before 1.6 saved.

    Args:
        path: The `.pth` file, a saved `state_dict`.
        sha256: The digest that the file must have, in hex. The file holds pickles, so only a
            known file is opened.

    Returns:
        The tensors by name, in the shape and dtype they were saved with.

    Raises:
        WeightsError: The file is missing, has another digest, or is not such a file.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read the weights {path}: {error.strerror}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise WeightsError(
            f"{path} is not the file of weights that is needed: its sha256 is {found}, expected "
            f"{sha256}; reinstall the package it came with"
        )
    try:
        return _parse(data)
    except _NOT_A_PICKLE as error:
        raise WeightsError(
            f"{path} is not a state_dict saved by PyTorch before 1.6: {error}"
        ) from error


def _parse(data: bytes) -> dict[str, NDArray[Any]]:
    file = io.BytesIO(data)
    magic, protocol, _ = (_Unpickler(file).load() for _ in range(3))
    if (magic, protocol) != (_MAGIC, _PROTOCOL):
        raise ValueError(f"magic number {magic!r}, protocol {protocol!r}")
    unpickler = _Unpickler(file)
    tensors: dict[str, _Tensor] = unpickler.load()
    keys: list[str] = _Unpickler(file).load()
    storages = {key: _read_storage(file, unpickler.dtypes[key]) for key in keys}
    return {name: _view(tensor, storages[tensor.storage]) for name, tensor in tensors.items()}


def _read_storage(file: io.BytesIO, dtype: np.dtype[Any]) -> NDArray[Any]:
    length = int.from_bytes(file.read(8), "little")
    raw = file.read(length * dtype.itemsize)
    if len(raw) != length * dtype.itemsize:
        raise ValueError("the file ends inside a storage")
    return np.frombuffer(raw, dtype)


def _view(tensor: _Tensor, storage: NDArray[Any]) -> NDArray[Any]:
    steps = zip(tensor.shape, tensor.strides, strict=True)
    end = tensor.offset + sum((size - 1) * stride for size, stride in steps) + 1
    if tensor.offset < 0 or min(tensor.strides, default=0) < 0:
        raise ValueError("a tensor with a negative offset or stride")
    if math.prod(tensor.shape) and end > storage.size:
        raise ValueError("a tensor larger than its storage")
    strides = [stride * storage.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides)
    return view.copy()
