"""Reads the pickle of a PyTorch state dict by its opcodes, and builds names and shapes instead of tensors.

A machine that knows a few opcodes and a few names and has nothing it could run: a name outside the list
is Unsafe, an opcode outside the list is Unsafe, and what the listed names would have built is represented
by plain values of this module. It takes nothing that torch's reader for `weights_only=True` would take in
another way: the opcodes are a part of its own, and values that it would interpret (strides, flags,
attributes, storages that are named twice) are compared with what `torch.save` writes.

Opcodes, the stack and the memo are bounded, so that memory and time are, whatever the pickle says.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from loradrop.catalog.lora.tensors import Tensor

_MAX_OPCODES = 1_000_000
"""A tensor takes some 30; 100 000 bytes of pickle hold about 600 tensors."""

_MAX_STACK = 16_384
"""Picklers set items in batches of 1000."""

_MAX_MEMO = 300_000
_MAX_CONTAINERS = 100_000

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
_MAX_NAME_BYTES = 80
_PROTOCOL = 2
_DICT = "collections OrderedDict"
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_NAMES = {_DICT, _TENSOR, _PARAMETER, *(f"torch {storage}" for storage in _STORAGES)}
_ATTRIBUTES = {"_metadata"}


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


class _OrderedDict(dict[Any, Any]):
    """What a pickle made by calling OrderedDict: unlike a dict, it takes attributes."""

    __slots__ = ()


def read_state_dict(program: bytes, record_bytes: Mapping[str, int]) -> list[Tensor]:
    """Return the tensors a state dict's pickle describes.

    `record_bytes` is the size of each storage's record. Raises Unsafe, and ValueError where the pickle is
    damaged, describes something else, or needs more than any adapter does.
    """
    machine = _Machine(program, record_bytes)
    try:
        state = machine.run()
        if not isinstance(state, dict):
            raise ValueError("its pickle is not a state dict")
        return [_tensor(name, value) for name, value in state.items()]
    except (IndexError, KeyError, TypeError, struct.error) as error:
        raise ValueError(f"its pickle is damaged ({type(error).__name__})") from error
    finally:
        machine.clear()


def _tensor(name: Any, value: Any) -> Tensor:
    if not isinstance(name, str) or not isinstance(value, _Rebuilt):
        raise ValueError("its state dict holds something that is not a tensor")
    return Tensor(name, value.dtype, value.shape)


class _Machine:
    """The stacks and the memo of a pickle being read.

    Invariant: as in torch's reader, MARK begins a new stack, so that nothing takes what lies below a mark.
    """

    def __init__(self, program: bytes, record_bytes: Mapping[str, int]) -> None:
        self._program = program
        self._at = 0
        self._record_bytes = record_bytes
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._depth = 0
        self._memo: dict[int, Any] = {}
        self._storages: dict[str, _Storage] = {}
        self._hooks: list[dict[Any, Any]] = []
        self._containers: list[dict[Any, Any] | list[Any]] = []

    def run(self) -> Any:
        """Return what the pickle describes."""
        for _ in range(_MAX_OPCODES):
            opcode = self._read(1)[0]
            if opcode == _STOP:
                if any(self._hooks):
                    raise Unsafe("a tensor with hooks")
                return self._stack.pop()
            step = _STEPS.get(opcode)
            if step is None:
                raise Unsafe(f"opcode {opcode}")
            step(self)
            if (
                len(self._stack) + self._depth > _MAX_STACK
                or len(self._memo) > _MAX_MEMO
                or len(self._containers) > _MAX_CONTAINERS
            ):
                raise ValueError("its pickle needs more memory than any adapter's")
        raise ValueError(f"its pickle has more than {_MAX_OPCODES} instructions")

    def clear(self) -> None:
        """Let go of everything now, also of containers that hold each other."""
        for container in self._containers:
            container.clear()

    def _read(self, count: int) -> bytes:
        found = self._program[self._at : self._at + count]
        if len(found) != count:
            raise ValueError("its pickle ends early")
        self._at += count
        return found

    def _number(self, layout: str) -> Any:
        return struct.unpack(layout, self._read(struct.calcsize(layout)))[0]

    def _line(self) -> str:
        end = self._program.find(b"\n", self._at, self._at + _MAX_NAME_BYTES)
        if end < 0:
            raise Unsafe("a name that is too long")
        line = self._read(end - self._at)
        self._at += 1
        return line.decode()

    def protocol(self) -> None:
        """PROTO: torch.save writes 2, and torch reads no other in full."""
        if self._read(1)[0] != _PROTOCOL:
            raise Unsafe("another protocol than torch.save writes")

    def mark(self) -> None:
        """MARK."""
        self._depth += len(self._stack) + 1
        self._below.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        taken, self._stack = self._stack, self._below.pop()
        self._depth -= len(self._stack) + 1
        return taken

    def _push_container(self, container: dict[Any, Any] | list[Any]) -> None:
        self._containers.append(container)
        self._stack.append(container)

    def empty_dict(self) -> None:
        """EMPTY_DICT."""
        self._push_container({})

    def empty_list(self) -> None:
        """EMPTY_LIST."""
        self._push_container([])

    def empty_tuple(self) -> None:
        """EMPTY_TUPLE."""
        self._stack.append(())

    def tuple_of_marked(self) -> None:
        """TUPLE."""
        taken = self._since_mark()
        self._stack.append(tuple(taken))

    def tuple1(self) -> None:
        """TUPLE1."""
        self._stack[-1] = (self._stack[-1],)

    def tuple2(self) -> None:
        """TUPLE2."""
        last = self._stack.pop()
        self._stack[-1] = (self._stack[-1], last)

    def tuple3(self) -> None:
        """TUPLE3."""
        last, middle = self._stack.pop(), self._stack.pop()
        self._stack[-1] = (self._stack[-1], middle, last)

    def none(self) -> None:
        """NONE."""
        self._stack.append(None)

    def true(self) -> None:
        """NEWTRUE."""
        self._stack.append(True)

    def false(self) -> None:
        """NEWFALSE."""
        self._stack.append(False)

    def text(self) -> None:
        """BINUNICODE."""
        self._stack.append(self._read(self._number("<I")).decode())

    def int32(self) -> None:
        """BININT."""
        self._stack.append(self._number("<i"))

    def uint8(self) -> None:
        """BININT1."""
        self._stack.append(self._read(1)[0])

    def uint16(self) -> None:
        """BININT2."""
        self._stack.append(self._number("<H"))

    def long(self) -> None:
        """LONG1."""
        self._stack.append(int.from_bytes(self._read(self._read(1)[0]), "little", signed=True))

    def float64(self) -> None:
        """BINFLOAT."""
        self._stack.append(self._number(">d"))

    def put(self) -> None:
        """BINPUT."""
        self._memo[self._read(1)[0]] = self._stack[-1]

    def long_put(self) -> None:
        """LONG_BINPUT."""
        self._memo[self._number("<I")] = self._stack[-1]

    def get(self) -> None:
        """BINGET."""
        self._stack.append(self._memo[self._read(1)[0]])

    def long_get(self) -> None:
        """LONG_BINGET."""
        self._stack.append(self._memo[self._number("<I")])

    def name(self) -> None:
        """GLOBAL."""
        text = f"{self._line()} {self._line()}"
        if text not in _NAMES:
            raise Unsafe(f"the name {text!r}")
        self._stack.append(_Name(text))

    def storage(self) -> None:
        """BINPERSID: torch makes a storage once, whatever type a second reference names."""
        match self._stack.pop():
            case ("storage", _Name(text), str(key), str(), int(elements)) if type(elements) is int:
                dtype, element_bytes = _STORAGES[text.removeprefix("torch ")]
            case _:
                raise ValueError("its pickle refers to something that is not a storage")
        if elements < 0 or self._record_bytes.get(key, -1) != elements * element_bytes:
            raise ValueError(f"the record of storage {key[:20]!r} is missing or of another size")
        storage = _Storage(dtype, elements)
        if self._storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key[:20]!r} is used with two types")
        self._stack.append(storage)

    def reduce(self) -> None:
        """REDUCE."""
        arguments, name = self._stack.pop(), self._stack.pop()
        match name, arguments:
            case _Name(text), () if text == _DICT:
                self._push_container(_OrderedDict())
            case _Name(text), (_Storage() as storage, offset, tuple(shape), tuple(strides), grad, hooks) if (
                text == _TENSOR
            ):
                self._check_flags(storage.dtype, grad, hooks)
                if not _fits(shape, strides, offset, storage.elements):
                    raise ValueError("a tensor is empty, or larger than its storage")
                self._stack.append(_Rebuilt(storage.dtype, shape))
            case _Name(text), (_Rebuilt() as rebuilt, grad, hooks) if text == _PARAMETER:
                self._check_flags(rebuilt.dtype, grad, hooks)
                self._stack.append(rebuilt)
            case _:
                raise Unsafe("a call of something else than a tensor's maker")

    def _check_flags(self, dtype: str, grad: Any, hooks: Any) -> None:
        if not isinstance(grad, bool) or not isinstance(hooks, _OrderedDict):
            raise ValueError("a tensor is not described as torch.save does")
        if grad and dtype not in _DIFFERENTIABLE:
            raise ValueError("a tensor of whole numbers wants a gradient")
        self._hooks.append(hooks)

    def build(self) -> None:
        """BUILD: the version numbers that a module's state dict carries as an attribute."""
        state = self._stack.pop()
        if not isinstance(self._stack[-1], _OrderedDict) or not isinstance(state, dict):
            raise Unsafe("attributes of something that is not an OrderedDict")
        if not state.keys() <= _ATTRIBUTES:
            raise Unsafe("an attribute that is not _metadata")

    def set_item(self) -> None:
        """SETITEM."""
        value, key = self._stack.pop(), self._stack.pop()
        self._set_items([key, value])

    def set_items(self) -> None:
        """SETITEMS."""
        self._set_items(self._since_mark())

    def _set_items(self, flat: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            raise Unsafe("items set on something that is not a dict")
        if len(flat) % 2 or not all(isinstance(key, str) for key in flat[::2]):
            raise Unsafe("a key that is not text")  # also: hashing nested tuples can take for ever
        target.update(zip(flat[::2], flat[1::2], strict=True))

    def append(self) -> None:
        """APPEND."""
        self._append([self._stack.pop()])

    def appends(self) -> None:
        """APPENDS."""
        self._append(self._since_mark())

    def _append(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise Unsafe("values appended to something that is not a list")
        target.extend(values)


_DIFFERENTIABLE = {"F64", "F32", "F16", "BF16"}
_STOP = ord(".")
_STEPS: dict[int, Callable[[_Machine], None]] = {
    ord(code): step
    for code, step in {
        b"\x80": _Machine.protocol,
        b"(": _Machine.mark,
        b"}": _Machine.empty_dict,
        b"]": _Machine.empty_list,
        b")": _Machine.empty_tuple,
        b"t": _Machine.tuple_of_marked,
        b"\x85": _Machine.tuple1,
        b"\x86": _Machine.tuple2,
        b"\x87": _Machine.tuple3,
        b"N": _Machine.none,
        b"\x88": _Machine.true,
        b"\x89": _Machine.false,
        b"X": _Machine.text,
        b"J": _Machine.int32,
        b"K": _Machine.uint8,
        b"M": _Machine.uint16,
        b"\x8a": _Machine.long,
        b"G": _Machine.float64,
        b"q": _Machine.put,
        b"r": _Machine.long_put,
        b"h": _Machine.get,
        b"j": _Machine.long_get,
        b"c": _Machine.name,
        b"Q": _Machine.storage,
        b"R": _Machine.reduce,
        b"b": _Machine.build,
        b"s": _Machine.set_item,
        b"u": _Machine.set_items,
        b"a": _Machine.append,
        b"e": _Machine.appends,
    }.items()
}
"""What torch.save writes, with protocol 2."""


def _fits(shape: tuple[Any, ...], strides: tuple[Any, ...], offset: Any, elements: int) -> bool:
    """Return whether a tensor has values, and all of them lie in its storage."""
    numbers = (*shape, *strides, offset)
    if not all(type(number) is int and 0 <= number < 1 << 63 for number in numbers):
        return False
    if len(shape) > _MAX_DIMENSIONS or len(shape) != len(strides) or 0 in shape:
        return False
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    return last < elements and _product(shape) <= elements


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
