from __future__ import annotations

from pathlib import Path

import pytest

from models.caffe.deployed import deployed
from models.caffe.prototxt import read_prototxt
from models.caffe.to_onnx import to_onnx
from tests.models.caffe_files import FORMATS, TODAY, V0, V1, write_files

DATA = """
layer {
  name: "data" type: "Data" top: "data" top: "label"
  transform_param { crop_size: 21 } data_param { batch_size: 2 }
}
"""
TRAIN_VAL = DATA + TODAY[TODAY.index('layer {\n  name: "conv1"') :]
BLOBS = {"fc3", "encode"}


@pytest.mark.parametrize("text", [TODAY, V1], ids=["today", "v1"])
def test_what_can_be_deployed_is_kept_byte_for_byte(tmp_path: Path, text: str) -> None:
    prototxt, _ = write_files(tmp_path, text)
    assert deployed(prototxt, blobs=BLOBS) == text.encode()


@pytest.mark.parametrize("text", [V0, TRAIN_VAL], ids=["v0", "train_val"])
def test_what_caffe_cannot_deploy_is_written_anew(tmp_path: Path, text: str) -> None:
    prototxt, weights = write_files(tmp_path, text)
    before = to_onnx(prototxt, weights, feature="fc3", latent="encode")
    prototxt.write_bytes(deployed(prototxt, blobs=BLOBS))
    net = read_prototxt(prototxt)
    assert net.inputs == {"data": (2, 3, 21, 21)}
    assert net.layers[-1].name == "encode"
    after = to_onnx(prototxt, weights, feature="fc3", latent="encode")
    assert after.graph.node == before.graph.node
    assert after.graph.initializer == before.graph.initializer


def test_a_written_network_stays_as_it_is(tmp_path: Path) -> None:
    prototxt, _ = write_files(tmp_path, FORMATS["v0"])
    prototxt.write_bytes(once := deployed(prototxt, blobs=BLOBS))
    assert deployed(prototxt, blobs=BLOBS) == once
