import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from models.bundle import load_bundle
from models.caffe.prototxt import read_prototxt
from models.caffe.write import NetWriter
from models.catalogue import ensure_bundle
from models.engines import open_engine
from models.errors import BundleError, ModelError, NetworkError, OptionError, WeightsError
from models.importing import Named, import_caffe, import_onnx
from models.pictures import CAFFE_PICTURES, ONNX_PICTURES, Pictures

SIDE_PX, DIMS, BITS = 12, 5, 9
Caffe = tuple[Path, Path]


def tiny_net(*, sigmoid: bool = True, source: bool = True) -> NetWriter:
    """A convolution, fc features after a ReLU in place, and a code layer."""
    rng = np.random.default_rng(2)
    net = NetWriter("tiny")
    if source:
        net.input("data", (10, 3, SIDE_PX, SIDE_PX))
    conv = net.layer("conv", "Convolution", ["data"])
    conv.convolution_param.num_output = 4
    conv.convolution_param.kernel_size.append(5)
    net.layer("fc", "InnerProduct", ["conv"]).inner_product_param.num_output = DIMS
    net.layer("relu", "ReLU", ["fc"], ["fc"])
    net.layer("code", "InnerProduct", ["fc"]).inner_product_param.num_output = BITS
    if sigmoid:
        net.layer("code_encode", "Sigmoid", ["code"])
    shapes = {"conv": (4, 3, 5, 5), "fc": (DIMS, 256), "code": (BITS, DIMS)}
    for name, shape in shapes.items():
        weight = rng.standard_normal(shape, np.float32) / np.sqrt(np.prod(shape[1:]))
        net.blobs[name] = [weight.astype(np.float32), rng.standard_normal(shape[0], np.float32)]
    return net


def written(folder: Path, net: NetWriter) -> Caffe:
    paths = folder / "net.prototxt", folder / "net.caffemodel"
    paths[0].write_text(net.prototxt())
    paths[1].write_bytes(net.caffemodel())
    return paths


@pytest.fixture
def files(tmp_path: Path) -> Caffe:
    return written(tmp_path, tiny_net())


@pytest.fixture
def named(tmp_path: Path) -> Named:
    return Named("mine", tmp_path / "bundles" / "mine", "l2")


def import_tiny(files: Caffe, named: Named, **changes: object):
    usual = {"feature": "fc", "code": "code_encode", "pictures": CAFFE_PICTURES, **changes}
    return import_caffe(*files, named=named, **usual)  # type: ignore[arg-type]


