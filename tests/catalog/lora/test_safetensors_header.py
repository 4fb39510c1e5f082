"""The proof that a safetensors file is whole, held against the reference implementation."""

import json
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from loradrop.catalog.lora.faults import Incomplete, Rejected
from loradrop.catalog.lora.safetensors_header import BITS, read_header
from testkit.adapters import lora_weights, safetensors_bytes

WHOLE = lora_weights(rank=2, hidden=3)


def proves(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            read_header(file.fileno(), path.stat().st_size)
        except (Incomplete, Rejected):
            return False
    return True


def library_accepts(path: Path) -> bool:
    try:
        with safe_open(path, framework="numpy") as file:
            file.keys()
    except SafetensorError:
        return False
    return True


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("proof") / "file.safetensors"


def test_the_tensors_are_told_as_declared(scratch: Path) -> None:
    scratch.write_bytes(WHOLE)
    with scratch.open("rb") as file:
        tensors = read_header(file.fileno(), len(WHOLE))
    assert [(tensor.name.rsplit(".", 2)[-2], tensor.dtype, tensor.shape) for tensor in tensors] == [
        ("lora_A", "F32", (2, 3)),
        ("lora_B", "F32", (3, 2)),
    ] * 2


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_every_truncation_is_incomplete_and_never_rejected(length: int, scratch: Path) -> None:
    scratch.write_bytes(WHOLE[:length])
    with scratch.open("rb") as file, pytest.raises(Incomplete) as caught:
        read_header(file.fileno(), length)
    assert caught.value.reason.code == "weights_truncated"


def test_a_file_that_shrinks_while_it_is_read_is_incomplete(scratch: Path) -> None:
    scratch.write_bytes(WHOLE[:20])
    with scratch.open("rb") as file, pytest.raises(Incomplete):
        read_header(file.fileno(), len(WHOLE))


@pytest.mark.parametrize("dtype", sorted(BITS))
def test_every_type_of_the_format_is_known(dtype: str, scratch: Path) -> None:
    scratch.write_bytes(safetensors_bytes({"x": (dtype, [8], b"\0" * BITS[dtype])}))
    assert proves(scratch)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, len(WHOLE) - 1), value=st.integers(0, 255), cut=st.integers(-20, 20))
def test_what_we_prove_the_library_accepts(scratch: Path, position: int, value: int, cut: int) -> None:
    content = bytearray(WHOLE)
    content[position] = value
    content = content[: len(content) + cut] if cut < 0 else content + b"\0" * cut
    scratch.write_bytes(content)
    assert not proves(scratch) or library_accepts(scratch)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    spans=st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 10)), min_size=1, max_size=4
    ),
    extra=st.integers(-4, 4),
)
def test_the_library_and_we_agree_about_offsets(
    scratch: Path, spans: list[tuple[int, int, int]], extra: int
) -> None:
    header = {
        f"t{number}": {"dtype": "U8", "shape": [size], "data_offsets": [begin, end]}
        for number, (begin, end, size) in enumerate(spans)
    }
    text = json.dumps(header).encode()
    size = max(0, max(end for _, end, _ in spans) + extra)
    scratch.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * size)
    assert proves(scratch) == library_accepts(scratch)
