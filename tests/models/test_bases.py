import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from models.bundle import Bundle
from models.caffe import topologies
from models.caffe.from_onnx import from_onnx
from models.engines import open_engine
from models.errors import BundleError, OptionError, TrainingError, WeightsError
from models.training.bases import Base, open_base
from models.training.caffe_bases import CaffeFiles, open_caffemodel, open_topology
from tests.models.conftest import SIDE_PX, MakeBundle


def never(name: str) -> Bundle:
    raise BundleError(f"there is no bundle {name!r}")


def features(base: Base, folder: Path) -> np.ndarray:
    bundle = base.with_bundle(folder)
    side = bundle.preprocess.input_px
    pixels = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), np.uint8)
    with open_engine(bundle, threads=1) as engine:
        return engine.embed(pixels).features


def test_a_pretrained_network_takes_any_side_and_keeps_its_batch_norm(tmp_path: Path) -> None:
    base = open_base("lite0-imagenet", input_px=32, find=never)
    assert (base.preprocess.input_px, base.preprocess.resize_px, base.dims) == (32, 32, 1280)
    assert any(node.op_type == "BatchNormalization" for node in base.graph.graph.node)
    assert base.learned
    assert features(base, tmp_path / "base").shape == (3, 1280)


def test_a_pretrained_network_keeps_the_side_it_was_trained_with() -> None:
    base = open_base("lite0-imagenet", input_px=None, find=never)
    assert (base.preprocess.input_px, base.preprocess.resize_px) == (224, 256)


def test_a_bundle_gives_its_features_without_its_code(bundle: Bundle, tmp_path: Path) -> None:
    base = open_base(str(bundle.path), input_px=None, find=lambda name: bundle)
    assert [output.name for output in base.graph.graph.output] == ["feature"]
    assert base.with_bundle(tmp_path / "unused") == bundle
    assert not (tmp_path / "unused").exists()
    without = dataclasses.replace(base, bundle=None)
    assert np.array_equal(features(base, tmp_path), features(without, tmp_path / "base"))


def test_a_network_of_means_over_the_picture_takes_any_side(
    bundle: Bundle, tmp_path: Path
) -> None:
    base = open_base("tiny", input_px=16, find=lambda name: bundle)
    assert (base.preprocess.input_px, base.preprocess.resize_px, base.dims) == (16, 16, 6)
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (2, 8, 8, 3), np.uint8)
    # A picture repeated has, but for the seams, the means that it has alone.
    seamless = np.tile(small[:, :1, :1], (1, 16, 16, 1))
    with open_engine(base.with_bundle(tmp_path / "base"), threads=1) as engine:
        large = engine.embed(seamless).features
    with open_engine(bundle, threads=1) as engine:
        np.testing.assert_allclose(large, engine.embed(seamless[:, :8, :8]).features, rtol=1e-4)


def test_a_network_that_counts_pixels_has_the_side_it_has(make_bundle: MakeBundle) -> None:
    nodes = [
        helper.make_node("Flatten", ["input"], ["feature"]),
        helper.make_node("Sigmoid", ["feature"], ["latent_values"]),
    ]
    dims = 3 * SIDE_PX**2
    shapes = {name: ["N", dims] for name in ("feature", "latent_values")}
    graph = helper.make_graph(
        nodes,
        "flat",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, SIDE_PX, SIDE_PX])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    network = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    flat = make_bundle(network, dims=dims, bits=dims)
    with pytest.raises(OptionError, match=r"takes 8 pixels; leave --input-px out, or .*lite0-im"):
        open_base("tiny", input_px=16, find=lambda name: flat)


def test_an_unknown_base_is_told_what_there_is(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"no bundle 'lite9'; other bases are lite0-imagenet"):
        open_base("lite9", input_px=None, find=never)


def test_a_caffemodel_gives_the_features_that_caffe_names(bundle: Bundle, tmp_path: Path) -> None:
    form = from_onnx(onnx.load(bundle.network))
    weights, prototxt = tmp_path / "w.caffemodel", tmp_path / "p.prototxt"
    weights.write_bytes(form.weights)
    prototxt.write_bytes(form.prototxt)
    files = CaffeFiles(prototxt, form.blobs["feature"], mean="1,2,3")
    base = open_caffemodel(weights, files)
    assert (base.preprocess.mean, base.preprocess.channel_order) == ((1.0, 2.0, 3.0), "BGR")
    assert (base.metric, base.dims, base.learned) == ("l2", 6, True)
    assert features(base, tmp_path / "base").shape == (3, 6)
    with pytest.raises(TrainingError, match="give its --prototxt too"):
        open_caffemodel(weights, dataclasses.replace(files, prototxt=None))
    with pytest.raises(OptionError, match="fc7"):
        open_caffemodel(weights, dataclasses.replace(files, feature="fc7"))
    weights.write_bytes(form.weights[:-100])
    with pytest.raises(WeightsError):
        open_caffemodel(weights, files)


def test_a_topology_begins_with_random_weights_that_follow_the_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As CaffeNet, but for the size of its largest layers.
    monkeypatch.setattr(topologies, "_FC_VALUES", 24)
    base, same, other = (open_topology("caffenet", seed=seed) for seed in (1, 1, 2))
    assert (base.dims, base.preprocess.input_px, base.preprocess.resize_px) == (24, 227, 256)
    assert not base.learned
    assert base.graph == same.graph != other.graph
