import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from models.bundle import Bundle
from models.errors import NetworkError
from models.graphs.latent import LATENT, features_of, with_latent


def run(model: onnx.ModelProto, planes: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"input": planes}), strict=True))


@pytest.fixture
def network(bundle: Bundle) -> onnx.ModelProto:
    return onnx.load(bundle.network)


@pytest.fixture
def planes(bundle: Bundle) -> NDArray[np.float32]:
    shape = (5, 3, bundle.preprocess.input_px, bundle.preprocess.input_px)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_a_network_cut_behind_its_features_gives_the_same_features(
    network: onnx.ModelProto, planes: NDArray[np.float32]
) -> None:
    before = network.SerializeToString()
    cut = features_of(network, "feature")
    assert network.SerializeToString() == before
    assert {constant.name for constant in cut.graph.initializer} == {"conv"}
    found = run(cut, planes)
    assert list(found) == ["feature"]
    assert np.array_equal(found["feature"], run(network, planes)["feature"])


def test_a_latent_layer_is_a_sigmoid_of_the_features_image_by_image(
    network: onnx.ModelProto, planes: NDArray[np.float32]
) -> None:
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((9, 6)).astype(np.float32)
    bias = rng.standard_normal(9).astype(np.float32)
    extended = with_latent(features_of(network, "feature"), weight, bias)
    found = run(extended, planes)
    raw = found["feature"] @ weight.T + bias
    assert found[LATENT] == pytest.approx(1 / (1 + np.exp(-raw)), abs=1e-5)
    for row, image in enumerate(planes):
        assert np.array_equal(run(extended, image[None])[LATENT][0], found[LATENT][row])


def test_a_layer_replaces_the_one_that_was_there(network: onnx.ModelProto) -> None:
    layer = np.ones((4, 6), np.float32), np.zeros(4, np.float32)
    once = with_latent(features_of(network, "feature"), *layer)
    again = with_latent(features_of(once, "feature"), *layer)
    assert once.SerializeToString() == again.SerializeToString()


def test_outputs_and_sizes_that_do_not_fit_are_named(network: onnx.ModelProto) -> None:
    with pytest.raises(
        NetworkError, match=r"no output 'fc7'; choose among feature, latent_values"
    ):
        features_of(network, "fc7")
    with pytest.raises(NetworkError, match=r"expected a layer of shape \(4, 6\), got \(4, 5\)"):
        with_latent(
            features_of(network, "feature"), np.ones((4, 5), np.float32), np.zeros(4, np.float32)
        )


def test_features_that_were_never_a_map_get_a_layer_too() -> None:
    nodes = [onnx.helper.make_node("Relu", ["input"], ["feature"])]
    float_ = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "flat",
        [onnx.helper.make_tensor_value_info("input", float_, ["N", 6])],
        [onnx.helper.make_tensor_value_info("feature", float_, ["N", 6])],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    flat = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    weight = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    rows = np.random.default_rng(1).standard_normal((3, 6)).astype(np.float32)
    found = run(with_latent(flat, weight, np.zeros(4, np.float32)), rows)
    assert found[LATENT] == pytest.approx(1 / (1 + np.exp(-found["feature"] @ weight.T)), abs=1e-5)
