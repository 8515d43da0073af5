"""Caffe's file format as protobuf messages, made when they are first asked for.

The descriptors live in a pool and a package of their own, so that real Caffe's can be loaded in
the same process, and no generated code ties lookalike to one release of protobuf.
"""

from functools import cache
from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "lookalike.caffe"
_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Field.TYPE_BOOL,
    "bytes": _Field.TYPE_BYTES,
    "float": _Field.TYPE_FLOAT,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "string": _Field.TYPE_STRING,
    "uint32": _Field.TYPE_UINT32,
}


def message(name: str) -> Any:
    """Make an empty message of Caffe's format, such as `NetParameter` or `LayerParameter`.

    The numbers of a `BlobProto` are bytes: little-endian float32 in `data`, float64 in
    `double_data`. On the wire they are what Caffe reads and writes.
    """
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{_PACKAGE}.{name}"))()


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(
        name="lookalike/caffe.proto", package=_PACKAGE, syntax="proto2"
    )
    text = files("models.caffe").joinpath("schema.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith(" "):
            _add_field(file.message_type[-1], *line.split())
        else:
            file.message_type.add(name=line)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def _add_field(message: Any, number: str, name: str, kind: str, default: str = "") -> None:
    field = message.field.add(name=name, number=int(number), label=_Field.LABEL_OPTIONAL)
    if kind.endswith("*"):
        field.label = _Field.LABEL_REPEATED
    kind = kind.rstrip("*")
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    elif "=" in kind:
        field.type = _Field.TYPE_ENUM
        field.type_name = f".{_PACKAGE}.{message.name}.{_add_enum(message, name, kind)}"
    else:
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{kind}"
    if default:
        field.default_value = default


def _add_enum(message: Any, field: str, values: str) -> str:
    enum = message.enum_type.add(name=f"{field}_values")
    for value in values.split("|"):
        name, _, number = value.partition("=")
        enum.value.add(name=name, number=int(number))
    return str(enum.name)
