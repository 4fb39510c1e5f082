"""A `.bin` is proven whole and harmless, and nothing in it is executed."""

import io
import json
import os
import pickle
import struct
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loradrop.catalog.adapter import AdapterState, WeightsFormat
from loradrop.catalog.lora.faults import Incomplete, Rejected
from loradrop.catalog.lora.pickle_archive import check_sums, read_archive
from loradrop.catalog.lora.pickle_opcodes import read_state_dict
from loradrop.catalog.lora.pickle_values import Unsafe
from loradrop.watcher.validation.inspection import Inspection, inspect_adapter
from testkit.adapters import CONFIG

torch = pytest.importorskip("torch")

A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
B = A.replace("lora_A", "lora_B")


def state_dict(dtype: Any = None, rank: int = 4) -> dict[str, Any]:
    dtype = dtype or torch.float32
    return {A: torch.ones(rank, 8).to(dtype), B: torch.ones(8, rank).to(dtype)}


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def adapter(directory: Path, content: bytes) -> Path:
    directory.mkdir()
    (directory / "adapter_config.json").write_text(json.dumps(CONFIG | {"target_modules": ["q_proj"]}))
    (directory / "adapter_model.bin").write_bytes(content)
    return directory


def inspected(tmp_path: Path, content: bytes, **options: Any) -> Inspection:
    return inspect_adapter(adapter(tmp_path / "bin", content), **options)


def code(found: Inspection) -> str:
    assert found.reason is not None
    return found.reason.code


def with_program(program: bytes, *, name: str = "archive/data.pkl", **extra: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, program)
        archive.writestr("archive/version", b"3\n")
        for key, data in extra.items():
            archive.writestr(f"archive/data/{key}", data)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["float64", "float32", "float16", "bfloat16"])
def test_what_torch_saves_is_accepted(name: str, tmp_path: Path) -> None:
    found = inspected(tmp_path, saved(state_dict(getattr(torch, name))), with_revision=True)
    assert found.state is AdapterState.READY, found.reason
    assert found.facts is not None
    assert found.facts.format is WeightsFormat.PICKLE
    assert found.revision is not None


def test_parameters_and_ordered_dicts_with_metadata_are_accepted(tmp_path: Path) -> None:
    module = torch.nn.Module()
    for name, tensor in state_dict().items():
        module.register_parameter(name.replace(".", "_"), torch.nn.Parameter(tensor))
    content = type(module.state_dict())(
        (name, torch.nn.Parameter(tensor)) for name, tensor in state_dict().items()
    )
    content._metadata = {"": {"version": 1}}
    assert inspected(tmp_path, saved(content)).state is AdapterState.READY


def test_a_bin_is_judged_like_safetensors(tmp_path: Path) -> None:
    assert code(inspected(tmp_path, saved(state_dict(rank=2)))) == "config_weights_disagree"


def test_whole_numbers_are_rejected(tmp_path: Path) -> None:
    assert code(inspected(tmp_path, saved(state_dict(torch.int8)))) == "dtype_unsupported"


def test_a_bin_can_be_forbidden(tmp_path: Path) -> None:
    assert code(inspected(tmp_path, saved(state_dict()), allow_pickle=False)) == "pickle_not_allowed"


