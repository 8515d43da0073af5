from __future__ import annotations

import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.caffe.network import Layer, Net
from models.caffe.prototxt import read_prototxt
from models.caffe.schema import message
from models.errors import NetworkError
from tests.models.caffe_files import FORMATS, TODAY, V0

INPUT = 'input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }\n'


def read(folder: Path, text: str | bytes) -> Net:
    path = folder / "net.prototxt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_prototxt(path)


def refused(folder: Path, text: str | bytes) -> str:
    with pytest.raises(NetworkError) as caught:
        read(folder, text)
    assert str(folder / "net.prototxt") in str(caught.value)
    return str(caught.value)


def meaning(layer: Layer) -> tuple[object, ...]:
    """Say what a layer computes, without what only training needs."""
    parameters = message("LayerParameter")
    parameters.CopyFrom(layer.parameters)
    for field in ("param", "top"):
        parameters.ClearField(field)
    for field in ("convolution_param", "inner_product_param"):
        if parameters.HasField(field):
            getattr(parameters, field).ClearField("weight_filler")
    parameters.bottom[:] = layer.bottoms
    return layer.tops, parameters.SerializeToString(deterministic=True)


@pytest.mark.parametrize("old", ["v1", "v0"])
def test_older_formats_say_the_same_as_todays(tmp_path: Path, old: str) -> None:
    today, other = read(tmp_path, TODAY), read(tmp_path, FORMATS[old])
    assert [meaning(layer) for layer in other.layers] == [meaning(a) for a in today.layers]
    assert other.inputs == today.inputs == {"data": (2, 3, 21, 21)}


@pytest.mark.parametrize("form", FORMATS)
def test_each_layer_knows_its_line(tmp_path: Path, form: str) -> None:
    text = FORMATS[form]
    lines = text.splitlines()
    for layer in read(tmp_path, text).layers:
        at = lines[layer.line - 1 : layer.line + 3]
        assert at[0].startswith("layer")
        assert any(f'name: "{layer.name}"' in line for line in at)


def test_comments_and_strings_do_not_confuse_the_lines(tmp_path: Path) -> None:
    net = read(
        tmp_path,
        INPUT
        + '# layer { not one }\nlayer { name: "a{\\"}" # }\n'
        + 'type: "ReLU" bottom: "data" top: "a" }\n'
        + "layer: <\n name: 'b' type: 'ReLU' bottom: 'a' top: 'b'\n>\n",
    )
    assert [(layer.name, layer.line) for layer in net.layers] == [('a{"}', 3), ("b", 5)]


@pytest.mark.parametrize(
    "text",
    [
        'layer { type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 9 } } }',
        'input: "x" input_shape { dim: 1 dim: 3 dim: 9 }',
    ],
)
def test_an_input_may_stand_in_a_layer_or_at_the_top(tmp_path: Path, text: str) -> None:
    follow = 'layer { name: "r" type: "ReLU" bottom: "x" top: "r" }'
    assert read(tmp_path, text + follow).inputs == {"x": (1, 3, 9)}


TRAIN_VAL = """
layer {
  name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { mirror: true crop_size: 227 } data_param { batch_size: 256 }
}
layer {
  name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { crop_size: 225 } data_param { source: "x" batch_size: 50 backend: LMDB }
}
layer { name: "a" type: "ReLU" bottom: "data" top: "a" }
layer { name: "only" type: "ReLU" bottom: "a" top: "a" exclude { phase: TEST } }
layer { name: "hot" type: "Reshape" bottom: "label" top: "hot" }
layer { name: "staged" type: "ReLU" bottom: "a" top: "s" include { stage: "x" } }
layer { name: "acc" type: "Accuracy" bottom: "a" bottom: "label" top: "acc" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "a" bottom: "label" top: "loss" }
layer { name: "loss2" type: "EuclideanLoss" bottom: "hot" bottom: "loss" top: "l2" }
"""


def test_a_training_prototxt_gives_the_network_that_is_tested(tmp_path: Path) -> None:
    net = read(tmp_path, TRAIN_VAL)
    assert net.inputs == {"data": (50, 3, 225, 225)}
    assert [layer.name for layer in net.layers] == ["a"]


@pytest.mark.parametrize(
    ("source", "shape"),
    [
        ('type: "MemoryData" memory_data_param { batch_size: 2 channels: 3 height: 4 width: 5 }',
         (2, 3, 4, 5)),
        ('type: "ImageData" image_data_param { new_height: 6 new_width: 7 }', (1, 3, 6, 7)),
        ('type: "DummyData" dummy_data_param { num: 1 channels: 3 height: 4 width: 4 }',
         (1, 3, 4, 4)),
        ('type: "DummyData" dummy_data_param { shape { dim: 4 dim: 3 } }', (4, 3)),
        ('type: "HDF5Data" transform_param { crop_size: 9 force_gray: true }', (1, 1, 9, 9)),
    ],
)  # fmt: skip
def test_a_data_layer_that_says_its_size_is_an_input(
    tmp_path: Path, source: str, shape: tuple[int, ...]
) -> None:
    layer = f'layer {{ name: "data" top: "data" top: "label" {source} }}'
    follow = 'layer { name: "r" type: "ReLU" bottom: "data" top: "r" }'
    assert read(tmp_path, layer + follow).inputs == {"data": shape}


