"""Whatever the bytes, reading them takes little memory, and ends."""

import json
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from loradrop.catalog.lora.config import parse_config
from loradrop.catalog.lora.faults import Rejected
from loradrop.catalog.lora.pickle_archive import read_archive
from loradrop.catalog.lora.safetensors_header import read_header
from tests.fuzz.targets import archive_of

_MIB = 1 << 20


def header(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def one_long_name() -> bytes:
    name = "base_model.model." + "a." * 1_000_000 + "q_proj.lora_A.weight"
    return json.dumps({name: {"dtype": "F32", "shape": [4, 1], "data_offsets": [0, 16]}}).encode()


HEADERS = {
    "lists": header(b'{"a":[' + b"[]," * 3_000_000 + b"[]]}"),
    "objects": header(b'{"a":[' + b"{}," * 3_000_000 + b"{}]}"),
    "numbers": header(b'{"a":[' + b"999," * 2_400_000 + b"9]}"),
    "texts": header(b'{"a":[' + b'"ab",' * 1_900_000 + b'""]}'),
    "depth": header(b'{"a":' * 1_900_000),
    "keys": header(b"{" + b",".join(b'"%d":{}' % number for number in range(700_000)) + b"}"),
    "one text": header(b'{"__metadata__":{"a":"' + b"[," * 4_000_000 + b'"}'),
    "one number": header(b'{"a":' + b"9" * 9_000_000 + b"}"),
}
PICKLES = {
    "dicts": b"}" * (8 * _MIB - 10),
    "marks": b"(" * (8 * _MIB - 10),
    "tuples": b")" * 10_000 + b"\x85" * 1_750_000,
    "kept dicts": b"".join(b"}r" + struct.pack("<I", number) for number in range(1_000_000)),
    "kept numbers": b"".join(b"K\0r" + struct.pack("<I", number) for number in range(1_000_000)),
    "lists in themselves": b"]q\0h\0a" * 1_000_000,
    "one list of itself": b"]q\0" + b"(" + b"h\0" * 10_000 + b"e" + b"(h\0h\0e" * 150_000,
    "texts": b"X\1\0\0\0a" * 1_000_000,
    "long numbers": (b"\x8a\xff" + b"\x7f" * 255) * 30_000,
}


def peak_bytes(read: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(Rejected):
            read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", HEADERS)
def test_a_header_is_refused_before_much_is_built_of_it(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(HEADERS[kind])
    with path.open("rb") as file:
        peak = peak_bytes(lambda: read_header(file.fileno(), path.stat().st_size))
    assert peak < 100 * _MIB


@pytest.mark.parametrize("kind", PICKLES)
def test_a_pickle_is_refused_before_much_is_built_of_it(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(archive_of(b"\x80\x02" + PICKLES[kind] + b"."))
    with path.open("rb") as file:
        peak = peak_bytes(lambda: read_archive(file.fileno(), path.stat().st_size))
    assert peak < 64 * _MIB


@pytest.mark.parametrize("filler", [b"[],", b"{},", b"999,", b'"ab",'])
def test_a_configuration_is_small_however_it_is_filled(filler: bytes) -> None:
    text = b'{"r": 0, "x": [' + filler * (1_000_000 // len(filler)) + b"0]}"
    assert peak_bytes(lambda: parse_config(text)) < 50 * _MIB


def test_a_directory_is_bounded_by_the_record_that_is_used(tmp_path: Path) -> None:
    """The locator names a second end record that claims little, the one before it claims gigabytes."""
    size = 1 << 30
    end_64 = struct.Struct("<4sQ2H2L4Q")
    small = end_64.pack(b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, 60, 0)
    at = size - end_64.size - 20 - 22
    large = end_64.pack(b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, at, 0)
    for claimed in (0, at):
        path = tmp_path / str(claimed)
        with path.open("wb") as file:
            file.write(small)
            os.truncate(file.fileno(), at)
            file.seek(at)
            file.write(large + struct.pack("<4sLQL", b"PK\6\7", 0, claimed, 1))
            file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, min(at, 0xFFFFFFFF), 0, 0))
        with path.open("rb") as file:
            descriptor = file.fileno()
            assert peak_bytes(lambda fd=descriptor: read_archive(fd, size)) < _MIB  # type: ignore[misc]
