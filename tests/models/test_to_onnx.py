from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from models.caffe.to_onnx import to_onnx
from models.errors import NetworkError, OptionError, WeightsError
from tests.models.caffe_files import (
    FORMATS,
    TODAY,
    caffemodel,
    converted,
    layer,
    network,
    picture,
    random_blobs,
    run,
    write_files,
)


def test_relu6_in_the_arithmetic_of_caffe_costs_one_node(tmp_path: Path) -> None:
    x = 9 * picture()
    minus = "power_param { scale: -1 shift: 6 }"
    text = network(
        layer("ReLU", name="y"),
        layer("Power", minus, bottoms="y"),
        layer("ReLU", bottoms="y"),
        layer("Power", minus, bottoms="y"),
    )
    unused = layer("InnerProduct", "inner_product_param { num_output: 1 }", name="unused")
    model = converted(tmp_path, text + unused, feature="y")
    assert [node.op_type for node in model.graph.node] == ["Clip", "Flatten"]
    np.testing.assert_array_equal(run(model, x)[0], np.clip(x, 0, 6).reshape(2, -1))


def test_all_formats_become_the_same_network(tmp_path: Path) -> None:
    found = []
    for form, text in FORMATS.items():
        prototxt, weights = write_files(tmp_path, text)
        weights.write_bytes(caffemodel(random_blobs(prototxt), form))
        model = _convert(prototxt, weights)
        found.append(model.SerializeToString())
    assert found[0] == found[1] == found[2]


def _convert(prototxt: Path, weights: Path, **options: Any) -> onnx.ModelProto:
    return to_onnx(prototxt, weights, **{"feature": "fc3", "latent": "encode", **options})


def test_features_are_what_the_blob_holds_in_the_end(tmp_path: Path) -> None:
    x = picture((2, 3, 21, 21))
    model = converted(tmp_path, TODAY, feature="fc3", latent="code")
    onnx.checker.check_model(model, full_check=True)
    feature, latent = run(model, x)
    assert [output.name for output in model.graph.output] == ["fc3", "encode"]
    assert feature.shape == (2, 10)
    assert latent.shape == (2, 12)
    # After ReLU and Dropout, both in place.
    assert feature.min() == 0
    assert ((latent > 0) & (latent < 1)).all()


def test_features_and_code_may_be_named_by_their_layers(tmp_path: Path) -> None:
    by_blob = converted(tmp_path, TODAY, feature="fc3", latent="encode")
    by_layer = converted(tmp_path, TODAY, feature="drop3", latent="code")
    assert by_blob == by_layer


def test_code_and_features_may_be_the_same(tmp_path: Path) -> None:
    model = converted(tmp_path, TODAY, feature="encode", latent="encode")
    feature, latent = run(model, picture((2, 3, 21, 21)))
    np.testing.assert_array_equal(feature, latent)


def test_layers_that_are_not_needed_may_be_of_any_kind(tmp_path: Path) -> None:
    text = TODAY + layer("MyOwn", bottoms="encode")
    blobs = random_blobs(write_files(tmp_path, TODAY)[0])
    assert converted(tmp_path, text, blobs, feature="fc3") == converted(
        tmp_path, TODAY, blobs, feature="fc3"
    )


def test_no_bit_depends_on_the_company_of_an_image(tmp_path: Path) -> None:
    text = network(
        layer("InnerProduct", "inner_product_param { num_output: 600 }", name="fc6"),
        layer("ReLU", name="fc6", bottoms="fc6"),
        layer(
            "InnerProduct", "inner_product_param { num_output: 1800 }", name="fc7", bottoms="fc6"
        ),
        layer("InnerProduct", "inner_product_param { num_output: 48 }", name="c", bottoms="fc7"),
        layer("Sigmoid", name="e", bottoms="c"),
        shape=(1, 3, 32, 32),
    )
    model = converted(tmp_path, text, feature="fc7", latent="e")
    assert "Gemm" in {node.op_type for node in model.graph.node}
    x = picture((9, 3, 32, 32))
    alone = [run(model, x[i : i + 1]) for i in range(9)]
    for size in (2, 3, 4, 7, 9):
        for one, together in zip(zip(*alone, strict=True), run(model, x[:size]), strict=True):
            np.testing.assert_array_equal(np.concatenate(one[:size]), together)


def test_normalisation_is_folded_or_kept_for_training(tmp_path: Path) -> None:
    text = network(
        layer("Convolution", "convolution_param { num_output: 4 kernel_size: 3 }", name="c"),
        layer("BatchNorm", name="c", bottoms="c"),
        layer("Scale", "scale_param { bias_term: true }", name="scale", bottoms="c"),
        layer("ReLU", bottoms="scale"),
    )
    text = text.replace('name: "c" type: "BatchNorm"', 'name: "bn" type: "BatchNorm"')
    folded = converted(tmp_path, text, feature="y")
    kept = converted(tmp_path, text, feature="y", optimise=False)
    assert [n.op_type for n in folded.graph.node] == ["Conv", "Relu", "Flatten"]
    assert [n.op_type for n in kept.graph.node] == [
        "Conv", "BatchNormalization", "Relu", "Flatten",
    ]  # fmt: skip
    np.testing.assert_allclose(run(folded, picture()), run(kept, picture()), atol=1e-5)


