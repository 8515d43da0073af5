"""Caffe's binary files: the weights of a network, and a mean image."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from models.caffe.network import MOST_AXES
from models.caffe.schema import message
from models.errors import WeightsError

# Protobuf refuses longer messages, and no network for images comes near: VGG-19 has 575 MB.
_LARGEST_BYTES = 2**31 - 1
_NOT_WEIGHTS = "expected the binary weights of a Caffe network (.caffemodel), whole"


def read_caffemodel(path: Path) -> dict[str, list[NDArray[np.float32]]]:
    """Read the weights that a Caffe file of any format holds.

    Args:
        path: A file that Caffe's solver or `Net.save` wrote.

    Returns:
        For each layer that has weights its blobs, dtype=float32, read-only, in Caffe's order
        and with the shape that the file gives them: files from before 2015 write four axes for
        each.

    Raises:
        WeightsError: The file cannot be read, is truncated or is of another kind, a blob's
            shape does not go with its number of values, or two layers share a name.
    """
    net = message("NetParameter")
    _decode(net, path)
    found: dict[str, list[NDArray[np.float32]]] = {}
    for name, blobs in _layers(net):
        if not blobs:
            continue
        if name in found:
            raise WeightsError(f"{path} has two layers {name!r} with weights; rename one of them")
        found[name] = [
            _array(blob, f"{path}: blob {index} of layer {name!r}")
            for index, blob in enumerate(blobs)
        ]
    if not found:
        raise WeightsError(f"{path} holds no weights; {_NOT_WEIGHTS}")
    return found


def read_mean(path: Path) -> NDArray[np.float32]:
    """Read the mean that a network was trained with.

    Args:
        path: A `.npy` or a `.binaryproto` file.

    Returns:
        shape=(3, H, W) or (3,), dtype=float32, on the scale 0 to 255, channels in the order of
        the file; Caffe's is BGR.

    Raises:
        WeightsError: The file cannot be read, or holds neither of the two shapes.
    """
    values = _read_npy(path) if path.suffix == ".npy" else _read_blob(path)
    values = values.reshape(values.shape[1:]) if values.shape[:1] == (1,) else values
    if values.ndim == 3 and values.shape[1:] == (1, 1):
        values = values[:, 0, 0]
    if values.ndim not in (1, 3) or values.shape[0] != 3 or 0 in values.shape:
        raise WeightsError(
            f"{path} holds values of shape {values.shape}, expected a mean image of shape "
            "(3, H, W) or three values"
        )
    if not np.isfinite(values).all():
        raise WeightsError(f"{path} holds values that are not finite; write the mean again")
    return values


def _read_npy(path: Path) -> NDArray[np.float32]:
    try:
        return np.asarray(np.load(path, allow_pickle=False), np.float32)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, TypeError, EOFError) as error:
        raise WeightsError(
            f"{path} is not an array of numbers; write it with numpy.save, or get it again"
        ) from error


def _read_blob(path: Path) -> NDArray[np.float32]:
    blob = message("BlobProto")
    _decode(blob, path)
    return _array(blob, str(path))


def _decode(target: Any, path: Path) -> None:
    try:
        size = path.stat().st_size
        if size > _LARGEST_BYTES:
            raise WeightsError(f"{path} has {size} bytes, more than 2 GiB; {_NOT_WEIGHTS}")
        target.ParseFromString(path.read_bytes())
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from error
    except DecodeError as error:
        raise WeightsError(
            f"{path} is truncated or not a file of Caffe's; get it again"
        ) from error


def _layers(net: Any) -> Iterable[tuple[str, Any]]:
    for layer in net.layer:
        yield layer.name, layer.blobs
    for layer in net.layers:
        # The first format keeps name and weights one level further in.
        source = layer.layer if layer.HasField("layer") else layer
        yield source.name, source.blobs


def _array(blob: Any, where: str) -> NDArray[np.float32]:
    kind, data = ("<f8", blob.double_data) if blob.double_data else ("<f4", blob.data)
    shape = _shape(blob)
    values = np.frombuffer(data, kind) if len(data) % int(kind[-1]) == 0 else None
    # Python's integers: absurd sizes are compared, not allocated.
    fits = values is not None and len(shape) <= MOST_AXES and math.prod(shape) == len(values)
    if values is None or not fits or min(shape, default=0) < 0:
        count = f"{len(data)} bytes" if values is None else f"{len(values)} values"
        raise WeightsError(
            f"{where} says shape {shape[:MOST_AXES]} but holds {count}; get the file again"
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and found later
        return values.reshape(shape).astype(np.float32, copy=False)


def _shape(blob: Any) -> tuple[int, ...]:
    if blob.HasField("shape"):
        return tuple(blob.shape.dim)
    return (blob.num, blob.channels, blob.height, blob.width)
