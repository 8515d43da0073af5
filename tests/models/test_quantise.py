import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tqdm import tqdm

from models.bundle import Bundle, load_bundle
from models.engines import open_engine
from models.errors import BundleError, NetworkError
from models.quantise import agreement, quantise_bundle
from tests.models.conftest import SIDE_PX

MakeBundle = Callable[..., Bundle]

BITS, DIMS = 12, 6


def pictures(count: int, side_px: int = SIDE_PX) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, side_px, side_px, 3), np.uint8)


def node(kind: str, inputs: list[str], output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], **attributes)  # nodes without a name


def network(*middle: onnx.NodeProto, opset: int = 17) -> bytes:
    """A network whose first layer ends in `first`; `middle` leads from there to `feature`."""
    rng = np.random.default_rng(7)
    shapes = {
        "w1": (8, 3, 3, 3),
        "w2": (8, 8, 3, 3),
        "b2": (8,),
        "w3": (DIMS, 8 * 4 * 4),
        "b3": (DIMS,),
        "latent": (BITS, DIMS),
    }
    constants = {name: rng.standard_normal(shape) / 3 for name, shape in shapes.items()}
    nodes = [
        node("Conv", ["input", "w1"], "first", strides=[2, 2], pads=[1, 1, 1, 1]),
        *middle,
        node("Gemm", ["feature", "latent"], "raw", transB=1),
        node("Sigmoid", ["raw"], "latent_values"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, SIDE_PX, SIDE_PX])],
        [
            helper.make_tensor_value_info("feature", TensorProto.FLOAT, ["N", DIMS]),
            helper.make_tensor_value_info("latent_values", TensorProto.FLOAT, ["N", BITS]),
        ],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return bytes(model.SerializeToString())


def convolutional(**how: int) -> bytes:
    """A residual convolution and a fully connected layer."""
    return network(
        node("Conv", ["first", "w2", "b2"], "second", pads=[1, 1, 1, 1]),
        node("Relu", ["second"], "bent"),
        node("Add", ["first", "bent"], "sum"),
        node("Flatten", ["sum"], "flat"),
        node("Gemm", ["flat", "w3", "b3"], "full", transB=1),
        node("Relu", ["full"], "feature"),
        **how,
    )


