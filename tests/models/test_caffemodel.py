from __future__ import annotations

import itertools
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.caffe.prototxt import read_prototxt
from models.caffe.schema import message
from models.caffe.shapes import fit, infer
from models.caffe.weights import read_caffemodel, read_mean
from models.errors import WeightsError
from tests.models.caffe_files import FORMATS, TODAY, caffemodel, random_blobs, write_files


def read(folder: Path, data: bytes) -> dict[str, list[Any]]:
    path = folder / "w.caffemodel"
    path.write_bytes(data)
    return read_caffemodel(path)


def blob(**fields: Any) -> bytes:
    net = message("NetParameter")
    found = net.layer.add(name="fc").blobs.add()
    for name, value in fields.items():
        if name == "dim":
            found.shape.dim.extend(value)
        else:
            setattr(found, name, value)
    return bytes(net.SerializeToString())


@pytest.mark.parametrize("form", FORMATS)
def test_weights_of_every_format_fit_their_network(tmp_path: Path, form: str) -> None:
    text, _ = write_files(tmp_path, FORMATS[form])
    blobs = random_blobs(text, seed=3)
    found = read(tmp_path, caffemodel(blobs, form))
    for sized in infer(read_prototxt(text)):
        expected = blobs.get(sized.layer.name, [])
        taken = fit(sized, found, source="w")
        assert [array.shape for array in taken] == sized.blobs
        for one, other in zip(taken, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_files_of_caffe_s_own_wire_format_are_read(tmp_path: Path) -> None:
    # layer { name: "a" blobs { shape { dim: 2 } data: [1, -2] diff: [0, 0] } }, byte by byte.
    shape = b"\x3a\x03\x0a\x01\x02"
    data = b"\x2a\x08" + np.array([1, -2], "<f4").tobytes()
    diff = b"\x32\x08" + bytes(8)
    inner = b"\x0a\x01a" + b"\x3a" + bytes([len(shape + data + diff)]) + shape + data + diff
    found = read(tmp_path, b"\xa2\x06" + bytes([len(inner)]) + inner)
    np.testing.assert_array_equal(found["a"][0], np.array([1, -2], np.float32))


def test_double_precision_is_rounded(tmp_path: Path) -> None:
    values = np.array([1.1, 1e300])
    found = read(tmp_path, blob(dim=[2], double_data=values.tobytes()))["fc"][0]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array([1.1, np.inf], np.float32))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no weights"),
        (b"\x00\x01\x02garbage" * 9, "truncated or not"),
        (blob(dim=[3], data=bytes(8)), "2 values"),
        (blob(dim=[2], data=bytes(7)), "7 bytes"),
        (blob(dim=[-1, -2], data=bytes(8)), "-1"),
        (blob(dim=[2**40, 2**40], data=bytes(8)), "2 values"),
        (blob(dim=[1] * 99, data=bytes(4)), "1 values"),
        (blob(num=2, channels=3, height=1, width=1, data=bytes(8)), "2 values"),
        (blob(dim=[1], data=bytes(4)) * 2, "two layers 'fc'"),
    ],
)
def test_damaged_weights_are_refused_by_name(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(WeightsError, match=r"w\.caffemodel") as caught:
        read(tmp_path, data)
    assert says in str(caught.value)


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    text, weights = write_files(tmp_path, TODAY)
    whole = weights.read_bytes()
    names = random_blobs(text)
    for size in itertools.chain(range(0, len(whole), 97), [len(whole) - 1]):
        with suppress(WeightsError):
            # Cut between two layers, the rest is a file of its own: that layers are missing
            # is found when the weights are fitted to the network.
            assert len(read(tmp_path, whole[:size])) < len(names)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes) -> None:
    with suppress(WeightsError):
        assert read(tmp_path, data)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.caffemodel"):
        read_caffemodel(tmp_path / "absent.caffemodel")


def _write_mean(folder: Path, name: str, values: Any) -> Path:
    path = folder / name
    if name.endswith(".npy"):
        np.save(path, values)
    else:
        found = message("BlobProto")
        found.num = 1
        found.channels, found.height, found.width = values.shape
        found.data = values.astype("<f4").tobytes()
        path.write_bytes(found.SerializeToString())
    return path


@pytest.mark.parametrize("name", ["mean.npy", "mean.binaryproto"])
def test_a_mean_image_is_read_as_it_was_written(tmp_path: Path, name: str) -> None:
    values = np.random.default_rng(0).uniform(0, 255, (3, 4, 5))
    found = read_mean(_write_mean(tmp_path, name, values))
    np.testing.assert_array_equal(found, values.astype(np.float32))


@pytest.mark.parametrize("shape", [(3,), (3, 1, 1), (1, 3, 1, 1)])
def test_a_mean_of_three_values_is_read_from_any_shape(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    path = _write_mean(tmp_path, "mean.npy", np.array([104, 117, 123.0]).reshape(shape))
    np.testing.assert_array_equal(read_mean(path), np.array([104, 117, 123], np.float32))


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("mean.npy", b"nothing", "not an array"),
        ("mean.npy", b"", "not an array"),
        ("mean.binaryproto", b"\xff\xff\xff", "truncated or not"),
        ("mean.binaryproto", b"", "(0, 0, 0, 0)"),
    ],
)
def test_a_damaged_mean_is_refused_by_name(
    tmp_path: Path, name: str, data: bytes, says: str
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="mean") as caught:
        read_mean(path)
    assert says in str(caught.value)


@pytest.mark.parametrize("values", [np.zeros(4), np.zeros((2, 2)), np.full((3,), np.nan)])
def test_a_mean_that_is_none_is_refused(tmp_path: Path, values: Any) -> None:
    with pytest.raises(WeightsError, match="mean"):
        read_mean(_write_mean(tmp_path, "mean.npy", values))