def test_a_data_layer_that_does_not_say_its_size_is_refused_with_the_remedy(
    tmp_path: Path,
) -> None:
    text = 'layer { name: "data" type: "Data" top: "data" top: "label" }'
    text += 'layer { name: "r" type: "ReLU" bottom: "data" top: "r" }'
    assert "input_shape" in refused(tmp_path, text)


def test_the_first_format_crops_in_its_data_layer(tmp_path: Path) -> None:
    text = """
    layers { layer { name: "data" type: "data" batchsize: 9 cropsize: 7 } top: "data" top: "l" }
    layers { layer { name: "r" type: "relu" } bottom: "data" top: "r" }
    layers { layer { name: "loss" type: "softmax_loss" } bottom: "r" bottom: "l" }
    """
    net = read(tmp_path, text)
    assert net.inputs == {"data": (9, 3, 7, 7)}
    assert [layer.tops for layer in net.layers] == [("r",)]


def test_a_padding_layer_whose_blob_is_overwritten_pads_once(tmp_path: Path) -> None:
    text = """
    input: "x" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
    layers { layer { name: "p" type: "padding" pad: 3 } bottom: "x" top: "x" }
    layers { layer { name: "a" type: "conv" num_output: 1 kernelsize: 3 } bottom: "x" top: "a" }
    layers { layer { name: "b" type: "pool" kernelsize: 2 } bottom: "a" top: "b" }
    """
    first, second = read(tmp_path, text).layers
    assert list(first.parameters.convolution_param.pad) == [3]
    assert not second.parameters.pooling_param.HasField("pad")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (V0.replace('type: "conv" num_output: 6 group: 2 kernelsize: 5', 'type: "relu"'),
         "only conv and pool"),
        (V0.replace('bottom: "norm1" top: "pad2"', 'bottom: "norm1"  bottom: "pool1" top: "pad2"'),
         "one bottom"),
        (INPUT + 'layer { name: "a" type: "ReLU" bottom: "b" top: "a" }\n'
         + 'layer { name: "b" type: "ReLU" bottom: "a" top: "b" }', "line 2: layer 'a'"),
        (INPUT + 'layer { name: "a" type: "ReLU" bottom: "data" top: "data2" }\n'
         + 'layer { name: "b" type: "ReLU" bottom: "data" top: "data2" }', "line 3: layer 'b'"),
        (INPUT + '\n\nlayer { name: 3 }', "line 4: "),
        (INPUT + 'layer { name: "a" type: "Pooling" bottom: "data" top: "a"\n'
         + '  pooling_param { kernel_size: 2\n ceiling: false } }',
         "line 4: PoolingParameter has no field 'ceiling'"),
        (INPUT + "layers { type: 99999 }", "99999"),
        (INPUT + "layers { type: MYSTERY }", "MYSTERY"),
        (INPUT + 'layer { name: "a" type: "ReLU" bottom: "data" top: "a"', "line 2"),
        (INPUT + 'layer { name: "a" type: "ReLU" } layers { type: RELU }', "mixes"),
        ('input: "data" layer { name: "a" type: "ReLU" bottom: "data" top: "a" }', "input_dim"),
        ('input: "x" input_dim: 1 layer { name: "a" type: "ReLU" bottom: "x" top: "a" }',
         "four input_dim"),
        (INPUT.replace("dim: 3", "dim: -3") + 'layer { name: "a" type: "ReLU" bottom: "data" }',
         "1 to"),
        (INPUT.replace("dim: 3", "dim: 9000000000") + 'layer { name: "a" }', "1 to"),
        (INPUT + "layer " + "{ a " * 2000, "nested"),
        ("", "no layer"),
        ('net: "train_val.prototxt" base_lr: 0.01', "no layer"),
        (b"\x00\x01\xff" * 100, "no layer"),
        ("layer {}\n" * 10_001, "more than 10000"),
        ('name: "' + "x" * 300_000 + '"', "a line of more than"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, wrong: str | bytes, says: str) -> None:
    assert says in refused(tmp_path, wrong)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"absent\.prototxt"):
        read_prototxt(tmp_path / "absent.prototxt")


def test_fields_that_change_nothing_may_be_unknown(tmp_path: Path) -> None:
    text = 'my_field: 3 layer { name: "a" type: "ReLU" bottom: "data" top: "a" my_param { x: 1 } }'
    assert len(read(tmp_path, INPUT + text).layers) == 1


def test_ten_megabytes_of_garbage_are_refused_at_once(tmp_path: Path) -> None:
    garbage = b"layer { a: " * 1_000_000
    tracemalloc.start()
    try:
        says = refused(tmp_path, garbage)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "larger than" in says
    assert most_bytes < 40e6


_MARKS = tuple("{}<>:#'\"\\\n")
_WORDS = (
    "layer",
    "layers",
    "type",
    "name",
    "bottom",
    "top",
    "input",
    "dim",
    "input_dim",
    "1",
    '"a"',
)


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.one_of(st.lists(st.sampled_from(_MARKS + _WORDS)).map(" ".join), st.text(), st.binary()))
def test_any_text_is_read_or_refused(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "replace"))
    with suppress(NetworkError):
        assert read_prototxt(path).inputs
