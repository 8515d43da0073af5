"""Rewrites a network so that it gives the same numbers from fewer nodes."""

import numpy as np
import onnx

from models.graphs.affine import ABSORBERS, AFFINE, absorb, absorber, affine_of
from models.graphs.clip import rewrite_clips
from models.graphs.graph import Graph, attribute, set_attribute

_NORMALISATION = frozenset({"BatchNormalization"})


def optimise(model: onnx.ModelProto, *, fold_normalisation: bool = True) -> onnx.ModelProto:
    """Fold what is constant, and drop what does nothing.

    BatchNormalization and arithmetic with a constant for each channel go into the Conv or Gemm
    before them, zero padding goes into the Conv behind it, ReLU6 in the arithmetic that Caffe
    knows becomes a Clip, and Identity, Dropout, unused nodes and unused constants go. A network
    with control flow is only copied.

    Args:
        model: A network for inference, with pictures as (N, C, H, W); it stays as it is.
        fold_normalisation: Whether convolutions take over what follows them. Without, a
            BatchNormalization still takes over a scale and a shift behind it, which leaves a
            network that can be trained further.

    Returns:
        A network with the same inputs and outputs, whose numbers differ by rounding only. The
        same model gives the same bytes.
    """
    graph = Graph(model)
    if graph.has_subgraphs:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return copy
    _drop_copies(graph)
    _merge_padding(graph)
    rewrite_clips(graph)
    _fold_affine(graph, ABSORBERS if fold_normalisation else _NORMALISATION)
    return graph.model()


def _drop_copies(graph: Graph) -> None:
    """Drop nodes that hand their input on; the outputs keep their names."""
    renamed: dict[str, str] = {}
    kept = []
    for node in graph.nodes:
        _rename(node, renamed)
        if not _is_copy(node):
            kept.append(node)
            continue
        source, target = node.input[0], node.output[0]
        if target not in graph.outputs:
            renamed[target] = source
        elif source in graph.outputs | graph.inputs or graph.is_constant(source):
            kept.append(node)
        else:
            _give(kept, source, target)
            renamed[source] = target
    graph.nodes = kept


def _is_copy(node: onnx.NodeProto) -> bool:
    if node.op_type == "Identity":
        return True
    # Dropout's mask, and its random form, are for training.
    return node.op_type == "Dropout" and len(node.output) == 1 and len(node.input) < 3


def _rename(node: onnx.NodeProto, names: dict[str, str]) -> None:
    for index, name in enumerate(node.input):
        while name in names:
            name = names[name]
        node.input[index] = name


def _give(nodes: list[onnx.NodeProto], source: str, target: str) -> None:
    """Let a name be that of an output; whoever read it before reads that."""
    for node in nodes:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == source:
                    names[index] = target


def _merge_padding(graph: Graph) -> None:
    uses, makers = graph.uses(), {node.output[0]: node for node in graph.nodes}
    for node in graph.nodes:
        pad = makers.get(node.input[0]) if node.op_type == "Conv" else None
        if pad is None or pad.op_type != "Pad" or uses[pad.output[0]] > 1:
            continue
        widths = _zero_padding(graph, pad)
        if widths is None or attribute(node, "auto_pad", b"NOTSET") != b"NOTSET":
            continue
        own = attribute(node, "pads", [0] * len(widths))
        set_attribute(node, "pads", [a + b for a, b in zip(own, widths, strict=True)])
        node.input[0] = pad.input[0]


def _zero_padding(graph: Graph, pad: onnx.NodeProto) -> list[int] | None:
    """Return the widths around the picture, as Conv has them; None where it is another kind."""
    inputs = [*pad.input, "", "", ""]
    values = [graph.value(name) if name else None for name in inputs[1:4]]
    widths, fill = values[0], values[1]
    if widths is None or inputs[3] or attribute(pad, "mode", b"constant") != b"constant":
        return None
    if inputs[2] and (fill is None or np.any(fill)):
        return None
    half = len(widths) // 2
    around = np.delete(widths, [0, 1, half, half + 1])
    if half < 3 or widths.sum() != around.sum() or (widths < 0).any():
        return None
    return [int(width) for width in around]


def _fold_affine(graph: Graph, absorbers: frozenset[str]) -> None:
    uses = graph.uses()
    makers: dict[str, onnx.NodeProto] = {}
    kept = []
    for node in graph.nodes:
        names = [] if node.op_type not in AFFINE else [n for n in node.input if uses[n] == 1]
        into = [makers[name] for name in names if name in makers]
        if not any(_fold(graph, node, maker) for maker in into):
            kept.append(node)
            into = [node]
        for maker in into:
            if maker.op_type in absorbers:
                makers[maker.output[0]] = maker
    graph.nodes = kept


def _fold(graph: Graph, node: onnx.NodeProto, maker: onnx.NodeProto) -> bool:
    """Fold a node into the one that makes its input, which then gives the node's output."""
    form = absorber(graph, maker)
    if form is None:
        return False
    affine = affine_of(graph, node, axes=form[0], channels=form[1])
    if affine is None or affine.source != maker.output[0]:
        return False
    maker.output[0] = node.output[0]
    absorb(graph, maker, affine)
    return True