def expected(net: NetWriter, planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the tiny network says of one picture, computed by hand."""
    weight, bias = net.blobs["conv"]
    windows = np.lib.stride_tricks.sliding_window_view(planes, (5, 5), axis=(1, 2))
    maps = np.einsum("cyxij,ocij->oyx", windows, weight) + bias[:, None, None]
    feature = (net.blobs["fc"][0] @ maps.ravel() + net.blobs["fc"][1]).clip(0)
    raw = net.blobs["code"][0] @ feature + net.blobs["code"][1]
    return feature, 1 / (1 + np.exp(-raw))


def test_an_imported_bundle_computes_what_the_caffe_files_say(
    files: Caffe, named: Named, tmp_path: Path
) -> None:
    mean = (104.0, 117.0, 123.0)
    pictures = Pictures(mean=mean, scale=0.02)
    made = import_tiny(files, named, pictures=pictures)
    assert (made.bits, made.dims, made.metric, made.source) == (BITS, DIMS, "l2", "caffe")
    bundle = ensure_bundle("mine", cache_dir=tmp_path / "cache", bundles_dir=named.out.parent)
    assert bundle.id == made.id
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (40, 30, 3), np.uint8))
    pixels = bundle.preprocess.pixels(photo)
    with open_engine(bundle, threads=1) as engine:
        found = engine.embed(pixels[None])
    planes = (pixels[..., ::-1].transpose(2, 0, 1) - np.reshape(mean, (3, 1, 1))) * 0.02
    feature, latent = expected(tiny_net(), planes)
    assert np.allclose(found.features[0], feature, atol=1e-3)
    assert np.allclose(found.latent[0], latent, atol=1e-4)


def test_the_users_files_stay_as_they_were(files: Caffe, named: Named) -> None:
    bundle = import_tiny(files, named)
    assert bundle.caffe is not None
    assert bundle.caffe.prototxt.read_bytes() == files[0].read_bytes()
    assert bundle.caffe.weights.read_bytes() == files[1].read_bytes()
    names = (bundle.caffe.input_name, bundle.caffe.feature_name, bundle.caffe.latent_name)
    assert names == ("data", "fc", "code_encode")
    assert not (bundle.path / "network.onnx").exists()
    assert [path.name for path in named.out.parent.iterdir()] == ["mine"]


def test_a_layer_before_the_sigmoid_stands_for_it(files: Caffe, named: Named) -> None:
    assert import_tiny(files, named, code="code").latent_name == "code_encode"


def test_caffe_files_are_converted_once(files: Caffe, named: Named, tmp_path: Path) -> None:
    import_tiny(files, named)
    cache = tmp_path / "cache"
    first = ensure_bundle(str(named.out), cache_dir=cache)
    written = first.network.stat().st_mtime_ns
    assert ensure_bundle(str(named.out), cache_dir=cache) == first
    assert first.network.stat().st_mtime_ns == written
    assert [path.name for path in cache.iterdir()] == [first.network.parent.name]


@pytest.mark.parametrize("name", ["network.onnx", "network.sha256"])
def test_a_damaged_conversion_says_what_to_delete(
    files: Caffe, named: Named, tmp_path: Path, name: str
) -> None:
    import_tiny(files, named)
    found = ensure_bundle(str(named.out), cache_dir=tmp_path / "cache").network.parent
    (found / name).write_bytes(b"0")
    with pytest.raises(BundleError, match=f"delete {found}"):
        ensure_bundle(str(named.out), cache_dir=tmp_path / "cache")


def test_a_training_prototxt_is_written_anew_without_its_data(
    tmp_path: Path, named: Named
) -> None:
    net = tiny_net(source=False)
    head = (
        'layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST }'
        f" transform_param {{ crop_size: {SIDE_PX} }} data_param {{ batch_size: 7 }} }}\n"
    )
    tail = (
        'layer { name: "classes" type: "InnerProduct" bottom: "code_encode" top: "classes"'
        " inner_product_param { num_output: 3 } }\n"
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "classes" bottom: "label" }\n'
    )
    files = written(tmp_path, net)
    files[0].write_text(head + net.prototxt() + tail)
    bundle = import_tiny(files, named)
    assert bundle.caffe is not None
    again = read_prototxt(bundle.caffe.prototxt)
    assert again.inputs == {"data": (7, 3, SIDE_PX, SIDE_PX)}
    assert [layer.name for layer in again.layers] == ["conv", "fc", "relu", "code", "code_encode"]
    assert '"Data"' not in bundle.caffe.prototxt.read_text()
    found = ensure_bundle(str(named.out), cache_dir=tmp_path / "cache")
    with open_engine(found, threads=1) as engine:
        pixels = np.full((1, SIDE_PX, SIDE_PX, 3), 7, np.uint8)
        embedding = engine.embed(pixels)
    feature, _ = expected(net, np.full((3, SIDE_PX, SIDE_PX), 7.0))
    assert np.allclose(embedding.features[0], feature, rtol=1e-4)


def test_a_network_without_a_code_waits_for_one(
    files: Caffe, named: Named, tmp_path: Path
) -> None:
    assert import_tiny(files, named, code=None).bits == 0
    with pytest.raises(BundleError, match="has no code layer yet"):
        ensure_bundle(str(named.out), cache_dir=tmp_path / "cache")
    plain = ensure_bundle(str(named.out), cache_dir=tmp_path / "cache", needs_code=False)
    with open_engine(plain, threads=1) as engine:
        assert engine.embed(np.zeros((2, SIDE_PX, SIDE_PX, 3), np.uint8)).codes.shape == (2, 0)


def test_a_mean_image_is_cut_where_the_picture_is(files: Caffe, named: Named) -> None:
    mean = np.random.default_rng(1).uniform(90, 130, (3, 17, 17)).astype(np.float32)
    bundle = import_tiny(files, named, pictures=Pictures(mean=mean, resize_px=17))
    assert bundle.preprocess.mean_image is not None
    assert np.array_equal(bundle.preprocess.mean_image, mean[:, 2:14, 2:14])
    assert bundle.preprocess.mean == pytest.approx(mean[:, 2:14, 2:14].mean(axis=(1, 2)))
    assert (bundle.preprocess.resize_rule, bundle.preprocess.resample) == (
        "stretch",
        "bilinear-point",
    )


def spoilt(files: Caffe, what: str) -> None:
    """Spoil the Caffe files in one of the ways that people meet."""
    net = tiny_net(sigmoid=what != "no sigmoid")
    if what == "wrong shape":
        net.blobs["fc"][0] = net.blobs["fc"][0][:, :-1]
    if what == "missing":
        del net.blobs["code"]
    files[0].write_text(net.prototxt())
    files[1].write_bytes(net.caffemodel()[: -100 if what == "truncated" else None])
    if what == "no prototxt":
        files[0].unlink()
    if what == "no weights":
        files[1].unlink()


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("wrong shape", WeightsError, "fc"),
        ("missing", WeightsError, "code"),
        ("truncated", WeightsError, "truncated"),
        ("no weights", WeightsError, "cannot read"),
        ("no prototxt", NetworkError, "cannot read"),
        ("no sigmoid", NetworkError, "no sigmoid follows"),
    ],
)
def test_bad_caffe_files_are_named_and_leave_nothing(
    files: Caffe, named: Named, what: str, error: type[ModelError], message: str
) -> None:
    spoilt(files, what)
    with pytest.raises(error, match=message):
        import_tiny(files, named, code="code")
    assert not named.out.parent.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature": "fc9"}, "no layer or blob 'fc9'"),
        ({"pictures": Pictures(resize_px=9)}, "choose a larger --resize"),
        ({"pictures": Pictures(crop_px=11)}, "takes 12 pixels, not 11"),
        ({"pictures": Pictures(mean=np.zeros((3, 20, 20), np.float32))}, "20 x 20 pixels"),
        ({"pictures": Pictures(deviation=(1.0, 2.0, 3.0))}, "one scale for all channels"),
    ],
)
def test_choices_that_do_not_fit_are_named(
    files: Caffe, named: Named, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        import_tiny(files, named, **changes)
    assert not named.out.parent.exists()


@pytest.mark.parametrize(
    ("name", "message"), [("Mine", "lower-case"), ("lite0-128", "comes with lookalike")]
)
def test_names_that_cannot_be_used_are_refused(
    files: Caffe, named: Named, name: str, message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        import_tiny(files, dataclasses.replace(named, name=name))


def test_a_place_that_is_taken_is_left_alone(files: Caffe, named: Named) -> None:
    named.out.mkdir(parents=True)
    with pytest.raises(BundleError, match="is there already"):
        import_tiny(files, named)
    assert not list(named.out.iterdir())


def tiny_onnx(*, side: int | str = SIDE_PX, batch: int | str = "N") -> onnx.ModelProto:
    """Features of shape (N, 6, 1, 1) with a sigmoid code on them."""
    rng = np.random.default_rng(3)
    constants = {"w": rng.standard_normal((6, 3, 3, 3)) / 999, "c": rng.standard_normal((8, 6))}
    constants["shape"] = np.array([batch if isinstance(batch, int) else -1, 6])
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["map"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
        helper.make_node("Reshape", ["pooled", "shape"], ["row"]),
        helper.make_node("Gemm", ["row", "c"], ["raw"], transB=1),
        helper.make_node("Sigmoid", ["raw"], ["bits"]),
        helper.make_node("Tanh", ["raw"], ["bent"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info("bits", TensorProto.FLOAT, [batch, 8])],
        [
            numpy_helper.from_array(v if v.dtype == np.int64 else v.astype(np.float32), name)
            for name, v in constants.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def import_tiny_onnx(model: onnx.ModelProto, named: Named, **changes: object):
    path = named.out.parent.parent / "net.onnx"
    path.write_bytes(model.SerializeToString())
    usual = {"input_name": None, "feature": "pooled", "code": "bits", "pictures": ONNX_PICTURES}
    return import_onnx(path, named=named, **{**usual, **changes})  # type: ignore[arg-type]


def test_any_value_of_an_onnx_network_can_be_the_feature(named: Named) -> None:
    bundle = import_tiny_onnx(tiny_onnx(), named)
    assert (bundle.bits, bundle.dims, bundle.source) == (8, 6, "onnx")
    assert load_bundle(named.out) == bundle
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIDE_PX, SIDE_PX, 3), np.uint8)
    with open_engine(bundle, threads=1) as engine:
        found = engine.embed(pixels)
    weights = {one.name: numpy_helper.to_array(one) for one in tiny_onnx().graph.initializer}
    padded = np.pad(pixels.transpose(0, 3, 1, 2).astype(float), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    features = np.einsum("ncyxij,ocij->noyx", windows, weights["w"]).mean(axis=(2, 3))
    assert np.allclose(found.features, features, atol=1e-3)
    assert np.allclose(found.latent, 1 / (1 + np.exp(-features @ weights["c"].T)), atol=1e-3)


@pytest.mark.parametrize("alone", [True, False])
def test_deviations_go_into_the_network(named: Named, alone: bool) -> None:
    model = tiny_onnx()
    if not alone:  # a second reader that no factor can be folded into
        model.graph.node.insert(0, helper.make_node("Relu", ["x"], ["unused"]))
        model.graph.node.insert(1, helper.make_node("Add", ["x", "unused"], ["doubled"]))
        model.graph.node[2].input[0] = "doubled"
    deviation = (50.0, 60.0, 70.0)
    other = dataclasses.replace(named, out=named.out.parent / "plain")
    plain = import_tiny_onnx(model, other)
    pictures = dataclasses.replace(ONNX_PICTURES, mean=(120.0, 110.0, 100.0), deviation=deviation)
    bundle = import_tiny_onnx(model, named, pictures=pictures)
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIDE_PX, SIDE_PX, 3), np.uint8)
    planes = (pixels - np.float32(pictures.mean)) / np.float32(deviation)
    with open_engine(bundle, threads=1) as engine, open_engine(plain, threads=1) as raw:
        found = engine.embed(pixels).features
        wanted, _ = raw._run(np.ascontiguousarray(planes.transpose(0, 3, 1, 2), np.float32))
    assert np.allclose(found, wanted, atol=1e-4)


def test_an_onnx_network_without_a_code_waits_for_one(named: Named) -> None:
    assert import_tiny_onnx(tiny_onnx(), named, code=None).bits == 0


def test_a_network_for_any_side_is_told_which(named: Named) -> None:
    pictures = dataclasses.replace(ONNX_PICTURES, crop_px=10, resize_px=14)
    bundle = import_tiny_onnx(tiny_onnx(side="S"), named, pictures=pictures)
    assert (bundle.preprocess.input_px, bundle.preprocess.resize_px) == (10, 14)


def two_inputs() -> onnx.ModelProto:
    model = tiny_onnx()
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))
    return model


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (tiny_onnx, {"code": "bent"}, "not what a Sigmoid gives"),
        (tiny_onnx, {"feature": "poled"}, "makes no value 'poled'"),
        (tiny_onnx, {"feature": "map"}, "one vector an image"),
        (tiny_onnx, {"input_name": "y"}, "no input 'y'"),
        (tiny_onnx, {"pictures": Pictures(crop_px=9)}, "takes 12 pixels, not 9"),
        (lambda: tiny_onnx(side="S"), {}, "say its side with --crop"),
        (lambda: tiny_onnx(batch=1), {}, "batch of any size"),
        (two_inputs, {}, "its input was not named"),
        (two_inputs, {"input_name": "x"}, "needs more than pictures: mask"),
    ],
)
def test_bad_onnx_networks_are_named_and_leave_nothing(
    named: Named, make: Callable[[], onnx.ModelProto], changes: dict[str, object], message: str
) -> None:
    with pytest.raises((NetworkError, OptionError), match=message):
        import_tiny_onnx(make(), named, **changes)
    assert not named.out.exists()


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x08\x08"])
def test_files_that_are_no_networks_are_named(
    tmp_path: Path, named: Named, content: bytes
) -> None:
    path = tmp_path / "odd.onnx"
    path.write_bytes(content)
    for file in (path, tmp_path / "absent.onnx"):
        with pytest.raises(NetworkError, match=file.name):
            import_onnx(
                file,
                named=named,
                input_name=None,
                feature="a",
                code=None,
                pictures=ONNX_PICTURES,
            )


def _import_file(file: Path, named: Named) -> None:
    chosen = {"input_name": None, "feature": "pooled", "code": "bits", "pictures": ONNX_PICTURES}
    import_onnx(file, named=named, **chosen)  # type: ignore[arg-type]


@pytest.mark.parametrize("ending", ["prototxt", "json", "txt", "onnxtxt", "bin"])
def test_the_ending_of_an_onnx_file_says_nothing(
    tmp_path: Path, named: Named, ending: str
) -> None:
    path = tmp_path / f"net.{ending}"
    path.write_text('name: "net"\n{"irVersion": 8}\n' * 100)
    with pytest.raises(NetworkError, match=f"{path} is not an ONNX network") as refused:
        _import_file(path, named)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < len(str(path)) + 200
    path.write_bytes(tiny_onnx().SerializeToString())
    _import_file(path, named)
    assert named.out.is_dir()


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=4),
    st.integers(0, 1 << 16),
)
def test_a_damaged_network_is_refused_or_works_but_is_never_half_a_bundle(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], length: int
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    data = bytearray(tiny_onnx().SerializeToString())
    for at, value in changes:
        data[at % len(data)] = value
    # Every other one is also cut off.
    cut = data[: length // 2 % len(data)] if length % 2 else data
    (folder / "net.onnx").write_bytes(cut)
    named = Named("mine", folder / "mine", "l2")
    chosen = {"input_name": None, "feature": "pooled", "code": "bits", "pictures": ONNX_PICTURES}
    try:
        import_onnx(folder / "net.onnx", named=named, **chosen)  # type: ignore[arg-type]
    except ModelError:
        assert [path.name for path in folder.iterdir()] == ["net.onnx"]
    else:
        assert load_bundle(named.out).bits == 8


def test_the_id_of_an_imported_bundle_is_that_of_its_files(files: Caffe, named: Named) -> None:
    bundle = import_tiny(files, named)
    again = import_tiny(files, dataclasses.replace(named, out=named.out.parent / "again"))
    assert again.id == bundle.id
    weights = hashlib.sha256(files[1].read_bytes()).hexdigest()
    assert weights in (named.out / "bundle.toml").read_text()
