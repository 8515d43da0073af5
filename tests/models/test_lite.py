from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.catalogue import WEIGHTS
from models.engine import Engine
from models.errors import WeightsError
from models.images import upright_rgb
from models.lite import DIMS, VARIANTS, Block, Variant, blocks, build_backbone, build_lite

PHOTOS = Path(__file__).parents[2] / "ops" / "demo" / "photos"
Tensors = dict[str, NDArray[np.float32]]


def random_weights(variant: Variant, seed: int = 0) -> Tensors:
    """Weights of the right shapes, small enough that no layer saturates."""
    rng = np.random.default_rng(seed)
    weights: Tensors = {}

    def add(name: str, norm: str, *shape: int) -> None:
        fan_in = shape[1] * shape[2] * shape[3]
        weights[f"{name}.weight"] = rng.normal(0, fan_in**-0.5, shape).astype(np.float32)
        weights[f"{norm}.weight"] = rng.uniform(0.5, 1.5, shape[0]).astype(np.float32)
        weights[f"{norm}.bias"] = rng.normal(0, 0.2, shape[0]).astype(np.float32)
        weights[f"{norm}.running_mean"] = rng.normal(0, 0.2, shape[0]).astype(np.float32)
        weights[f"{norm}.running_var"] = rng.uniform(0.5, 1.5, shape[0]).astype(np.float32)

    add("_conv_stem", "_bn0", 32, 3, 3, 3)
    for index, block in enumerate(blocks(variant)):
        wide = block.channels_in * block.expand
        name = f"_blocks.{index}"
        if block.expand != 1:
            add(f"{name}._expand_conv", f"{name}._bn0", wide, block.channels_in, 1, 1)
        add(f"{name}._depthwise_conv", f"{name}._bn1", wide, 1, block.kernel, block.kernel)
        add(f"{name}._project_conv", f"{name}._bn2", block.channels_out, wide, 1, 1)
    add("_conv_head", "_bn1", DIMS, blocks(variant)[-1].channels_out, 1, 1)
    return weights


