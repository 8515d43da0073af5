import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.bundle import Bundle
from models.graphs.cost import multiplications


def test_multiplications_are_weights_times_positions() -> None:
    weights = {"w1": (4, 3, 3, 3), "w2": (4, 2, 1, 1), "w3": (5, 4 * 8 * 8)}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="plain", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "w2"], ["b"], name="in two groups", group=2),
        helper.make_node("Relu", ["b"], ["c"], name="bend"),
        helper.make_node("Flatten", ["c"], ["d"], name="flat"),
        helper.make_node("Gemm", ["d", "w3"], ["y"], name="full", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(np.ones(s, np.float32), name) for name, s in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    assert multiplications(model) == {
        "plain": 4 * 3 * 9 * 64,
        "in two groups": 4 * 2 * 64,
        "full": 5 * 256,
    }


def test_efficientnet_lite0_costs_what_its_authors_say(lite_bundle: Bundle) -> None:
    # 407 million with the class layer (its README in the repository tensorflow/tpu).
    found = sum(multiplications(onnx.load(lite_bundle.network)).values())
    assert 0.9 * 407e6 < found < 407e6
