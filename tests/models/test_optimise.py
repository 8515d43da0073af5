from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.graphs.optimise import optimise
from tests.models.caffe_files import run

Array = NDArray[Any]


class Net:
    """A graph under construction: each method adds a node behind the last."""

    def __init__(self, seed: int, channels: int = 3) -> None:
        self.rng = np.random.default_rng(seed)
        self.channels, self.last, self.flat = channels, "x", False
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: Any) -> str:
        array = np.asarray(value)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        self.constants.append(numpy_helper.from_array(array, f"c{len(self.constants)}"))
        return self.constants[-1].name

    def normal(self, *shape: int) -> Array:
        return self.rng.normal(size=shape)

    def add(self, kind: str, *inputs: str, **attributes: Any) -> Net:
        output = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [*inputs], [output], **attributes))
        self.last = output
        return self

    def conv(self, *, group: bool = False, bias: bool = True, pads: int = 1) -> Net:
        out = self.channels if group else int(self.rng.integers(1, 5))
        weight = self.normal(out, 1 if group else self.channels, 3, 3)
        inputs = [self.last, self.constant(weight)]
        inputs += [self.constant(self.normal(out))] if bias else []
        groups = self.channels if group else 1
        self.channels = out
        return self.add("Conv", *inputs, group=groups, pads=[pads] * 4, kernel_shape=[3, 3])

    def gemm(self, *, transposed: bool = True, bias: bool = True) -> Net:
        out = int(self.rng.integers(1, 5))
        shape = (out, self.channels) if transposed else (self.channels, out)
        inputs = [self.last, self.constant(self.normal(*shape))]
        inputs += [self.constant(self.normal(out))] if bias else []
        self.channels = out
        return self.add("Gemm", *inputs, transB=int(transposed), alpha=0.5, beta=2.0)

    def norm(self) -> Net:
        count = self.channels
        values = [self.normal(count), self.normal(count), self.normal(count)]
        values.append(self.rng.uniform(0.1, 2, count))
        return self.add("BatchNormalization", self.last, *map(self.constant, values), epsilon=1e-3)

    def arithmetic(self, kind: str, shape: str, *, constant_first: bool = False) -> Net:
        tail = () if self.flat else (1, 1)
        sizes = {
            "scalar": (),
            "one": (1,),
            "channel": (self.channels, *tail),
            "batch": (1, self.channels, *tail),
            # Another meaning than the channel's: the last axis, or every position.
            "width": (1,) if self.flat else (6,),
        }[shape]
        value = self.constant(self.rng.uniform(0.5, 2, sizes) * self.rng.choice([-1, 1]))
        inputs = [value, self.last] if constant_first else [self.last, value]
        return self.add(kind, *inputs)

    def pad(self, widths: list[int], fill: float = 0.0) -> Net:
        return self.add("Pad", self.last, self.constant(np.array(widths)), self.constant(fill))

    def model(self, *more: str) -> onnx.ModelProto:
        axes = [None] * (2 if self.flat else 4)
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, axes)],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, axes)
                for name in [self.last, *more]
            ],
            self.constants,
        )
        opsets = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def same(model: onnx.ModelProto, x: Array | None = None) -> onnx.ModelProto:
    """Check that the optimised network gives the same numbers, and return it."""
    if x is None:
        x = np.random.default_rng(0).normal(0, 3, (2, 3, 6, 6)).astype(np.float32)
    before = model.SerializeToString()
    found = optimise(model)
    assert model.SerializeToString() == before
    onnx.checker.check_model(found, full_check=True)
    for expected, value in zip(run(model, x), run(found, x), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-3)
    return found


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


_SHAPES = st.sampled_from(["scalar", "one", "channel", "batch", "width"])
_STEPS = st.one_of(
    st.tuples(st.just("conv"), st.booleans(), st.booleans()),
    st.tuples(st.just("norm")),
    st.tuples(st.just("relu")),
    st.tuples(st.just("identity")),
    st.tuples(st.just("pad"), st.sampled_from([0.0, 1.5])),
    st.tuples(st.sampled_from(["Add", "Sub", "Mul", "Div"]), _SHAPES, st.booleans()),
)


def _build(steps: list[Any], seed: int) -> Net:
    net = Net(seed)
    for kind, *rest in steps:
        if kind == "conv":
            net.conv(group=rest[0], bias=rest[1])
        elif kind == "norm":
            net.norm()
        elif kind in ("relu", "identity"):
            net.add(kind.capitalize(), net.last)
        elif kind == "pad":
            # Wide again by what the next convolution takes off, so that a width stays a width.
            net.pad([0, 0, 1, 0, 0, 0, 0, 1], rest[0]).conv(pads=1)
            net.add("Slice", net.last, *map(net.constant, ([0, 0], [6, 6], [2, 3])))
        else:
            net.arithmetic(kind, rest[0], constant_first=rest[1])
    return net


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_STEPS, min_size=1, max_size=6), st.integers(0, 2**16), st.data())
def test_an_optimised_network_gives_the_same_numbers(
    steps: list[Any], seed: int, data: st.DataObject
) -> None:
    net = _build(steps, seed)
    inner = [node.output[0] for node in net.nodes[:-1]]
    # A second output in the middle, which no folding may change.
    more = data.draw(st.lists(st.sampled_from(inner), max_size=1)) if inner else []
    same(net.model(*more))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["Add", "Mul", "Sub", "Div"]), _SHAPES), max_size=3),
    st.booleans(),
    st.booleans(),
    st.integers(0, 99),
)
def test_arithmetic_behind_a_matrix_product_is_folded(
    steps: list[tuple[str, str]], transposed: bool, bias: bool, seed: int
) -> None:
    net = Net(seed, channels=5)
    net.flat = True
    net.gemm(transposed=transposed, bias=bias)
    for kind, shape in steps:
        net.arithmetic(kind, shape)
    x = np.random.default_rng(seed).normal(size=(2, 5)).astype(np.float32)
    assert kinds(same(net.model(), x)) == ["Gemm"]