def convolve(
    x: NDArray[np.float64], weight: NDArray[np.float64], stride: int
) -> NDArray[np.float64]:
    """A plain convolution with "same" padding; a weight of one input channel is depthwise."""
    kernel, side = weight.shape[2], x.shape[1]
    out = -(-side // stride)
    total = max((out - 1) * stride + kernel - side, 0)
    pads = (total // 2, total - total // 2)
    padded = np.pad(x, ((0, 0), pads, pads))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(1, 2))
    windows = windows[:, ::stride, ::stride]
    if weight.shape[1] == 1 and x.shape[0] == weight.shape[0]:
        return np.einsum("chwij,cij->chw", windows, weight[:, 0])
    return np.einsum("chwij,ocij->ohw", windows, weight, optimize=True)


def reference(
    variant: Variant, weights: Tensors, image: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The network's definition, layer by layer, BatchNorm not folded."""

    def layer(
        x: NDArray[np.float64], name: str, norm: str, stride: int = 1
    ) -> NDArray[np.float64]:
        gamma, beta, mean, variance = (
            weights[f"{norm}.{part}"].astype(np.float64)[:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        y = convolve(x, weights[f"{name}.weight"].astype(np.float64), stride)
        return (y - mean) / np.sqrt(variance + 1e-3) * gamma + beta

    x = layer(image, "_conv_stem", "_bn0", 2).clip(0, 6)
    for index, block in enumerate(blocks(variant)):
        name, before = f"_blocks.{index}", x
        if block.expand != 1:
            x = layer(x, f"{name}._expand_conv", f"{name}._bn0").clip(0, 6)
        x = layer(x, f"{name}._depthwise_conv", f"{name}._bn1", block.stride).clip(0, 6)
        x = layer(x, f"{name}._project_conv", f"{name}._bn2")
        if x.shape == before.shape:
            x = x + before
    return layer(x, "_conv_head", "_bn1").clip(0, 6).mean((1, 2))


def run(model: onnx.ModelProto, images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return list(session.run(["feature", "latent"], {"input": images}))


@pytest.mark.parametrize(("base", "side_px"), [("lite0", 64), ("lite0", 45), ("lite2", 33)])
def test_the_graph_computes_what_the_definition_says(base: str, side_px: int) -> None:
    variant = Variant(VARIANTS[base].width, VARIANTS[base].depth, side_px)
    rng = np.random.default_rng(1)
    weights, image = random_weights(variant), rng.normal(0, 1, (1, 3, side_px, side_px))
    latent_weight, latent_bias = rng.normal(0, 0.1, (5, DIMS)), rng.normal(0, 1, 5)
    model = build_lite(variant, weights, latent_weight, latent_bias)
    onnx.checker.check_model(model, full_check=True)
    feature, latent = run(model, image.astype(np.float32))
    expected = reference(variant, weights, image[0])
    assert expected.std() > 0.05
    assert np.allclose(feature[0], expected, atol=1e-4)
    raw = latent_weight @ expected + latent_bias
    assert np.allclose(latent[0], 1 / (1 + np.exp(-raw)), atol=1e-4)


def test_lite0_has_the_published_blocks() -> None:
    found = blocks(VARIANTS["lite0"])
    assert len(found) == 16
    assert found[0] == Block(3, 1, 1, 32, 16)
    assert found[5] == Block(3, 2, 6, 40, 80)
    assert found[-1] == Block(3, 1, 6, 192, 320)


def test_lite2_is_wider_and_deeper_but_for_its_ends() -> None:
    found = blocks(VARIANTS["lite2"])
    # Widths times 1.1 to a multiple of 8; repeats times 1.2, rounded up, between the ends.
    assert [block.channels_out for block in found if block.stride == 2] == [24, 48, 88, 208]
    assert (len(found), found[0].channels_out, found[-1].channels_out) == (21, 16, 352)


def test_the_same_weights_give_the_same_bytes() -> None:
    variant = Variant(1.0, 1.0, 32)
    first, second = (
        build_lite(variant, random_weights(variant), np.ones((8, DIMS)), np.zeros(8))
        for _ in range(2)
    )
    assert first.SerializeToString() == second.SerializeToString()


def test_a_missing_or_misshapen_tensor_is_named() -> None:
    variant = VARIANTS["lite0"]
    latent_weight, latent_bias = np.ones((8, DIMS)), np.zeros(8)
    weights = random_weights(variant)
    with pytest.raises(WeightsError, match=r"latent weight of shape \(9, 1280\)"):
        build_lite(variant, weights, latent_weight, np.zeros(9))
    weights["_conv_head.weight"] = weights["_conv_head.weight"][:, 1:]
    with pytest.raises(WeightsError, match=r"_conv_head\.weight to have shape \(1280, 320"):
        build_lite(variant, weights, latent_weight, latent_bias)
    del weights["_blocks.4._bn1.running_var"]
    with pytest.raises(WeightsError, match=r"_blocks\.4\._bn1\.running_var"):
        build_lite(variant, weights, latent_weight, latent_bias)


def test_the_real_network_gives_the_same_numbers_in_any_batch(lite_engine: Engine) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (5, 224, 224, 3), np.uint8)
    batch = lite_engine.embed(pixels)
    for row, picture in enumerate(pixels):
        single = lite_engine.embed(picture[None])
        assert np.array_equal(single.features[0], batch.features[row])
        assert np.array_equal(single.latent[0], batch.latent[row])


def test_the_real_network_knows_what_is_in_a_photo(lite_engine: Engine) -> None:
    classes = {
        "fish/goldfish": 1,
        "birds/macaw": 88,
        "birds/toucan": 96,
        "mammals/koala": 105,
        "mammals/bison": 347,
        "mammals/red-panda": 387,
        "fish/clownfish": 393,
        "vehicles/hot-air-balloon": 417,
        "fruit/lemon": 951,
        "fruit/pineapple": 953,
    }
    weights = WEIGHTS["lite0"].read()
    pixels = []
    for name in classes:
        with Image.open(PHOTOS / f"{name}.jpg") as image:
            pixels.append(lite_engine.bundle.preprocess.pixels(upright_rgb(image)))
    features = lite_engine.embed(np.stack(pixels)).features
    best = (features @ weights["_fc.weight"].T + weights["_fc.bias"]).argmax(1)
    # A network padded or normalised wrongly still gets some right.
    assert (best == list(classes.values())).sum() >= 9, best


def test_the_backbone_for_training_gives_the_features_of_the_folded_network() -> None:
    variant = Variant(width=1.0, depth=1.0, input_px=32)
    weights = random_weights(variant)
    image = np.random.default_rng(4).normal(0, 1, (2, 3, 32, 32)).astype(np.float32)
    folded = build_lite(variant, weights, np.zeros((8, DIMS)), np.zeros(8))
    separate = build_backbone(variant, weights, input_px=32)
    norms = [node.op_type for node in separate.graph.node].count("BatchNormalization")
    assert norms == 49
    found, expected = (
        onnxruntime.InferenceSession(model.SerializeToString()).run(["feature"], {"input": image})
        for model in (separate, folded)
    )
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-3, atol=1e-4)
