"""An ONNX graph while it is rewritten: nodes, constants, and who uses what."""

from collections import Counter
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper


class Graph:
    """The nodes and constants of a model, which itself stays as it is.

    Attributes:
        nodes: In an order in which they can run.
        outputs: Names that the model gives, which no rewriting may change.
        inputs: Names that the model is given.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        # Constants are shared with the model until the end: they may fill half the memory.
        self._model = onnx.ModelProto()
        _copy(model, self._model, leave={"graph"})
        _copy(model.graph, self._model.graph, leave={"node", "initializer", "value_info"})
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        # Computed in double, and rounded once, when everything is folded.
        self._values: dict[str, NDArray[np.float64]] = {}
        self.nodes: list[onnx.NodeProto] = []
        for each in model.graph.node:
            node = onnx.NodeProto()
            node.CopyFrom(each)
            if not self._take_constant(node):
                self.nodes.append(node)
        self.outputs = {output.name for output in model.graph.output}
        self.inputs = {value.name for value in model.graph.input} - self._tensors.keys()

    def _take_constant(self, node: onnx.NodeProto) -> bool:
        if node.op_type != "Constant" or [item.name for item in node.attribute] != ["value"]:
            return False
        tensor = onnx.TensorProto()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        self._tensors[tensor.name] = tensor
        return True

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators that the nodes are written in."""
        versions = (
            each.version for each in self._model.opset_import if each.domain in ("", "ai.onnx")
        )
        return max(versions, default=1)

    @property
    def has_subgraphs(self) -> bool:
        """Whether a node holds a graph of its own, which may use any name of this one."""
        kinds = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
        return any(item.type in kinds for node in self.nodes for item in node.attribute)

    def uses(self) -> Counter[str]:
        """Count how often each name is read; the model's outputs are read once more."""
        counts = Counter(name for node in self.nodes for name in node.input)
        counts.update(self.outputs)
        return counts

    def is_constant(self, name: str) -> bool:
        """Tell whether a name stands for a constant."""
        return name in self._values or name in self._tensors

    def value(self, name: str) -> NDArray[Any] | None:
        """Return a constant, real numbers as float64; None where the name is not one."""
        if name in self._values:
            return self._values[name]
        if name not in self._tensors:
            return None
        value: NDArray[Any] = numpy_helper.to_array(self._tensors[name])
        return value.astype(np.float64) if np.issubdtype(value.dtype, np.floating) else value

    def dtype(self, name: str) -> int:
        """Return the ONNX type of a constant."""
        return int(self._tensors[name].data_type)

    def add_constant(self, name: str, value: NDArray[Any], dtype: int) -> str:
        """Add a constant, under another name where this one is taken.

        Args:
            name: The name to take if it is free.
            value: Any shape; real numbers may be float64.
            dtype: ONNX type that it gets in the model.
        """
        taken = {output for node in self.nodes for output in node.output}
        taken |= self._tensors.keys() | self.inputs
        while name in taken:
            name += "_"
        self._tensors[name] = onnx.TensorProto(name=name, data_type=dtype)
        self._values[name] = value
        return name

    def model(self) -> onnx.ModelProto:
        """Write the model: only what its outputs need, constants in the order of their use."""
        graph = self._model.graph
        nodes = self._needed()
        graph.node.extend(nodes)
        constants = dict.fromkeys(name for node in nodes for name in node.input)
        constants |= dict.fromkeys(output.name for output in graph.output)
        graph.initializer.extend(self._tensor(n) for n in constants if self.is_constant(n))
        inputs = [value for value in graph.input if value.name in self.inputs]
        del graph.input[:]
        graph.input.extend(inputs)
        return self._model

    def _needed(self) -> list[onnx.NodeProto]:
        wanted, kept = set(self.outputs), []
        for node in reversed(self.nodes):
            if wanted.intersection(node.output):
                wanted.update(node.input)
                kept.append(node)
        return kept[::-1]

    def _tensor(self, name: str) -> onnx.TensorProto:
        tensor: onnx.TensorProto = self._tensors[name]
        if name in self._values:
            dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
            value = np.ascontiguousarray(self._values[name].astype(dtype))
            tensor = numpy_helper.from_array(value, name)
        return tensor


def _copy(source: Any, target: Any, *, leave: set[str]) -> None:
    for field, value in source.ListFields():
        if field.name in leave:
            continue
        if not field.has_presence:  # it repeats
            getattr(target, field.name).MergeFrom(value)
        elif field.message_type:
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return an attribute's value, or what ONNX takes where it is left out."""
    found = next((item for item in node.attribute if item.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Set an attribute, in place of the one of that name."""
    kept = [item for item in node.attribute if item.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])
