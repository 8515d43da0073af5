"""Caffe's two older formats, brought to the terms of Caffe 1.0.

The rules are those by which Caffe 1.0 itself upgrades such files.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from models.caffe.schema import message
from models.caffe.text import ParsedLayer

# Names that are not simply the old word in capitals and small letters.
_TYPES = {
    "ABSVAL": "AbsVal",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "IM2COL": "Im2col",
    "LRN": "LRN",
    "MVN": "MVN",
    "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}
_V0_TYPES = {
    "conv": "CONVOLUTION",
    "hdf5_data": "HDF5_DATA",
    "hdf5_output": "HDF5_OUTPUT",
    "images": "IMAGE_DATA",
    "innerproduct": "INNER_PRODUCT",
    "pool": "POOLING",
}
# Where each field of the first format went: (type, message, field); None stands for any type.
_V0_FIELDS: dict[str, tuple[tuple[str | None, str, str], ...]] = {
    "num_output": (
        ("conv", "convolution_param", "num_output"),
        ("innerproduct", "inner_product_param", "num_output"),
    ),
    "biasterm": (
        ("conv", "convolution_param", "bias_term"),
        ("innerproduct", "inner_product_param", "bias_term"),
    ),
    "pad": (("conv", "convolution_param", "pad"), ("pool", "pooling_param", "pad")),
    "kernelsize": (
        ("conv", "convolution_param", "kernel_size"),
        ("pool", "pooling_param", "kernel_size"),
    ),
    "group": (("conv", "convolution_param", "group"),),
    "stride": (("conv", "convolution_param", "stride"), ("pool", "pooling_param", "stride")),
    "pool": (("pool", "pooling_param", "pool"),),
    "dropout_ratio": (("dropout", "dropout_param", "dropout_ratio"),),
    "local_size": (("lrn", "lrn_param", "local_size"),),
    "alpha": (("lrn", "lrn_param", "alpha"),),
    "beta": (("lrn", "lrn_param", "beta"),),
    "k": (("lrn", "lrn_param", "k"),),
    "concat_dim": (("concat", "concat_param", "concat_dim"),),
    "batchsize": (
        ("data", "data_param", "batch_size"),
        ("images", "image_data_param", "batch_size"),
    ),
    "new_height": (("images", "image_data_param", "new_height"),),
    "new_width": (("images", "image_data_param", "new_width"),),
    "scale": ((None, "transform_param", "scale"),),
    "meanfile": ((None, "transform_param", "mean_file"),),
    "cropsize": ((None, "transform_param", "crop_size"),),
}
_SAME_IN_V1 = ("bottom", "top", "include", "exclude")


def upgrade(layers: Iterable[ParsedLayer]) -> list[ParsedLayer]:
    """Bring layers of either older format to `LayerParameter`.

    A padding layer is not known to Caffe 1.0: it stays here with the type `Padding`, the
    width in `convolution_param.pad`, for `merge_padding` to put into the layer behind it.
    """
    return [replace(layer, parameters=_upgrade(layer.parameters)) for layer in layers]


def _upgrade(old: Any) -> Any:
    new = message("LayerParameter")
    for field in _SAME_IN_V1:
        getattr(new, field).extend(getattr(old, field))
    if old.HasField("layer"):
        _take_v0(old.layer, new)
    else:
        _take_v1(old, new)
    return new


def _take_v0(old: Any, new: Any) -> None:
    new.name = old.name
    new.type = "Padding" if old.type == "padding" else _v0_type(old.type)
    if old.type == "padding":
        new.convolution_param.pad.append(old.pad)
    for field, places in _V0_FIELDS.items():
        if not old.HasField(field):
            continue
        for kind, holder, target in places:
            if kind in (None, old.type):
                _put(getattr(new, holder), target, getattr(old, field))


def _v0_type(old: str) -> str:
    return _v1_type(_V0_TYPES.get(old, old.upper()))


def _v1_type(old: str) -> str:
    return _TYPES.get(old) or "".join(word.capitalize() for word in old.split("_"))


def _put(holder: Any, field: str, value: Any) -> None:
    if not holder.DESCRIPTOR.fields_by_name[field].has_presence:  # it repeats
        getattr(holder, field).append(value)
    else:
        setattr(holder, field, value)


def _take_v1(old: Any, new: Any) -> None:
    new.name = old.name
    kinds = old.DESCRIPTOR.fields_by_name["type"].enum_type
    new.type = _v1_type(kinds.values_by_number[old.type].name)
    for field, value in old.ListFields():
        if field.name.endswith("_param"):
            getattr(new, field.name).CopyFrom(value)
    _move_transform(new)


def _move_transform(new: Any) -> None:
    """Early data layers cropped by themselves; later a message of its own said so."""
    for holder in ("data_param", "image_data_param"):
        if new.HasField(holder) and getattr(new, holder).HasField("crop_size"):
            new.transform_param.crop_size = getattr(new, holder).crop_size