def test_a_code_layer_without_sigmoid_is_refused_or_gets_one(tmp_path: Path) -> None:
    bare = TODAY.replace('type: "Sigmoid"', 'type: "TanH"')
    with pytest.raises(NetworkError, match=r"'code' .*no sigmoid.*Sigmoid"):
        converted(tmp_path, bare, feature="fc3", latent="code")
    with pytest.raises(NetworkError, match="no sigmoid"):
        converted(tmp_path, bare, feature="fc3", latent="encode")
    added = converted(tmp_path, bare, feature="fc3", latent="code", add_sigmoid=True)
    there = converted(tmp_path, TODAY, feature="fc3", latent="code")
    x = picture((2, 3, 21, 21))
    np.testing.assert_array_equal(run(added, x)[1], run(there, x)[1])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TODAY.replace('"LRN"', '"MVN"'), r"line \d+: layer 'norm1' \(MVN\) is not supported"),
        (TODAY.replace("num_output: 6 pad", "num_output: 7 pad"), "'conv2'.*groups"),
        (TODAY.replace("kernel_size: 5 stride", "kernel_size: 4294967295 stride"), "too large"),
        (TODAY.replace("pad: 2", "pad: 4294967295"), "values, more than"),
        (TODAY.replace("num_output: 10", "num_output: 4294967295"), "values, more than"),
        (TODAY.replace("num_output: 10", ""), "num_output 0"),
        (TODAY.replace("pool: MAX", "pool: STOCHASTIC"), "'pool1'.*STOCHASTIC"),
        (TODAY.replace("pad: 1 kernel_size: 3", "pad: 3 kernel_size: 3"), "'pool2'.*less than"),
        (TODAY.replace("local_size: 5", "local_size: 4"), "odd"),
        (TODAY.replace("dim: 2 dim: 3", "dim: 2 dim: 1"), "colour"),
        (network(layer("Concat", "concat_param { axis: 0 }", bottoms="x x")), "mixes the images"),
        (network(layer("Reshape", "reshape_param { shape { dim: 1 dim: -1 } }")), "mixes"),
        (network(layer("Reshape", "reshape_param { shape { dim: 0 dim: 5 } }")), "cannot make"),
        (
            network(layer("Flatten", "flaten_param { axis: 2 }")),
            r"'y' \(Flatten\) sets flaten_param",
        ),
        (
            network(layer("Reshape", f"reshape_param {{ shape {{ dim: 0 {'dim: 1 ' * 40} }} }}")),
            "cannot make",
        ),
        (
            network(
                layer(
                    "Reshape", f"reshape_param {{ shape {{ dim: 0 {'dim: 1 ' * 40} dim: -1 }} }}"
                )
            ),
            "42 axes",
        ),
        (network(layer("Eltwise")), "1 bottoms"),
        (network(layer("ReLU", bottoms="x x")), "2 bottoms"),
        (network(layer("BatchNorm", "batch_norm_param { use_global_stats: false }")), "company"),
        (network(layer("Softmax", "softmax_param { axis: 7 }")), "axis 7"),
    ],
)
def test_what_cannot_be_converted_is_named(tmp_path: Path, text: str, says: str) -> None:
    blobs = random_blobs(write_files(tmp_path, TODAY)[0])
    feature = "prob" if "prob" in text else "y"
    with pytest.raises(NetworkError, match=says):
        converted(tmp_path, text, blobs, feature=feature)


def test_an_unknown_name_is_answered_with_near_ones(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"'fc33'.*'fc3'"):
        converted(tmp_path, TODAY, feature="fc33")


def test_weights_that_do_not_fit_are_named_with_both_shapes(tmp_path: Path) -> None:
    blobs = random_blobs(write_files(tmp_path, TODAY)[0])
    wrong = {**blobs, "code": [blobs["code"][0][:, :7], blobs["code"][1]]}
    with pytest.raises(
        WeightsError, match=r"'code'.*\(12, 10\), \(12,\), found \(12, 7\), \(12,\)"
    ):
        converted(tmp_path, TODAY, wrong, feature="fc3", latent="code")
    with pytest.raises(WeightsError, match=r"'code'.*found \(12, 10\);"):
        converted(tmp_path, TODAY, {**blobs, "code": blobs["code"][:1]}, feature="code")
    del wrong["conv2"]
    with pytest.raises(WeightsError, match=r"no weights for layer 'conv2'.*\(6, 4, 5, 5\)"):
        converted(tmp_path, TODAY, wrong, feature="fc3", latent="code")
