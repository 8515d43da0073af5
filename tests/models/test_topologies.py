from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from models.caffe import topologies
from models.caffe.prototxt import read_prototxt
from models.caffe.schema import message
from models.caffe.weights import read_caffemodel
from models.caffe.write import caffemodel

TINY = {"conv1": (2, 3, 2, 2), "fc7": (4, 2)}


def layers(text: str) -> dict[str, object]:
    """Return the layers of a prototxt by name, as they stand in the file."""
    net = message("NetParameter")
    text_format.Parse(text, net)
    return {layer.name: layer for layer in net.layer}


@settings(deadline=None, max_examples=10)
@given(st.sampled_from(["caffenet", "alexnet"]), st.integers(8, 256))
def test_a_code_may_have_any_number_of_bits(topology: str, bits: int) -> None:
    found = layers(topologies.deploy(topology, bits=bits))
    assert found["fc8_kevin"].inner_product_param.num_output == bits
    assert (found["fc8_kevin_encode"].type, *found["fc8_kevin_encode"].bottom) == (
        "Sigmoid",
        "fc8_kevin",
    )


@pytest.mark.parametrize(
    ("topology", "order"), [("caffenet", "pool norm"), ("alexnet", "norm pool")]
)
def test_caffenet_pools_before_it_normalises_and_alexnet_after(topology: str, order: str) -> None:
    names = list(layers(topologies.deploy(topology, bits=48)))
    first, second = order.split()
    for stage in (1, 2):
        at = names.index(f"relu{stage}")
        assert names[at + 1 : at + 3] == [f"{first}{stage}", f"{second}{stage}"]
    assert "norm5" not in names


def test_the_trained_network_is_the_deployed_one_with_a_class_layer(tmp_path: Path) -> None:
    for name, text in (
        ("deploy", topologies.deploy("caffenet", bits=12)),
        ("train_val", topologies.train_val("caffenet", bits=12, classes=10)),
    ):
        (tmp_path / name).write_text(text)
    deployed, trained = (read_prototxt(tmp_path / name) for name in ("deploy", "train_val"))
    assert [layer.name for layer in trained.layers] == [
        *(layer.name for layer in deployed.layers),
        "fc8_pascal",
    ]
    assert deployed.inputs["data"][1:] == trained.inputs["data"][1:] == (3, 227, 227)
    assert trained.layers[-1].bottoms == ("fc8_kevin_encode",)
    assert trained.layers[-1].parameters.inner_product_param.num_output == 10


def test_the_recipe_is_the_paper_s() -> None:
    recipe = message("SolverParameter")
    text_format.Parse(topologies.solver("caffenet", bits=48), recipe)
    numbers = (recipe.base_lr, recipe.gamma, recipe.momentum, recipe.weight_decay)
    assert numbers == pytest.approx((0.001, 0.1, 0.9, 0.0005))
    assert (recipe.lr_policy, recipe.stepsize, recipe.max_iter) == ("step", 25_000, 50_000)
    trained = layers(topologies.train_val("caffenet", bits=48, classes=10))
    speeds = {
        name: [param.lr_mult for param in trained[name].param]
        for name in ("conv1", "fc8_kevin", "fc8_pascal")
    }
    assert speeds == {"conv1": [1, 2], "fc8_kevin": [1, 2], "fc8_pascal": [10, 20]}
    assert trained["fc8_kevin"].inner_product_param.weight_filler.std == pytest.approx(0.005)
    assert trained["conv2"].convolution_param.bias_filler.value == 1
    alexnet = layers(topologies.train_val("alexnet", bits=48, classes=10))
    assert alexnet["conv2"].convolution_param.bias_filler.value == pytest.approx(0.1)


@pytest.mark.parametrize("bits", [0, 7, 257])
def test_codes_out_of_range_are_refused(bits: int) -> None:
    for write in (topologies.deploy, topologies.solver):
        with pytest.raises(ValueError, match="expected 8 to 256 bits"):
            write("caffenet", bits=bits)


def test_unknown_topologies_and_single_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one of caffenet, alexnet, got 'vgg'"):
        topologies.deploy("vgg", bits=48)
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        topologies.train_val("caffenet", bits=48, classes=1)


def test_random_weights_fit_the_network_and_keep_its_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The whole network's 57 million weights would say no more.
    monkeypatch.setattr(topologies, "_FC_VALUES", 64)
    path = tmp_path / "weights.caffemodel"
    path.write_bytes(topologies.random_weights("caffenet", bits=8, seed=3))
    found = read_caffemodel(path)
    assert {name: blobs[0].shape for name, blobs in found.items()} == {
        "conv1": (96, 3, 11, 11),
        "conv2": (256, 48, 5, 5),
        "conv3": (384, 256, 3, 3),
        "conv4": (384, 192, 3, 3),
        "conv5": (256, 192, 3, 3),
        "fc6": (64, 9216),
        "fc7": (64, 64),
        "fc8_kevin": (8, 64),
    }
    assert all(blobs[1].shape == blobs[0].shape[:1] for blobs in found.values())
    for name, gain in (("conv3", 2), ("fc6", 2), ("fc8_kevin", 1)):
        weight = found[name][0]
        assert weight.var() * np.prod(weight.shape[1:]) == pytest.approx(gain, rel=0.2)
    assert topologies.random_weights("caffenet", bits=8, seed=3) == path.read_bytes()
    assert topologies.random_weights("caffenet", bits=8, seed=4) != path.read_bytes()


def test_weights_are_read_as_they_were_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    blobs = {
        name: [rng.standard_normal(shape, np.float32), rng.standard_normal(shape[0], np.float32)]
        for name, shape in TINY.items()
    }
    path = tmp_path / "weights.caffemodel"
    path.write_bytes(caffemodel(blobs))
    found = read_caffemodel(path)
    assert list(found) == list(blobs)
    for name, arrays in blobs.items():
        assert all(np.array_equal(*pair) for pair in zip(found[name], arrays, strict=True))


def test_stock_caffe_reads_all_three_files(pycaffe: ModuleType) -> None:
    theirs = import_module("caffe.proto.caffe_pb2")
    # Strict: a field that Caffe 1.0 does not know is an error.
    net = text_format.Parse(topologies.deploy("alexnet", bits=20), theirs.NetParameter())
    trained = text_format.Parse(
        topologies.train_val("alexnet", bits=20, classes=5), theirs.NetParameter()
    )
    recipe = text_format.Parse(topologies.solver("alexnet", bits=20), theirs.SolverParameter())
    assert net.layer[-1].type == "Sigmoid"
    assert trained.layer[0].data_param.backend == theirs.DataParameter.LMDB
    assert recipe.max_iter == 50_000
