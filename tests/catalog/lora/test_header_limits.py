"""A safetensors header at each limit is read, and one beyond it is refused with the reason."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from loradrop.catalog.lora.faults import Incomplete, Rejected
from loradrop.catalog.lora.safetensors_header import read_header
from loradrop.catalog.lora.tensors import Tensor

EMPTY = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}


def read(tmp_path: Path, text: bytes, size: int = 0) -> list[Tensor]:
    """Read a file with this header and `size` bytes behind it."""
    path = tmp_path / "adapter_model.safetensors"
    content = struct.pack("<Q", len(text)) + text + bytes(size)
    path.write_bytes(content)
    with path.open("rb") as file:
        return read_header(file.fileno(), len(content))


def refusal(tmp_path: Path, text: bytes, size: int = 0) -> str:
    with pytest.raises((Rejected, Incomplete)) as caught:
        read(tmp_path, text, size)
    return str(caught.value.reason)


def with_one(**entry: Any) -> bytes:
    return json.dumps({"a": EMPTY | entry}).encode()


def test_a_header_has_at_most_ten_million_bytes(tmp_path: Path) -> None:
    assert read(tmp_path, b"{}".ljust(10_000_000)) == []
    assert "header_too_large" in refusal(tmp_path, b"{}".ljust(10_000_001))


def test_a_tensor_has_at_most_8_dimensions(tmp_path: Path) -> None:
    assert [tensor.shape for tensor in read(tmp_path, with_one(shape=[0] * 8))] == [(0,) * 8]
    assert "impossible" in refusal(tmp_path, with_one(shape=[0] * 9))


def test_a_tensor_may_be_a_single_number(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}).encode()
    assert read(tmp_path, header, 4) == [Tensor("a", "F32", ())]


@pytest.mark.parametrize(
    "entry",
    [
        {"shape": [-1]},
        {"shape": [1.5]},
        {"shape": ["1"]},
        {"shape": [True]},
        {"shape": [1 << 63, 0]},
        {"shape": 1},
        {"shape": None},
        {"data_offsets": [0]},
        {"data_offsets": [0, 0, 0]},
        {"data_offsets": [1, 0]},
        {"data_offsets": {"begin": 0, "end": 0}},
        {"dtype": "F31"},
        {"dtype": 7},
        {"more": 1},
        {"shape": [2]},
    ],
    ids=str,
)
def test_a_tensor_that_is_not_described_as_the_format_says_is_refused(
    tmp_path: Path, entry: dict[str, Any]
) -> None:
    assert read(tmp_path, with_one())
    assert "header_invalid" in refusal(tmp_path, with_one(**entry))


@pytest.mark.parametrize("missing", ["dtype", "shape", "data_offsets"])
def test_a_tensor_that_is_not_described_in_full_is_refused(tmp_path: Path, missing: str) -> None:
    entry = {key: value for key, value in EMPTY.items() if key != missing}
    assert "does not say" in refusal(tmp_path, json.dumps({"a": entry}).encode())


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b" {}",
        b"{",
        b'{"__metadata__": 7}',
        b'{"__metadata__": {"a": 7}}',
        b'{"__metadata__": {"a": "\\ud800"}}',
        b'{"__metadata__": {"\\ud800": "a"}}',
        b'{"__metadata__": {}, "__metadata__": {}}',
        b'{"\\ud800": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}',
        b'{"a": {"dtype": "U8", "shape": [-0], "data_offsets": [0, 0]}}',
        b'{"a": {"dtype": "U8", "shape": [0.0], "data_offsets": [0, 0]}}',
        b'{"a": {"dtype": "U8", "shape": [0], "data_offsets": [0, NaN]}}',
        b'{"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}',
    ],
    ids=repr,
)
def test_what_is_no_header_is_refused(tmp_path: Path, text: bytes) -> None:
    assert "header_invalid" in refusal(tmp_path, text)


def test_a_minus_in_a_name_is_no_negative_number(tmp_path: Path) -> None:
    names = ["layer-0", "layer\\-0"]
    assert [
        tensor.name for tensor in read(tmp_path, json.dumps(dict.fromkeys(names, EMPTY)).encode())
    ] == names


@pytest.mark.parametrize(
    ("spans", "why"),
    [
        ([(0, 4), (2, 6)], "overlap' at byte 2"),
        ([(0, 2), (4, 6)], "leave a hole at byte 2"),
        ([(2, 6)], "byte 0"),
    ],
)
def test_tensors_neither_overlap_nor_leave_a_hole(
    tmp_path: Path, spans: list[tuple[int, int]], why: str
) -> None:
    header = {
        str(number): {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
        for number, (begin, end) in enumerate(spans)
    }
    assert why.replace("'", "") in refusal(tmp_path, json.dumps(header).encode(), 6)


@pytest.mark.parametrize(("size", "code"), [(3, "weights_truncated"), (4, None), (5, "weights_oversized")])
def test_a_file_has_exactly_the_bytes_its_header_declares(
    tmp_path: Path, size: int, code: str | None
) -> None:
    header = with_one(shape=[4], data_offsets=[0, 4])
    if code is None:
        assert read(tmp_path, header, size) == [Tensor("a", "U8", (4,))]
    else:
        assert code in refusal(tmp_path, header, size)


@pytest.mark.parametrize(
    ("count", "why"), [(999_998, "does not say"), (999_999, "holds more values than 100000 tensors need")]
)
def test_a_header_holds_at_most_a_million_lists_objects_and_commas(
    tmp_path: Path, count: int, why: str
) -> None:
    assert why in refusal(tmp_path, b'{"a":[' + b"0," * count + b"0]}")


def test_a_header_declares_at_most_100_000_tensors(tmp_path: Path) -> None:
    def header(count: int) -> bytes:
        return json.dumps({str(number): EMPTY for number in range(count)}).encode()

    assert len(read(tmp_path, header(100_000))) == 100_000
    assert "declares 100001 tensors" in refusal(tmp_path, header(100_001))
