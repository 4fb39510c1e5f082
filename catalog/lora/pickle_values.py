"""What the few names in the pickle of a state dict make: plain values instead of storages and tensors.

Whatever torch would interpret (strides, flags, hooks) is compared with what `torch.save` writes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

_STORAGES = {
    "DoubleStorage": ("F64", 8),
    "FloatStorage": ("F32", 4),
    "HalfStorage": ("F16", 2),
    "BFloat16Storage": ("BF16", 2),
    "LongStorage": ("I64", 8),
    "IntStorage": ("I32", 4),
    "ShortStorage": ("I16", 2),
    "CharStorage": ("I8", 1),
    "ByteStorage": ("U8", 1),
    "BoolStorage": ("BOOL", 1),
}
_MAX_DIMENSIONS = 8
_DICT = "collections OrderedDict"
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_NAMES = {_DICT, _TENSOR, _PARAMETER, *(f"torch {storage}" for storage in _STORAGES)}
_DIFFERENTIABLE = {"F64", "F32", "F16", "BF16"}


class Unsafe(Exception):
    """The pickle wants more than tensors."""


@dataclass(frozen=True, slots=True)
class Name:
    """What a pickle may call, or name a storage's type by."""

    text: str


@dataclass(frozen=True, slots=True)
class Storage:
    """The elements of one record."""

    dtype: str
    elements: int


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What would have been a tensor."""

    dtype: str
    shape: tuple[int, ...]


class OrderedDict(dict[Any, Any]):
    """What a pickle made by calling OrderedDict: unlike a dict, it takes attributes."""

    __slots__ = ()


def name_of(text: str) -> Name:
    """Return the name `text`; raises Unsafe where it is none of the few that tensors need."""
    if text not in _NAMES:
        raise Unsafe(f"the name {text!r}")
    return Name(text)


def storage_of(persistent_id: Any, record_bytes: Mapping[str, int]) -> tuple[str, Storage]:
    """Return the key of a storage and the storage; raises ValueError where no record is its own."""
    match persistent_id:
        case ("storage", Name(text), str(key), str(), int(elements)) if type(elements) is int:
            dtype, element_bytes = _STORAGES[text.removeprefix("torch ")]
        case _:
            raise ValueError("its pickle refers to something that is not a storage")
    if elements < 0 or record_bytes.get(key, -1) != elements * element_bytes:
        raise ValueError(f"the record of storage {key[:20]!r} is missing or of another size")
    return key, Storage(dtype, elements)


def called(name: Any, arguments: Any) -> tuple[OrderedDict | Rebuilt, OrderedDict | None]:
    """Return what calling `name` makes, and the hooks it is given, which must stay empty."""
    match name, arguments:
        case Name(text), () if text == _DICT:
            return OrderedDict(), None
        case Name(text), (Storage() as storage, offset, tuple(shape), tuple(strides), grad, hooks) if (
            text == _TENSOR
        ):
            if not _fits(shape, strides, offset, storage.elements):
                raise ValueError("a tensor is empty, or larger than its storage")
            return Rebuilt(storage.dtype, shape), _checked_hooks(storage.dtype, grad, hooks)
        case Name(text), (Rebuilt() as rebuilt, grad, hooks) if text == _PARAMETER:
            return rebuilt, _checked_hooks(rebuilt.dtype, grad, hooks)
    raise Unsafe("a call of something else than a tensor's maker")


def _checked_hooks(dtype: str, grad: Any, hooks: Any) -> OrderedDict:
    if not isinstance(grad, bool) or not isinstance(hooks, OrderedDict):
        raise ValueError("a tensor is not described as torch.save does")
    if grad and dtype not in _DIFFERENTIABLE:
        raise ValueError("a tensor of whole numbers wants a gradient")
    return hooks


def _fits(shape: tuple[Any, ...], strides: tuple[Any, ...], offset: Any, elements: int) -> bool:
    """Return whether a tensor has values, and all of them lie in its storage."""
    numbers = (*shape, *strides, offset)
    if not all(type(number) is int and 0 <= number < 1 << 63 for number in numbers):
        return False
    if len(shape) > _MAX_DIMENSIONS or len(shape) != len(strides) or 0 in shape:
        return False
    last: int = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    return last < elements and prod(shape) <= elements
