"""The proof that a safetensors file is whole, from its header alone.

The format (safetensors/README.md): eight bytes N, then N bytes of JSON, then the tensors' bytes, which the
offsets in the header cover without hole or overlap. So the file's length must be exactly 8 + N + the
largest end. A shorter file is a copy under way; anything else that does not fit will never work.
The same rules as the reference implementation, with a smaller header: adapters need less than 1 MB.

Not here: whether the tensors are those of a LoRA adapter (`lora_tensors`), and whether their bytes are
already the final ones: a file allocated in full and not yet filled passes. That is what settling is for.
"""

import json
import os
import struct
from collections.abc import Iterable
from math import prod
from typing import Any

from loradrop.catalog.lora.faults import Incomplete, Rejected
from loradrop.catalog.lora.tensors import Tensor

MAX_HEADER_BYTES = 10_000_000
"""Real headers of adapters stay below 1 MB; the reference allows 100 MB."""

MAX_TENSORS = 100_000
_MAX_DIMENSIONS = 8

BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "I64": 64,
    "U64": 64,
    "F64": 64,
}
"""Bits an element of each type takes."""

_LENGTH = struct.Struct("<Q")


class _Duplicate(ValueError):
    """A JSON object names the same key twice."""


def prove(fd: int, size_bytes: int) -> list[Tensor]:
    """Return the tensors of the file open at `fd`, which is whole.

    Raises Incomplete where bytes are missing at its end, Rejected, and OSError.
    """
    if size_bytes < _LENGTH.size:
        raise _short(size_bytes, _LENGTH.size, "at least ")
    (length,) = _LENGTH.unpack(_exactly(fd, _LENGTH.size, 0))
    if length > MAX_HEADER_BYTES:
        raise Rejected(
            "header_too_large",
            f"adapter_model.safetensors declares a header of {length} bytes; more than {MAX_HEADER_BYTES} is"
            " no adapter's. The file is damaged or is something else: copy it again.",
        )
    begin = _LENGTH.size + length
    if size_bytes < begin:
        raise _short(size_bytes, begin, "at least ")
    tensors, end = _read_header(_exactly(fd, length, _LENGTH.size))
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
    parts = []
    while length > 0:
        part = os.pread(fd, length, offset)
        if not part:
            raise Incomplete(
                "weights_truncated",
                "adapter_model.safetensors became shorter while it was read. Wait for the copy.",
            )
        parts.append(part)
        length -= len(part)
        offset += len(part)
    return b"".join(parts)


def _read_header(text: bytes) -> tuple[list[Tensor], int]:
    if text[:1] != b"{":
        raise _invalid("its header does not begin with a brace")
    try:
        header = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except _Duplicate as error:
        raise _invalid(f"its header names {str(error)[:80]!r} twice") from error
    except (ValueError, RecursionError) as error:
        raise _invalid(f"its header is not JSON ({str(error)[:120]})") from error
    _check_metadata(header.pop("__metadata__", {}))
    if len(header) > MAX_TENSORS:
        raise _invalid(f"it declares {len(header)} tensors, more than {MAX_TENSORS}")
    declared = [_declared(name, entry) for name, entry in header.items()]
    end = _check_chain((begin, end) for _, begin, end in declared)
    return [tensor for tensor, _, _ in declared], end


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _invalid("its __metadata__ does not map text to text")


def _declared(name: str, entry: Any) -> tuple[Tensor, int, int]:
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)]}:
            pass
        case _:
            raise _invalid(f"it does not say type, shape and offsets of {name[:80]!r}")
    whole = all(type(number) is int and 0 <= number < 1 << 63 for number in (*shape, begin, end))
    if not whole or len(shape) > _MAX_DIMENSIONS or begin > end:
        raise _invalid(f"the shape or the offsets of {name[:80]!r} are impossible")
    bits = BITS.get(dtype)
    if bits is None:
        raise _invalid(f"{name[:80]!r} is of the unknown type {dtype[:40]!r}")
    if prod(shape) * bits != (end - begin) * 8:
        raise _invalid(f"the shape of {name[:80]!r} does not fit its {end - begin} bytes")
    return Tensor(name, dtype, tuple(shape)), begin, end


def _check_chain(spans: Iterable[tuple[int, int]]) -> int:
    at = 0
    for begin, end in sorted(spans):
        if begin != at:
            raise _invalid(
                f"its tensors {'overlap' if begin < at else 'leave a hole'} at byte {min(begin, at)}"
            )
        at = end
    return at


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Duplicate(key)
            seen.add(key)
    return found


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


def _invalid(what: str) -> Rejected:
    return Rejected(
        "header_invalid",
        f"adapter_model.safetensors is damaged or is something else: {what}. Save or copy it again.",
    )
