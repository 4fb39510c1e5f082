"""A `.bin` at each limit is read, and one beyond it is refused; beside the pickle, only what torch writes."""

import io
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from loradrop.catalog.lora.faults import Incomplete, Rejected
from loradrop.catalog.lora.pickle_archive import check_sums, read_archive
from loradrop.catalog.lora.pickle_opcodes import read_state_dict
from loradrop.catalog.lora.pickle_values import Unsafe
from tests.fuzz.targets import program_of, saved

PROTO, EMPTY, STOP = b"\x80\x02", b"\x80\x02}.", b"."
RECORDS = {"data.pkl": EMPTY, "version": b"3\n"}


def archive(top: str = "archive", **records: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in records.items():
            file.writestr(f"{top}/{name}", content)
    return buffer.getvalue()


def outcome(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "adapter_model.bin"
    path.write_bytes(content)
    with path.open("rb") as file:
        try:
            read_archive(file.fileno(), len(content))
            check_sums(file.fileno(), len(content))
        except (Rejected, Incomplete) as error:
            return error.reason.code
    return "read"


@pytest.mark.parametrize(
    ("record", "good", "bad"),
    [
        ("version", [b"1", b"3\n", b"9", b"10\n"], [b"0", b"11", b"3\n\n", b"", b"03", b"three"]),
        ("byteorder", [b"little"], [b"big", b"", b"littlebig"]),
        (".format_version", [b"1", b"9999"], [b"", b"10000", b"x"]),
        (".storage_alignment", [b"1", b"64", b"999999"], [b"0", b"", b"1000000"]),
        (".data/serialization_id", [b"", b"7" * 1024], [b"7" * 1025, b"x"]),
        ("data/0", [b"", b"any"], []),
        ("data/999999999", [b"any"], []),
        ("data/1000000000", [], [b"any"]),
        ("data/00", [], [b"any"]),
        ("data/x", [], [b"any"]),
        ("constants.pkl", [], [EMPTY]),
        ("note.txt", [], [b"any"]),
    ],
)
def test_beside_the_pickle_there_is_only_what_torch_writes(
    tmp_path: Path, record: str, good: list[bytes], bad: list[bytes]
) -> None:
    for expected, contents in (("read", good), ("pickle_invalid", bad)):
        for content in contents:
            assert outcome(tmp_path, archive(**(RECORDS | {record: content}))) == expected


@pytest.mark.parametrize("missing", RECORDS)
def test_pickle_and_version_are_both_there(tmp_path: Path, missing: str) -> None:
    records = {name: content for name, content in RECORDS.items() if name != missing}
    assert outcome(tmp_path, archive(**records)) == "pickle_invalid"


def test_an_empty_file_is_waited_for(tmp_path: Path) -> None:
    assert outcome(tmp_path, b"") == "weights_truncated"
    assert outcome(tmp_path, b"P") == "pickle_legacy"


def test_records_are_all_in_one_directory_of_any_name(tmp_path: Path) -> None:
    assert outcome(tmp_path, archive("adapter_model", **RECORDS)) == "read"
    two = archive(**RECORDS, **{"data/0": b"any"}).replace(b"archive/data/0", b"brchive/data/0")
    assert outcome(tmp_path, two) == "pickle_invalid"


def test_a_pickle_has_at_most_8_mib(tmp_path: Path) -> None:
    def padded(size: int) -> bytes:
        return EMPTY.ljust(size, b"\0")  # nothing behind STOP is read

    assert outcome(tmp_path, archive(**(RECORDS | {"data.pkl": padded(8 << 20)}))) == "read"
    assert outcome(tmp_path, archive(**(RECORDS | {"data.pkl": padded((8 << 20) + 1)}))) == "pickle_invalid"


def test_a_stack_holds_at_most_16_384_values_and_marks() -> None:
    def program(values: int, marks: int) -> bytes:
        return PROTO + b"(" * marks + b"N" * values + b"t" * marks + b"}" + STOP

    for marks in (1, 2, 100):
        assert read_state_dict(program(16_384 - marks, marks), {}) == []
        with pytest.raises(ValueError, match="memory"):
            read_state_dict(program(16_385 - marks, marks), {})


def test_what_was_taken_since_a_mark_no_longer_counts_for_the_stack() -> None:
    again = b"(" + b"N" * 16_000 + b"t"
    assert read_state_dict(PROTO + again * 10 + b"(" * 300 + b"t" * 300 + b"}" + STOP, {}) == []


def test_a_memo_holds_at_most_300_000_values() -> None:
    def program(count: int) -> bytes:
        return PROTO + b"}" + b"".join(b"r" + struct.pack("<I", number) for number in range(count)) + STOP

    assert read_state_dict(program(300_000), {}) == []
    with pytest.raises(ValueError, match="memory"):
        read_state_dict(program(300_001), {})


@pytest.mark.parametrize("protocol", [0, 1, 3, 4])
def test_another_protocol_is_not_read(protocol: int) -> None:
    assert read_state_dict(EMPTY, {}) == []
    with pytest.raises(Unsafe, match="protocol"):
        read_state_dict(bytes([0x80, protocol]) + EMPTY[2:], {})


@pytest.mark.parametrize("program", [b"c" + b"m" * 80 + b"\nname\n", b"cos\n" + b"m" * 80 + b"\n", b"cos"])
def test_a_name_without_an_end_within_80_bytes_is_not_read(program: bytes) -> None:
    with pytest.raises(Unsafe, match="too long"):
        read_state_dict(PROTO + program + b"}" + STOP, {})


def test_a_tensor_with_hooks_is_not_read_also_where_they_are_set_after_it_was_made() -> None:
    program = program_of(saved({"a": torch.ones(4, 8)}))
    hooks = program.index(b"OrderedDict\n")
    made = program.index(b")R", hooks) + len(b")R")
    memo = program[made : made + 2]
    assert memo[:1] == b"q"
    set_hook = b"X\1\0\0\0hNs"
    for dangerous in (
        program[:made] + set_hook + program[made:],
        program[:-1] + b"h" + memo[1:] + set_hook + STOP,
    ):
        with pytest.raises(Unsafe, match="hooks"):
            read_state_dict(dangerous, {"0": 128})


def test_a_key_without_a_value_is_not_read() -> None:
    with pytest.raises(Unsafe, match="key"):
        read_state_dict(PROTO + b"}(X\1\0\0\0au" + STOP, {})


def test_tensors_that_share_a_storage_share_its_type() -> None:
    whole = torch.arange(32.0)
    program = program_of(saved({"a": whole[:16], "b": whole[16:]}))
    assert [tensor.shape for tensor in read_state_dict(program, {"0": 128})] == [(16,), (16,)]


@pytest.mark.parametrize(
    "program",
    [
        b"}X\1\0\0\0aNs(X\1\0\0\0bNu",
        b"](NNe",
        b"]Na",
        b"\x8a\1\x05",
        b"\x8a\0",
        b"J\1\0\0\0K\1M\1\0\x85\x86",
        b"Nq\0h\0j\0\0\0\0",
        b"NNN\x87",
        b"G" + struct.pack(">d", 0.5),
    ],
    ids=repr,
)
def test_values_that_are_not_used_may_be_of_any_kind_torch_writes(program: bytes) -> None:
    assert read_state_dict(PROTO + program + b"}" + STOP, {}) == []


@pytest.mark.parametrize("program", [b"t", b"u", b"e", b"s", b"a", b"\x85", b"q\0", b"h\0", b"R", b"Q", b"b"])
def test_an_instruction_without_what_it_takes_is_damage(program: bytes) -> None:
    with pytest.raises((ValueError, Unsafe)):
        read_state_dict(PROTO + program + b"}" + STOP, {})


def test_a_pickle_has_at_most_a_million_instructions() -> None:
    most = PROTO + PROTO + b"}" + b"(u" * 499_998 + STOP
    assert read_state_dict(most, {}) == []
    with pytest.raises(ValueError, match="instructions"):
        read_state_dict(PROTO + most, {})


@pytest.mark.parametrize(
    "new", [b"}", b"]", b"ccollections\nOrderedDict\n)R"], ids=["dict", "list", "ordered"]
)
def test_a_pickle_makes_at_most_100_000_containers(new: bytes) -> None:
    def program(count: int) -> bytes:
        batches = [min(10_000, count - at) for at in range(0, count, 10_000)]
        return PROTO + b"".join(b"(" + new * batch + b"t" for batch in batches) + b"}" + STOP

    assert read_state_dict(program(99_999), {}) == []
    with pytest.raises(ValueError, match="memory"):
        read_state_dict(program(100_000), {})
