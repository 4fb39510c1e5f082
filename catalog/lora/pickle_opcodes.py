"""Reads the pickle of a PyTorch state dict by its opcodes, and builds names and shapes instead of tensors.

A machine that knows a few opcodes and a few names and has nothing it could run: a name outside the list
is Unsafe, an opcode outside the list is Unsafe, and what the listed names would have built is represented
by plain values of this module.
"""

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from loradrop.catalog.lora.tensors import Tensor

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

_PUSH_ARGUMENT = {
    "BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINSTRING",
    "SHORT_BINSTRING",
}  # fmt: skip
_PUSH_CONSTANT = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLE_LENGTH = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Unsafe(Exception):
    """The pickle wants more than tensors."""


@dataclass(frozen=True, slots=True)
class _Name:
    text: str


@dataclass(frozen=True, slots=True)
class _Storage:
    dtype: str
    elements: int


@dataclass(frozen=True, slots=True)
class _Rebuilt:
    dtype: str
    shape: tuple[int, ...]


def read_state_dict(program: bytes, record_bytes: Mapping[str, int]) -> list[Tensor]:
    """Return the tensors a state dict's pickle describes.

    `record_bytes` is the size of each storage's record. Raises Unsafe, and ValueError where the pickle is
    damaged or describes something else.
    """
    machine = _Machine(record_bytes)
    try:
        for opcode, argument, _ in pickletools.genops(program):
            machine.step(opcode.name, argument)
    except (IndexError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"its pickle is damaged ({type(error).__name__})") from error
    state = machine.result
    if not isinstance(state, dict):
        raise ValueError("its pickle is not a state dict")
    return [_tensor(name, value) for name, value in state.items()]


def _tensor(name: Any, value: Any) -> Tensor:
    if not isinstance(name, str) or not isinstance(value, _Rebuilt):
        raise ValueError("its state dict holds something that is not a tensor")
    return Tensor(name, value.dtype, value.shape)


class _Machine:
    """The stack, the marks and the memo of a pickle being read."""

    def __init__(self, record_bytes: Mapping[str, int]) -> None:
        self.result: Any = None
        self._record_bytes = record_bytes
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[Any, Any] = {}
        self._steps: dict[str, Callable[[Any], None]] = {
            "PROTO": self._nothing,
            "FRAME": self._nothing,
            "MARK": lambda _: self._marks.append(len(self._stack)),
            "EMPTY_DICT": lambda _: self._stack.append({}),
            "EMPTY_LIST": lambda _: self._stack.append([]),
            "TUPLE": lambda _: self._stack.append(tuple(self._since_mark())),
            "MEMOIZE": lambda _: self._memo.__setitem__(len(self._memo), self._stack[-1]),
            "BINPUT": self._put,
            "LONG_BINPUT": self._put,
            "BINGET": self._get,
            "LONG_BINGET": self._get,
            "GLOBAL": self._name,
            "BINPERSID": self._storage,
            "REDUCE": self._reduce,
            "SETITEM": lambda _: self._set_items([self._stack.pop(-2), self._stack.pop()]),
            "SETITEMS": lambda _: self._set_items(self._since_mark()),
            "APPEND": lambda _: self._append([self._stack.pop()]),
            "APPENDS": lambda _: self._append(self._since_mark()),
            "BUILD": lambda _: self._stack.pop(),  # attributes of the dict: metadata nobody serves
            "STOP": self._stop,
        }

    def step(self, opcode: str, argument: Any) -> None:
        """Take one opcode."""
        if opcode in _PUSH_ARGUMENT:
            self._stack.append(argument)
        elif opcode in _PUSH_CONSTANT:
            self._stack.append(_PUSH_CONSTANT[opcode])
        elif opcode in _TUPLE_LENGTH:
            length = _TUPLE_LENGTH[opcode]
            self._stack.append(tuple(self._stack.pop() for _ in range(length))[::-1])
        elif opcode in self._steps:
            self._steps[opcode](argument)
        else:
            raise Unsafe(f"opcode {opcode}")

    def _nothing(self, _argument: Any) -> None:
        pass

    def _since_mark(self) -> list[Any]:
        mark = self._marks.pop()
        taken = self._stack[mark:]
        del self._stack[mark:]
        return taken

    def _put(self, key: Any) -> None:
        self._memo[key] = self._stack[-1]

    def _get(self, key: Any) -> None:
        self._stack.append(self._memo[key])

    def _name(self, text: str) -> None:
        if text not in _NAMES:
            raise Unsafe(f"the name {text[:80]!r}")
        self._stack.append(_Name(text))

    def _storage(self, _argument: Any) -> None:
        match self._stack.pop():
            case ("storage", _Name(text), str(key), str(), int(elements)):
                dtype, element_bytes = _STORAGES[text.removeprefix("torch ")]
            case _:
                raise ValueError("its pickle refers to something that is not a storage")
        if self._record_bytes.get(key, -1) < elements * element_bytes or elements < 0:
            raise ValueError(f"the record of storage {key[:20]!r} is missing or too short")
        self._stack.append(_Storage(dtype, elements))

    def _reduce(self, _argument: Any) -> None:
        arguments, name = self._stack.pop(), self._stack.pop()
        match name, arguments:
            case _Name(text), () if text == _DICT:
                self._stack.append({})
            case _Name(text), (_Storage(dtype, elements), int(offset), tuple(shape), tuple(), *_) if (
                text == _TENSOR
            ):
                if not _fits(shape, offset, elements):
                    raise ValueError("a tensor is larger than its storage")
                self._stack.append(_Rebuilt(dtype, shape))
            case _Name(text), (_Rebuilt() as rebuilt, *_) if text == _PARAMETER:
                self._stack.append(rebuilt)
            case _:
                raise Unsafe("a call of something else than a tensor's maker")

    def _set_items(self, flat: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            raise Unsafe("items set on something that is not a dict")
        if not all(
            isinstance(key, str) for key in flat[::2]
        ):  # also: hashing nested tuples can take for ever
            raise Unsafe("a key that is not text")
        target.update(zip(flat[::2], flat[1::2], strict=True))

    def _append(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise Unsafe("values appended to something that is not a list")
        target.extend(values)

    def _stop(self, _argument: Any) -> None:
        self.result = self._stack.pop()


def _fits(shape: tuple[Any, ...], offset: int, elements: int) -> bool:
    if len(shape) > _MAX_DIMENSIONS or not 0 <= offset <= elements:
        return False
    return (
        all(type(size) is int and 0 <= size < 1 << 63 for size in shape) and offset + prod(shape) <= elements
    )