def test_normalisation_and_scaling_go_into_the_convolution_before_them() -> None:
    net = Net(1).conv(bias=False).norm().arithmetic("Mul", "channel").arithmetic("Add", "batch")
    assert kinds(same(net.model())) == ["Conv"]


def test_scaling_goes_into_a_normalisation_that_no_convolution_precedes() -> None:
    net = Net(1).norm().arithmetic("Mul", "channel").arithmetic("Add", "channel").add("Relu", "n2")
    assert kinds(same(net.model())) == ["BatchNormalization", "Relu"]


def test_a_convolution_that_others_read_too_stays_as_it_is() -> None:
    net = Net(1).conv().norm()
    assert kinds(same(net.model("n0"))) == ["Conv", "BatchNormalization"]


def test_weights_that_two_convolutions_share_are_scaled_for_one_only() -> None:
    net = Net(1)
    weight = net.constant(net.normal(3, 3, 1, 1))
    net.add("Conv", "x", weight).add("Conv", "n0", weight).norm()
    found = same(net.model())
    assert kinds(found) == ["Conv", "Conv"]
    assert weight in {tensor.name for tensor in found.graph.initializer}


def test_zero_padding_goes_into_the_convolution_behind_it() -> None:
    found = same(Net(1).pad([0, 0, 0, 1, 0, 0, 2, 3]).conv(pads=1).model())
    assert kinds(found) == ["Conv"]
    pads = next(item for item in found.graph.node[0].attribute if item.name == "pads")
    assert list(pads.ints) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("widths", "fill"),
    [([0, 0, 1, 1, 0, 0, 1, 1], 1.0), ([0, 1, 1, 1, 0, 1, 1, 1], 0.0), ([0, 0, 0, -1] * 2, 0.0)],
)
def test_padding_that_a_convolution_cannot_do_stays(widths: list[int], fill: float) -> None:
    net = Net(1).pad(widths, fill)
    net.channels += 2 * widths[1]
    assert kinds(same(net.conv().model())) == ["Pad", "Conv"]


def test_copies_go_and_the_outputs_keep_their_names() -> None:
    net = Net(1).add("Identity", "x").conv().add("Dropout", "n1").add("Identity", "n2")
    found = same(net.model("n2"))
    assert [output.name for output in found.graph.output] == ["n3", "n2"]
    assert kinds(found) == ["Conv", "Identity"]


def test_an_input_that_is_an_output_stays_reachable() -> None:
    assert kinds(same(Net(1).add("Identity", "x").model())) == ["Identity"]


def test_what_no_output_needs_is_dropped() -> None:
    net = Net(1).conv()
    net.add("Relu", "n0")
    net.last = "n0"
    net.constant([1.0, 2.0])
    found = same(net.model())
    assert kinds(found) == ["Conv"]
    assert len(found.graph.initializer) == 2


@pytest.mark.parametrize("form", ["nested", "difference", "sum", "again", "subtraction"])
def test_relu6_in_the_arithmetic_of_caffe_becomes_a_clip(form: str) -> None:
    net = Net(1)
    six, minus = net.constant(6.0), net.constant(-1.0)
    net.add("Relu", "x")
    if form == "nested":
        for _ in range(2):
            net.add("Mul", net.last, minus).add("Add", net.last, six).add("Relu", net.last)
        net.nodes.pop()
        net.last = net.nodes[-1].output[0]
    elif form == "subtraction":
        net.add("Sub", six, "n0").add("Relu", "n1").add("Sub", six, "n2")
    else:
        below = "n0" if form == "again" else "x"
        net.add("Add", below, net.constant(-6.0)).add("Relu", "n1")
        if form == "sum":
            net.add("Mul", "n2", minus).add("Add", "n0", "n3")
        else:
            net.add("Sub", "n0", "n2")
    assert kinds(same(net.model())) == ["Clip"]


@pytest.mark.parametrize(("inner", "outer"), [(6.0, 5.0), (-6.0, -6.0)])
def test_arithmetic_that_is_no_relu6_stays(inner: float, outer: float) -> None:
    net = Net(1)
    net.add("Relu", "x").add("Sub", net.constant(inner), "n0")
    net.add("Relu", "n1").add("Sub", net.constant(outer), "n2")
    assert "Clip" not in kinds(same(net.model()))


def test_the_same_network_gives_the_same_bytes() -> None:
    def build() -> bytes:
        net = Net(7).conv().norm().add("Relu", "n1").conv(group=True).norm()
        return bytes(optimise(net.model()).SerializeToString())

    assert build() == build()


def test_an_optimised_network_is_not_optimised_further() -> None:
    found = optimise(Net(7).pad([0, 0, 1, 1] * 2).conv().norm().add("Relu", "n2").model())
    assert optimise(found) == found


def test_a_network_with_control_flow_is_only_copied() -> None:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["n0"], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [None] * 4)],
    )
    net = Net(1).conv()
    net.add("If", net.constant(np.array(True)), then_branch=inner, else_branch=inner)
    assert kinds(same(net.model())) == ["Conv", "If"]