@pytest.fixture(autouse=True)
def no_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tqdm from starting a thread that outlives the test."""
    monkeypatch.setattr(tqdm, "monitor_interval", 0)


@pytest.fixture
def original(make_bundle: MakeBundle) -> Bundle:
    return make_bundle(convolutional(), centres=np.arange(8, dtype=np.uint8).reshape(4, 2))


@pytest.fixture
def variant(original: Bundle, tmp_path: Path) -> Bundle:
    return quantise_bundle(original, pictures(16), tmp_path / "variant")


def kinds(bundle: Bundle) -> dict[str, int]:
    found = [each.op_type for each in onnx.load(bundle.network).graph.node]
    return {kind: found.count(kind) for kind in found}


def test_a_variant_says_nearly_the_same(original: Bundle, variant: Bundle) -> None:
    found = agreement(original, variant, pictures(33), threads=1)
    assert found.images == 33
    assert 0.99 < found.cosine < 1
    assert 0.95 < found.cosine_min <= found.cosine
    assert 0 < found.bits_differing < BITS / 8


def test_a_bundle_agrees_with_itself(original: Bundle) -> None:
    found = agreement(original, original, pictures(5), threads=1)
    assert found.cosine_min == pytest.approx(1)
    assert found.bits_differing == 0


def test_a_variant_is_a_bundle_of_its_own(original: Bundle, variant: Bundle) -> None:
    assert variant == load_bundle(variant.path)
    assert variant.name == "tiny-int8"
    assert variant.id.partition("@")[2] != original.id.partition("@")[2]
    assert variant.caffe is None
    assert (variant.bits, variant.dims, variant.preprocess) == (
        original.bits,
        original.dims,
        original.preprocess,
    )
    assert np.array_equal(variant.centres, original.centres)


def test_the_same_images_give_the_same_bundle(
    original: Bundle, variant: Bundle, tmp_path: Path
) -> None:
    assert quantise_bundle(original, pictures(16), tmp_path / "again").id == variant.id
    assert quantise_bundle(original, pictures(15), tmp_path / "other").id != variant.id


def test_all_but_the_first_layer_and_the_code_are_integers(variant: Bundle) -> None:
    weights = {
        (tuple(each.dims), each.data_type)
        for each in onnx.load(variant.network).graph.initializer
        if len(each.dims) > 1
    }
    assert weights == {
        ((8, 3, 3, 3), TensorProto.FLOAT),
        ((8, 8, 3, 3), TensorProto.INT8),
        ((DIMS, 8 * 4 * 4), TensorProto.INT8),
        ((BITS, DIMS), TensorProto.FLOAT),
    }


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 8, 9])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_batch_of_any_size_equals_single_images(
    variant: Bundle, count: int, threads: int
) -> None:
    with open_engine(variant, threads=threads) as engine, open_engine(variant, threads=1) as alone:
        batch = engine.embed(pictures(count))
        singles = [alone.embed(picture[None]) for picture in pictures(count)]
    for row, single in enumerate(singles):
        assert np.array_equal(batch.features[row], single.features[0])
        assert np.array_equal(batch.codes[row], single.codes[0])


def test_the_real_network_gives_the_same_alone_and_in_a_batch(
    lite_bundle: Bundle, tmp_path: Path
) -> None:
    side_px = lite_bundle.preprocess.input_px
    variant = quantise_bundle(lite_bundle, pictures(2, side_px), tmp_path / "variant")
    found = kinds(variant)
    assert found["QuantizeLinear"] > 50
    assert found["Clip"] == 2  # of the first block; elsewhere ReLU6 is the range of the integers
    pixels = pictures(7, side_px)
    with open_engine(variant, threads=2) as engine:
        batch = engine.embed(pixels)
        singles = [engine.embed(picture[None]) for picture in pixels]
    assert all(np.array_equal(batch.latent[row], one.latent[0]) for row, one in enumerate(singles))


def test_a_network_of_an_old_opset_is_quantised(make_bundle: MakeBundle, tmp_path: Path) -> None:
    old = make_bundle(convolutional(opset=11))
    variant = quantise_bundle(old, pictures(8), tmp_path / "variant")
    assert agreement(old, variant, pictures(9), threads=1).cosine > 0.99


def test_a_bundle_without_a_code_is_quantised(make_bundle: MakeBundle, tmp_path: Path) -> None:
    plain = make_bundle(convolutional(), bits=0, latent_name="")
    variant = quantise_bundle(plain, pictures(8), tmp_path / "variant")
    assert variant.bits == 0
    assert agreement(plain, variant, pictures(9), threads=1).bits_differing == 0


def test_integers_are_not_quantised_again(variant: Bundle, tmp_path: Path) -> None:
    with pytest.raises(
        NetworkError, match=r"bundle tiny-int8 stays as it is: .* in integers already"
    ):
        quantise_bundle(variant, pictures(8), tmp_path / "twice")
    assert not (tmp_path / "twice").exists()


def test_a_network_with_nothing_to_gain_is_refused(
    make_bundle: MakeBundle, tmp_path: Path
) -> None:
    shallow = make_bundle()  # its only convolution reads the picture
    with pytest.raises(NetworkError, match="no Conv or Gemm between its first"):
        quantise_bundle(shallow, pictures(8), tmp_path / "variant")


def test_a_place_that_is_taken_stays_as_it_is(original: Bundle, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    with pytest.raises(BundleError, match="taken exists; delete it, or choose another place"):
        quantise_bundle(original, pictures(8), taken)
    assert list(taken.iterdir()) == []


def test_a_name_that_gets_too_long_is_refused(make_bundle: MakeBundle, tmp_path: Path) -> None:
    original = make_bundle(convolutional(), name="n" * 60)
    with pytest.raises(BundleError, match=r"new bundle's name is 'n+-int8'; .*at most 64; rename"):
        quantise_bundle(original, pictures(8), tmp_path / "variant")


def test_no_images_are_refused(original: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected at least 1 image"):
        quantise_bundle(original, pictures(0), tmp_path / "variant")


def test_a_failure_on_the_way_leaves_nothing(
    original: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(bundle: Bundle, network: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("models.quantise.write_bundle", full)
    place = tmp_path / "bundles" / "variant"
    with pytest.raises(BundleError, match="No space left on device; choose another place"):
        quantise_bundle(original, pictures(8), place)
    assert list(place.parent.iterdir()) == []


def test_what_the_quantiser_cannot_do_is_told(
    original: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **options: object) -> None:
        raise ValueError("no such luck")

    monkeypatch.setattr("onnxruntime.quantization.quantize_static", broken)
    with pytest.raises(NetworkError, match=r"bundle tiny stays as it is: .* no such luck"):
        quantise_bundle(original, pictures(8), tmp_path / "variant")


def test_the_original_stays_as_it_is(original: Bundle, tmp_path: Path) -> None:
    before = hashlib.sha256(original.network.read_bytes()).hexdigest()
    quantise_bundle(original, pictures(8), tmp_path / "variant")
    assert hashlib.sha256(original.network.read_bytes()).hexdigest() == before
