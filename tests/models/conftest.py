"""A bundle small enough to build in every test, and the real one, built once."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.bundle import Bundle, CaffeFiles, load_bundle
from models.bundle_writer import write_bundle
from models.caffe.from_onnx import CaffeForm, from_onnx
from models.catalogue import ensure_bundle
from models.engine import Engine
from models.engines import open_engine
from models.preprocess import Preprocess

# For the tests that import ONNX Runtime themselves.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

SIDE_PX = 8
MakeBundle = Callable[..., Bundle]


def tiny_network(*, bits: int = 12, dims: int = 6) -> bytes:
    """A convolution, a mean over the picture and a latent layer, seeded."""
    rng = np.random.default_rng(7)
    constants = {
        "conv": rng.standard_normal((dims, 3, 3, 3)),
        "latent": rng.standard_normal((bits, dims, 1, 1)) * 5,
    }
    nodes = [
        helper.make_node("Conv", ["input", "conv"], ["map"]),
        helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["feature"]),
        helper.make_node("Conv", ["pooled", "latent"], ["raw"]),
        helper.make_node("Sigmoid", ["raw"], ["bent"]),
        helper.make_node("Flatten", ["bent"], ["latent_values"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, SIDE_PX, SIDE_PX])],
        [
            helper.make_tensor_value_info("feature", TensorProto.FLOAT, ["N", dims]),
            helper.make_tensor_value_info("latent_values", TensorProto.FLOAT, ["N", bits]),
        ],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in constants.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    """Writes a tiny bundle to disk and loads it; arguments replace its fields."""

    def make(
        network: bytes | None = None,
        *,
        scale: float = 1 / 128,
        caffe_files: tuple[bytes, bytes] | None = None,
        **changes: object,
    ) -> Bundle:
        if network is None and changes.get("source") != "caffe":
            network = tiny_network()
        path = tmp_path / "bundle"
        path.mkdir()
        fields = {
            "path": path,
            "name": "tiny",
            "licence": "Apache-2.0",
            "bits": 12,
            "dims": 6,
            "metric": "cosine",
            "preprocess": Preprocess(
                input_px=SIDE_PX,
                resize_px=SIDE_PX + 2,
                resize_rule="short-side",
                resample="bicubic",
                channel_order="RGB",
                mean=(127.0, 127.0, 127.0),
                scale=scale,
            ),
            "input_name": "input",
            "feature_name": "feature",
            "latent_name": "latent_values",
            "code_threshold": 0.5,
            "sha256": hashlib.sha256(network or b"").hexdigest(),
        }
        if caffe_files is not None:
            fields["caffe"] = CaffeFiles.inside(
                path, input_name="data", feature_name="pool", latent_name="bits"
            )
        bundle = Bundle(**{**fields, **changes})  # type: ignore[arg-type]
        write_bundle(bundle, network, caffe=caffe_files)
        return load_bundle(path)

    return make


@pytest.fixture
def make_caffe_bundle(make_bundle: MakeBundle, tmp_path: Path) -> MakeBundle:
    """Writes the tiny bundle in both forms; `edit` changes the Caffe form, `blobs` its names."""

    def make(
        *,
        edit: Callable[[CaffeForm], tuple[bytes, bytes]] = lambda form: (
            form.prototxt,
            form.weights,
        ),
        blobs: dict[str, str] | None = None,
        **changes: object,
    ) -> Bundle:
        form = from_onnx(onnx.load_from_string(tiny_network()))
        names = {
            "input_name": form.blobs["input"],
            "feature_name": form.blobs["feature"],
            "latent_name": form.blobs["latent_values"],
        }
        files = CaffeFiles.inside(tmp_path / "bundle", **{**names, **(blobs or {})})
        return make_bundle(caffe=files, caffe_files=edit(form), **changes)

    return make


@pytest.fixture
def bundle(make_bundle: MakeBundle) -> Bundle:
    return make_bundle()


@pytest.fixture(scope="session")
def lite_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return ensure_bundle("lite0-128", cache_dir=tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="session")
def lite_engine(lite_bundle: Bundle) -> Iterator[Engine]:
    with open_engine(lite_bundle, threads=1) as engine:
        yield engine
