"""What is read of an adapter's files: every type, every bad value, and nothing is ever run."""

import json
import math
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from loradrop.catalog.lora.faults import Rejected
from loradrop.worker.admission.weights import read_adapter
from testkit.adapters import CONFIG

NAME = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


Measured = tuple[str, tuple[int, ...], float]


def saved(directory: Path, tensor: torch.Tensor) -> Path:
    save_file({NAME: tensor}, str(directory / "adapter_model.safetensors"))
    return directory


def pickled(directory: Path, content: Any) -> Path:
    torch.save(content, directory / "adapter_model.bin")
    return directory


def configured(directory: Path) -> Path:
    (directory / "adapter_config.json").write_text(json.dumps(CONFIG))
    return directory


def measured(directory: Path) -> dict[str, Measured]:
    """Return type, shape and largest magnitude of each tensor."""
    _, weights = read_adapter(configured(directory))
    return {
        tensor.name: (tensor.dtype, tensor.shape, weights.largest[tensor.name]) for tensor in weights.tensors
    }


def largest(directory: Path) -> float:
    return measured(directory)[NAME][2]


def code_of(directory: Path) -> str:
    with pytest.raises(Rejected) as caught:
        read_adapter(configured(directory))
    return caught.value.reason.code


# The weights.


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (torch.float64, "F64"),
        (torch.float32, "F32"),
        (torch.float16, "F16"),
        (torch.bfloat16, "BF16"),
        (torch.float8_e4m3fn, "F8_E4M3"),
        (torch.float8_e5m2, "F8_E5M2"),
    ],
)
def test_every_floating_type_is_measured(tmp_path: Path, dtype: torch.dtype, name: str) -> None:
    tensor = torch.full((4, 8), 0.5)
    tensor[1, 3] = -2.0
    assert measured(saved(tmp_path, tensor.to(dtype))) == {NAME: (name, (4, 8), 2.0)}


def test_whole_numbers_are_named_for_what_they_are(tmp_path: Path) -> None:
    assert measured(saved(tmp_path, torch.ones(4, 8, dtype=torch.int8))) == {NAME: ("I8", (4, 8), 0.0)}


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2]
)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_value_that_is_not_finite_is_seen(tmp_path: Path, dtype: torch.dtype, bad: float) -> None:
    tensor = torch.zeros(64, 64)
    tensor[40, 3] = bad
    found = largest(saved(tmp_path, tensor.to(dtype)))
    assert not math.isfinite(found)
    assert math.isnan(found) == math.isnan(bad)


def test_nan_beside_infinity_is_not_finite(tmp_path: Path) -> None:
    assert not math.isfinite(largest(saved(tmp_path, torch.tensor([[math.inf, math.nan, -math.inf]]))))


def test_an_empty_tensor_changes_nothing(tmp_path: Path) -> None:
    assert measured(saved(tmp_path, torch.zeros(0, 8))) == {NAME: ("F32", (0, 8), 0.0)}


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "weights_truncated"),
        (b"not safetensors at all", "header_too_large"),
        ((2**40).to_bytes(8, "little") + b"{}", "header_too_large"),
        ((4).to_bytes(8, "little") + b"    ", "header_invalid"),
        ((2).to_bytes(8, "little") + b"{}" + b"left over", "weights_oversized"),
    ],
)
def test_what_is_no_safetensors_file_is_rejected(tmp_path: Path, content: bytes, code: str) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(content)
    assert code_of(tmp_path) == code


def test_truncated_safetensors_are_rejected_in_a_copy_that_no_writer_completes(tmp_path: Path) -> None:
    path = saved(tmp_path, torch.ones(64, 64)) / "adapter_model.safetensors"
    os.truncate(path, path.stat().st_size - 1)
    assert code_of(tmp_path) == "weights_truncated"


def test_a_copy_without_a_configuration_is_rejected(tmp_path: Path) -> None:
    saved(tmp_path, torch.ones(4, 4))
    with pytest.raises(Rejected, match="config_missing"):
        read_adapter(tmp_path)


# Pickles.


def test_tensors_in_a_pickle_are_measured(tmp_path: Path) -> None:
    tensors = {NAME: torch.full((4, 8), -3.0), "b": torch.ones(8, 4, dtype=torch.bfloat16)}
    assert measured(pickled(tmp_path, tensors)) == {NAME: ("F32", (4, 8), 3.0), "b": ("BF16", (8, 4), 1.0)}


def test_a_transposed_view_in_a_pickle_is_measured(tmp_path: Path) -> None:
    tensor = torch.arange(32.0).reshape(8, 4).T
    assert measured(pickled(tmp_path, {NAME: tensor})) == {NAME: ("F32", (4, 8), 31.0)}


def test_a_pickle_may_be_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="pickle_not_allowed"):
        read_adapter(configured(pickled(tmp_path, {NAME: torch.ones(2, 2)})), allow_pickle=False)


class _Malice:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_what_a_pickle_would_run_is_not_run(tmp_path: Path) -> None:
    proof = tmp_path / "it_ran"
    (tmp_path / "adapter_model.bin").write_bytes(pickle.dumps({NAME: _Malice(proof)}))
    assert code_of(tmp_path) == "pickle_legacy"
    assert code_of(pickled(tmp_path, {NAME: _Malice(proof)})) == "pickle_unsafe"
    assert not proof.exists()


@pytest.mark.parametrize(
    "content",
    [[torch.ones(2)], {"a": 1}, {"a": {"b": torch.ones(2)}}, torch.ones(2)],
    ids=["list", "number", "nested", "tensor"],
)
def test_a_pickle_that_is_no_table_of_tensors_is_rejected(tmp_path: Path, content: Any) -> None:
    assert code_of(pickled(tmp_path, content)) == "pickle_invalid"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "weights_truncated"),
        (b"garbage", "pickle_legacy"),
        (b"PK\x03\x04 half a zip", "weights_truncated"),
    ],
)
def test_a_damaged_pickle_is_rejected(tmp_path: Path, content: bytes, code: str) -> None:
    (tmp_path / "adapter_model.bin").write_bytes(content)
    assert code_of(tmp_path) == code


def test_a_tensor_that_claims_more_values_than_the_file_holds_is_rejected(tmp_path: Path) -> None:
    expanded = torch.ones(1, 1).expand(1 << 20, 1 << 20)
    assert code_of(pickled(tmp_path, {NAME: expanded})) == "pickle_invalid"


@pytest.mark.parametrize(
    "tensor", [torch.ones(4, 4).to_sparse(), torch.ones(4, 4, device="meta")], ids=["sparse", "without data"]
)
def test_tensors_that_are_no_plain_numbers_are_rejected(tmp_path: Path, tensor: torch.Tensor) -> None:
    assert code_of(pickled(tmp_path, {NAME: tensor})) == "pickle_unsafe"
