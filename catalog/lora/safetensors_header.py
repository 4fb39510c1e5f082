"""Whether a safetensors file is whole, and what it holds, from its header alone.

The format (safetensors/README.md): eight bytes N, then N bytes of JSON, then the tensors' bytes, which the
offsets in the header cover without hole or overlap. So the file's length must be exactly 8 + N + the
largest end. A shorter file is a copy under way; anything else that does not fit will never work.
The same rules as the reference implementation, with a smaller header: adapters need less than 1 MB.

Memory is bounded by what `MAX_TENSORS` tensors need: what could become more values than that is counted
before anything is built of it, and each tensor's entry is reduced to a tuple as soon as it has been parsed.

Not here: whether the tensors are those of a LoRA adapter (`tensors`), and whether their bytes are already
the final ones: a file allocated in full and not yet filled passes.
"""

import json
import struct
import sys
from collections.abc import Iterable
from math import prod
from typing import Any, NamedTuple

from loradrop.catalog.lora.faults import Incomplete, Rejected
from loradrop.catalog.lora.json_structure import outside_strings
from loradrop.catalog.lora.open_files import read_at
from loradrop.catalog.lora.tensors import Tensor

_MAX_HEADER_BYTES = 10_000_000
"""Real headers of adapters stay below 1 MB; the reference allows 100 MB."""

MAX_TENSORS = 100_000
_MAX_VALUES = 10 * MAX_TENSORS
"""Commas and opening brackets: a matrix has eight."""

_MAX_DIMENSIONS = 8
_FIELDS = {"dtype", "shape", "data_offsets"}
_ENDS = 2

_TYPES_OF_BITS = {
    4: ("F4",),
    6: ("F6_E2M3", "F6_E3M2"),
    8: ("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"),
    16: ("I16", "U16", "F16", "BF16"),
    32: ("I32", "U32", "F32"),
    64: ("C64", "I64", "U64", "F64"),
}
BITS = {dtype: bits for bits, dtypes in _TYPES_OF_BITS.items() for dtype in dtypes}
"""Bits an element of each type takes."""

_LENGTH = struct.Struct("<Q")


class _Declared(NamedTuple):
    """What a header says of one tensor. A field that is missing or of another type is None."""

    dtype: Any
    shape: Any
    data_offsets: Any


class _Malformed(ValueError):
    """Valid JSON that is not a header; says why."""


def read_header(fd: int, size_bytes: int) -> list[Tensor]:
    """Return the tensors of the file open at `fd`, which is whole.

    Raises Incomplete where bytes are missing at its end, Rejected, and OSError.
    """
    if size_bytes < _LENGTH.size:
        raise _short(size_bytes, _LENGTH.size, "at least ")
    (length,) = _LENGTH.unpack(_exactly(fd, _LENGTH.size, 0))
    if length > _MAX_HEADER_BYTES:
        raise Rejected(
            "header_too_large",
            f"adapter_model.safetensors declares a header of {length} bytes; more than {_MAX_HEADER_BYTES} is"
            " no adapter's. The file is damaged or is something else: copy it again.",
        )
    begin = _LENGTH.size + length
    if size_bytes < begin:
        raise _short(size_bytes, begin, "at least ")
    tensors, end = _parse(_exactly(fd, length, _LENGTH.size))
    if size_bytes < begin + end:
        raise _short(size_bytes, begin + end)
    if size_bytes > begin + end:
        raise Rejected(
            "weights_oversized",
            f"adapter_model.safetensors has {size_bytes} bytes and declares {begin + end}. Something was"
            " written behind its end: copy it again.",
        )
    return tensors


def _short(have: int, want: int, more: str = "") -> Incomplete:
    return Incomplete(
        "weights_truncated",
        f"adapter_model.safetensors has {have} of {more}{want} bytes. Wait for the copy, or copy it again.",
    )


def _exactly(fd: int, length: int, offset: int) -> bytes:
    found = read_at(fd, length, offset)
    if len(found) != length:
        raise Incomplete(
            "weights_truncated",
            "adapter_model.safetensors became shorter while it was read. Wait for the copy.",
        )
    return found


def _parse(text: bytes) -> tuple[list[Tensor], int]:
    """Return the tensors a header declares, and how many bytes they take."""
    if text[:1] != b"{":
        raise _invalid("its header does not begin with a brace")
    if _values(text) > _MAX_VALUES and sum(map(_values, outside_strings(text))) > _MAX_VALUES:
        raise _invalid(f"its header holds more values than {MAX_TENSORS} tensors need")
    if b"-0" in text and any(b"-" in piece for piece in outside_strings(text)):  # -0 would be read as 0
        raise _invalid("its header holds a negative number")
    try:
        header = _DECODER.decode(text.decode())
        if not isinstance(header, dict):
            raise _Malformed("its header is a single tensor's")
        _check_metadata(header.pop("__metadata__", {}))
        if len(header) > MAX_TENSORS:
            raise _Malformed(f"it declares {len(header)} tensors, more than {MAX_TENSORS}")
        tensors = [_tensor(name, entry) for name, entry in header.items()]
        return tensors, _check_chain(entry.data_offsets for entry in header.values())
    except _Malformed as error:
        raise _invalid(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise _invalid(f"its header is not JSON ({str(error)[:120]})") from error


def _values(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def _object(pairs: list[tuple[str, Any]]) -> Any:
    """Return a JSON object as a dict, or what it declares where it has the fields of a tensor."""
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Malformed(f"its header names {key[:80]!r} twice")
            seen.add(key)
    if found.keys() == _FIELDS:
        dtype, shape, offsets = found["dtype"], found["shape"], found["data_offsets"]
        return _Declared(
            sys.intern(dtype) if isinstance(dtype, str) else None,
            tuple(shape) if isinstance(shape, list) else None,
            tuple(offsets) if isinstance(offsets, list) else None,
        )
    return found


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _Malformed("its __metadata__ does not map text to text")
    for text in (*metadata.keys(), *metadata.values()):
        text.encode()  # raises ValueError: half of a surrogate pair is not text


def _tensor(name: str, entry: Any) -> Tensor:
    if not isinstance(entry, _Declared) or None in entry:
        raise _Malformed(f"it does not say type, shape and offsets of {name[:80]!r}")
    dtype, shape, offsets = entry
    whole = all(type(number) is int and 0 <= number < 1 << 63 for number in (*shape, *offsets))
    if not whole or len(shape) > _MAX_DIMENSIONS or len(offsets) != _ENDS:
        raise _Malformed(f"the shape or the offsets of {name[:80]!r} are impossible")
    bits = BITS.get(dtype)
    if bits is None:
        raise _Malformed(f"{name[:80]!r} is of the unknown type {dtype[:40]!r}")
    count = offsets[1] - offsets[0]
    if prod(shape) * bits != count * 8:  # nor is a count below zero any shape's
        raise _Malformed(f"the shape of {name[:80]!r} does not fit its {count} bytes")
    name.encode()  # as for metadata
    return Tensor(name, dtype, shape)


def _check_chain(spans: Iterable[tuple[int, int]]) -> int:
    at = 0
    for begin, end in sorted(spans):
        if begin != at:
            raise _Malformed(
                f"its tensors {'overlap' if begin < at else 'leave a hole'} at byte {min(begin, at)}"
            )
        at = end
    return at


def _no_number(word: str) -> float:
    raise ValueError(f"{word[:40]} is no size")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_number, parse_float=_no_number)


def _invalid(what: str) -> Rejected:
    return Rejected(
        "header_invalid",
        f"adapter_model.safetensors is damaged or is something else: {what}. Save or copy it again.",
    )
