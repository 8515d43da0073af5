import hashlib
import io
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.errors import WeightsError
from models.torch_file import read_torch_file

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
Save = Callable[..., tuple[Path, str]]


class Storage:
    def __init__(self, kind: type, key: str, values: NDArray[Any]) -> None:
        self.kind, self.key, self.values = kind, key, values


class Tensor:
    def __init__(self, rebuild: Any, storage: Storage, *layout: Any) -> None:
        self.rebuild, self.storage, self.layout = rebuild, storage, layout

    def __reduce__(self) -> Any:
        return self.rebuild, (self.storage, *self.layout, False, OrderedDict())


class TorchPickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, Storage):
            return ("storage", obj.kind, obj.key, "cpu", obj.values.size, None)
        return None


@pytest.fixture
def save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Save:
    """Writes a file as PyTorch 1.5 did; tensors are (values, offset, shape, strides)."""
    torch, utils = ModuleType("torch"), ModuleType("torch._utils")
    for name in ("FloatStorage", "LongStorage", "CharStorage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def rebuild(*args: Any) -> None:
        pytest.fail("a pickle holds its name alone")

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = rebuild  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    def write(magic: int = MAGIC, cut: int = 0, /, **tensors: Any) -> tuple[Path, str]:
        kinds = {"f": "FloatStorage", "i": "LongStorage", "b": "CharStorage"}
        storages: list[Storage] = []
        saved = OrderedDict()
        for name, (values, *layout) in tensors.items():
            kind = kinds["b" if values.dtype == np.int8 else values.dtype.kind]
            storages.append(Storage(getattr(torch, kind), name * 2, values))
            saved[name] = Tensor(rebuild, storages[-1], *layout)
        file = io.BytesIO()
        for value in (magic, PROTOCOL, {}, saved, [storage.key for storage in storages]):
            TorchPickler(file, 2).dump(value)
        for storage in storages:
            file.write(storage.values.size.to_bytes(8, "little") + storage.values.tobytes())
        data = file.getvalue()[: -cut or None]
        path = tmp_path / "weights.pth"
        path.write_bytes(data)
        return path, hashlib.sha256(data).hexdigest()

    return write


def read(saved: tuple[Path, str]) -> dict[str, NDArray[Any]]:
    return read_torch_file(saved[0], sha256=saved[1])


def test_tensors_come_back_with_their_shape_dtype_and_strides(save: Save) -> None:
    values = np.arange(10, dtype=np.float32)
    tensors = read(
        save(
            plain=(values, 0, (2, 5), (5, 1)),
            turned=(values, 1, (3, 2), (1, 3)),
            counter=(np.array([7]), 0, (), ()),
        )
    )
    assert np.array_equal(tensors["plain"], values.reshape(2, 5))
    assert np.array_equal(tensors["turned"], values[1:7].reshape(2, 3).T)
    assert (tensors["counter"].dtype, tensors["counter"].shape) == (np.int64, ())
    assert tensors["plain"].dtype == np.float32


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (11,), (1,)), (5, (2, 5), (5, 1)), (0, (2,), (10,)), (-1, (2,), (1,)), (3, (2,), (-1,))],
)
def test_a_tensor_that_leaves_its_storage_is_refused(
    save: Save, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    values = np.arange(10, dtype=np.float32)
    with pytest.raises(WeightsError, match="tensor"):
        read(save(tensor=(values, offset, shape, strides)))


def test_a_file_that_ends_early_is_refused(save: Save) -> None:
    with pytest.raises(WeightsError, match="ends inside a storage"):
        read(save(MAGIC, 4, tensor=(np.ones(10, np.float32), 0, (10,), (1,))))


def test_another_kind_of_pickle_is_refused(save: Save) -> None:
    with pytest.raises(WeightsError, match="magic number"):
        read(save(1234))


def test_a_kind_of_storage_that_is_not_known_is_refused(save: Save) -> None:
    with pytest.raises(WeightsError, match="CharStorage has no place here"):
        read(save(tensor=(np.ones(4, np.int8), 0, (4,), (1,))))


def test_a_pickle_cannot_run_code(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return Path.write_text, (tmp_path / "reached", "")

    file = io.BytesIO()
    for value in (MAGIC, PROTOCOL, {}, Attack()):
        pickle.dump(value, file)
    path = tmp_path / "weights.pth"
    path.write_bytes(file.getvalue())
    with pytest.raises(WeightsError, match="has no place here"):
        read((path, hashlib.sha256(file.getvalue()).hexdigest()))
    assert not (tmp_path / "reached").exists()


def test_a_file_with_another_digest_is_not_opened(save: Save) -> None:
    path, _ = save(tensor=(np.ones(3, np.float32), 0, (3,), (1,)))
    with pytest.raises(WeightsError, match="not the file of weights"):
        read_torch_file(path, sha256="0" * 64)


def test_a_missing_file_is_a_weights_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="No such file"):
        read_torch_file(tmp_path / "none.pth", sha256="0" * 64)


def test_random_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "noise.pth"
    for seed in range(100):
        data = b"\x80\x02" * (seed % 2) + np.random.default_rng(seed).bytes(200)
        path.write_bytes(data)
        with pytest.raises(WeightsError):
            read((path, hashlib.sha256(data).hexdigest()))
