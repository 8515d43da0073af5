"""The network for small pictures computes, is folded, converts to Caffe, and learns."""

from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from models.caffe.from_onnx import from_onnx
from models.graphs.optimise import optimise
from models.small import INPUT_PX, build_small
from tests.models.caffe_files import run
from tests.models.plain_caffe import run_plainly

_DIMS = 512


@pytest.fixture(scope="module")
def learned() -> onnx.ModelProto:
    """The network with normalisations as after learning: none of them leaves values alone."""
    model = build_small(seed=1)
    rng = np.random.default_rng(2)
    for constant in model.graph.initializer:
        size = tuple(constant.dims)
        if len(size) == 1:
            spread = bool(constant.name.endswith((".scale", ".variance")))
            value = rng.uniform(0.5, 1.5, size) if spread else rng.normal(0, 0.2, size)
            constant.CopyFrom(numpy_helper.from_array(value.astype(np.float32), constant.name))
    return model


def images(count: int, seed: int = 3) -> NDArray[np.float32]:
    shape = (count, 3, INPUT_PX, INPUT_PX)
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def test_onnx_runtime_runs_it_and_features_vary() -> None:
    model = build_small(seed=1)
    onnx.checker.check_model(model, full_check=True)
    (feature,) = run(model, images(5))
    assert feature.shape == (5, _DIMS)
    # What begins dead or far too large would not learn.
    assert (feature.std(axis=0) > 0).mean() > 0.9
    assert 0.01 < feature.mean() < 100


def test_one_seed_gives_the_same_bytes_and_another_gives_others() -> None:
    first, same, other = (build_small(seed=seed).SerializeToString() for seed in (1, 1, 2))
    assert first == same != other


def test_every_normalisation_is_folded(learned: onnx.ModelProto) -> None:
    folded = optimise(learned)
    kinds = [node.op_type for node in folded.graph.node]
    assert set(kinds) == {"Conv", "MaxPool", "Relu", "Add", "GlobalAveragePool", "Flatten"}
    assert kinds.count("Conv") == 7
    expected, found = run(learned, images(3))[0], run(folded, images(3))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * expected.max())


def test_the_caffe_form_gives_the_same_features(learned: onnx.ModelProto, tmp_path: Path) -> None:
    (expected,) = run(learned, images(2))
    form = from_onnx(optimise(learned))
    found = run_plainly(form, images(2), tmp_path)[form.blobs["feature"]]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * expected.max())


def test_real_caffe_gives_the_same_features(
    learned: onnx.ModelProto, pycaffe: ModuleType, tmp_path: Path
) -> None:
    (expected,) = run(learned, images(2))
    form = from_onnx(optimise(learned))
    text, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    text.write_bytes(form.prototxt)
    weights.write_bytes(form.weights)
    pycaffe.set_mode_cpu()
    net = pycaffe.Net(str(text), pycaffe.TEST, weights=str(weights))
    net.blobs[form.blobs["input"]].reshape(2, 3, INPUT_PX, INPUT_PX)
    net.blobs[form.blobs["input"]].data[...] = images(2)
    net.forward()
    found = net.blobs[form.blobs["feature"]].data
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * expected.max())


def test_every_weight_learns() -> None:
    torch = pytest.importorskip("torch")
    finetuning = pytest.importorskip("models.training.finetune")
    torch.manual_seed(0)
    network = finetuning._Network(build_small(seed=1), _DIMS, 8, 2).train()
    recipe = finetuning.FinetuneRecipe(optimiser="sgd", rate=0.05, weight_decay=1e-3)
    optimiser = finetuning._optimiser(network, recipe)
    before = {name: each.detach().clone() for name, each in network.named_parameters()}
    labels = torch.arange(8) % 2
    for step in range(2):
        by_code, by_feature = network(torch.from_numpy(images(8, seed=step)))
        loss = sum(
            torch.nn.functional.cross_entropy(each, labels) for each in (by_code, by_feature)
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        # Weight decay moves weights that nothing is learned by, too.
        assert not [name for name, each in network.named_parameters() if not each.grad.any()]
    changed = [name for name, each in network.named_parameters() if not each.equal(before[name])]
    assert changed == list(before)
    # A convolution, and a normalisation of two, seven times; three layers on top.
    assert len(before) == 7 * 3 + 3 * 2