def test_a_bin_without_its_end_is_incomplete(tmp_path: Path) -> None:
    whole = saved(state_dict())
    for length in (4, 100, len(whole) // 2, len(whole) - 1):
        directory = tmp_path / str(length)
        found = inspect_adapter(adapter(directory, whole[:length]))
        assert (found.state, code(found)) == (AdapterState.INCOMPLETE, "weights_truncated")


def test_a_flipped_bit_in_the_weights_breaks_the_checksum(tmp_path: Path) -> None:
    content = bytearray(saved(state_dict()))
    at = bytes(content).index(struct.pack("<f", 1.0) * 4)
    content[at] ^= 1
    directory = adapter(tmp_path / "bin", bytes(content))
    assert inspect_adapter(directory).state is AdapterState.READY  # not read yet
    assert code(inspect_adapter(directory, with_revision=True)) == "pickle_invalid"


class Call:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    "function", [os.system, eval, print, torch.load], ids=lambda function: function.__name__
)
def test_a_pickle_that_calls_anything_is_rejected_unrun(function: Any, protocol: int, tmp_path: Path) -> None:
    proof = tmp_path / "was-run"
    program = pickle.dumps(Call(function, f"touch {proof}"), protocol=protocol)
    assert code(inspected(tmp_path, with_program(program))) == "pickle_unsafe"
    assert not proof.exists()


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (b"", "pickle_invalid"),
        (b"\x80\x02.", "pickle_invalid"),  # stops with nothing on the stack
        (b"\x80\x02]q\x00.", "pickle_invalid"),  # a list
        (b"\x80\x02K\x01.", "pickle_invalid"),  # a number
        (b"\x80\x02h\x09.", "pickle_invalid"),  # a memo that was never put
        (b"\x80\x02}K\x01K\x02s.", "pickle_unsafe"),  # a key that is not text
        (b"\x80\x02}(K\x01u.", "pickle_unsafe"),  # an odd number of items
        (b"\x80\x02]K\x01K\x02s.", "pickle_unsafe"),  # items set on a list
        (b"\x80\x02}K\x01a.", "pickle_unsafe"),  # an element appended to a dict
        (b"\x80\x02}K\x01Q.", "pickle_invalid"),  # a persistent id that is not a storage
        (b"\x80\x02ccollections\nOrderedDict\nK\x01R.", "pickle_unsafe"),  # made of something
        (b"\x80\x02}X\x01\x00\x00\x00aK\x01s.", "pickle_invalid"),  # a value that is not a tensor
        (b"\x80\x02X\xff\xff\xff\x7f.", "pickle_invalid"),  # text longer than the file
        (b"\x80\x02cos\nsystem\n.", "pickle_unsafe"),
        (b"\x80\x02(lp0\n.", "pickle_unsafe"),  # an opcode torch never writes
    ],
)
def test_damaged_and_strange_programs_are_rejected(program: bytes, expected: str, tmp_path: Path) -> None:
    assert code(inspected(tmp_path, with_program(program))) == expected


def test_a_storage_of_another_size_than_its_record_is_rejected(tmp_path: Path) -> None:
    program = _program()
    assert code(inspected(tmp_path, with_program(program))) == "pickle_invalid"
    (tmp_path / "second").mkdir()
    long_enough = b"\0" * 128
    longer = with_program(program, **{"0": long_enough, "1": long_enough + b"\0"})
    assert code(inspected(tmp_path / "second", longer)) == "pickle_invalid"
    (tmp_path / "third").mkdir()
    found = inspected(tmp_path / "third", with_program(program, **{"0": long_enough, "1": long_enough}))
    assert found.state is AdapterState.READY


def test_zips_of_something_else_are_rejected(tmp_path: Path) -> None:
    for number, content in enumerate(
        [with_program(b"\x80\x02}.", name="readme.txt"), _compressed(), _twice(), _claiming_many_records()]
    ):
        assert code(inspect_adapter(adapter(tmp_path / str(number), content))) == "pickle_invalid"


def _compressed() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
    return buffer.getvalue()


def _twice() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("archive/data.pkl", b"\x80\x02}.")
    return buffer.getvalue()


def _claiming_many_records() -> bytes:
    content = bytearray(with_program(b"\x80\x02}."))
    content[-10:-6] = struct.pack("<L", 1 << 30)  # the directory's size
    return bytes(content)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 2000), value=st.integers(0, 255))
def test_no_damage_raises_anything_else(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    content = bytearray(saved(state_dict()))
    content[position % len(content)] = value
    path = tmp_path_factory.getbasetemp() / "damaged.bin"
    path.write_bytes(content)
    with path.open("rb") as file:
        try:
            read_archive(file.fileno(), len(content))
            check_sums(file.fileno(), len(content))
        except (Incomplete, Rejected):
            return


# Python says so of damaged text in a pickle; no user sees it.
@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
@settings(max_examples=500)
@given(edits=st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 255)), min_size=1, max_size=3))
def test_no_program_raises_anything_but_a_verdict(edits: list[tuple[int, int]]) -> None:
    program = bytearray(_program())
    for position, value in edits:
        program[position % len(program)] = value
    try:
        read_state_dict(bytes(program), {"0": 128, "1": 128})
    except (Unsafe, ValueError):
        return


@cache
def _program() -> bytes:
    with zipfile.ZipFile(io.BytesIO(saved(state_dict()))) as archive:
        return next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
