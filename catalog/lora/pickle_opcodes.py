"""Reads the pickle of a PyTorch state dict by its opcodes, and builds names and shapes instead of tensors.

A machine that knows a few opcodes and a few names and has nothing it could run: a name outside the list
is Unsafe, an opcode outside the list is Unsafe, and what the listed names would have built is represented
by plain values (`pickle_values`). It takes nothing that torch's reader for `weights_only=True` would take in
another way: the opcodes are a part of its own.

Opcodes, the stack and the memo are bounded, so that memory and time are, whatever the pickle says.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Any

from loradrop.catalog.lora.pickle_values import (
    OrderedDict,
    Rebuilt,
    Storage,
    Unsafe,
    called,
    name_of,
    storage_of,
)
from loradrop.catalog.lora.tensors import Tensor

_MAX_OPCODES = 1_000_000
"""A tensor takes some 30; 100 000 bytes of pickle hold about 600 tensors."""

_MAX_STACK = 16_384
"""Picklers set items in batches of 1000."""

_MAX_MEMO = 300_000
_MAX_CONTAINERS = 100_000

_MAX_NAME_BYTES = 80
_PROTOCOL = 2
_ATTRIBUTES = {"_metadata"}


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


def _tensor(name: str, value: Any) -> Tensor:
    if not isinstance(value, Rebuilt):
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
        self._storages: dict[str, Storage] = {}
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
            self._step(opcode)
            if (
                len(self._stack) + self._depth > _MAX_STACK
                or len(self._memo) > _MAX_MEMO
                or len(self._containers) > _MAX_CONTAINERS
            ):
                raise ValueError("its pickle needs more memory than any adapter's")
        raise ValueError(f"its pickle has more than {_MAX_OPCODES} instructions")

    def _step(self, opcode: int) -> None:
        if opcode in _CONSTANTS:
            self._stack.append(_CONSTANTS[opcode])
        elif opcode in _NUMBERS:
            self._stack.append(self._number(_NUMBERS[opcode]))
        elif opcode in _TUPLES:
            items = [self._stack.pop() for _ in range(_TUPLES[opcode])]
            self._stack.append(tuple(reversed(items)))
        elif opcode in _PUTS:
            self._memo[self._number(_PUTS[opcode])] = self._stack[-1]
        elif opcode in _GETS:
            self._stack.append(self._memo[self._number(_GETS[opcode])])
        elif opcode in _STEPS:
            _STEPS[opcode](self)
        else:
            raise Unsafe(f"opcode {opcode}")

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
        self._depth += len(self._stack) + 1
        self._below.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        taken, self._stack = self._stack, self._below.pop()
        self._depth -= len(self._stack) + 1
        return taken

    def hold(self, container: dict[Any, Any] | list[Any]) -> None:
        """Push a container, and know it, to clear it in the end."""
        self._containers.append(container)
        self._stack.append(container)

    def tuple_of_marked(self) -> None:
        taken = self._since_mark()  # first: it puts another stack in place
        self._stack.append(tuple(taken))

    def text(self) -> None:
        self._stack.append(self._read(self._number("<I")).decode())

    def long(self) -> None:
        self._stack.append(int.from_bytes(self._read(self._read(1)[0]), "little", signed=True))

    def name(self) -> None:
        self._stack.append(name_of(f"{self._line()} {self._line()}"))

    def storage(self) -> None:
        """Take a persistent id: torch makes a storage once, whatever type a second reference names."""
        key, storage = storage_of(self._stack.pop(), self._record_bytes)
        if self._storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key[:20]!r} is used with two types")
        self._stack.append(storage)

    def reduce(self) -> None:
        arguments, name = self._stack.pop(), self._stack.pop()
        value, hooks = called(name, arguments)
        if hooks is not None:
            self._hooks.append(hooks)
        if isinstance(value, OrderedDict):
            self._containers.append(value)
        self._stack.append(value)

    def build(self) -> None:
        """BUILD: the version numbers that a module's state dict carries as an attribute."""
        state = self._stack.pop()
        if not isinstance(self._stack[-1], OrderedDict) or not isinstance(state, dict):
            raise Unsafe("attributes of something that is not an OrderedDict")
        if not state.keys() <= _ATTRIBUTES:
            raise Unsafe("an attribute that is not _metadata")

    def set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set_items([key, value])

    def set_items(self) -> None:
        self._set_items(self._since_mark())

    def _set_items(self, flat: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            raise Unsafe("items set on something that is not a dict")
        if len(flat) % 2 or not all(isinstance(key, str) for key in flat[::2]):
            raise Unsafe("a key that is not text")  # also: hashing nested tuples can take for ever
        target.update(zip(flat[::2], flat[1::2], strict=True))

    def append(self) -> None:
        self._append([self._stack.pop()])

    def appends(self) -> None:
        self._append(self._since_mark())

    def _append(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise Unsafe("values appended to something that is not a list")
        target.extend(values)


_STOP = ord(".")
_CONSTANTS = {ord("N"): None, 0x88: True, 0x89: False, ord(")"): ()}
_NUMBERS = {ord("J"): "<i", ord("K"): "<B", ord("M"): "<H", ord("G"): ">d"}
_TUPLES = {0x85: 1, 0x86: 2, 0x87: 3}
_PUTS = {ord("q"): "<B", ord("r"): "<I"}
_GETS = {ord("h"): "<B", ord("j"): "<I"}
_STEPS: dict[int, Callable[[_Machine], None]] = {
    0x80: _Machine.protocol,
    ord("("): _Machine.mark,
    ord("}"): lambda machine: machine.hold({}),
    ord("]"): lambda machine: machine.hold([]),
    ord("t"): _Machine.tuple_of_marked,
    ord("X"): _Machine.text,
    0x8A: _Machine.long,
    ord("c"): _Machine.name,
    ord("Q"): _Machine.storage,
    ord("R"): _Machine.reduce,
    ord("b"): _Machine.build,
    ord("s"): _Machine.set_item,
    ord("u"): _Machine.set_items,
    ord("a"): _Machine.append,
    ord("e"): _Machine.appends,
}
"""With the tables above, what torch.save writes with protocol 2."""
