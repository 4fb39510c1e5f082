"""Whatever is called an adapter, torch, safetensors and json read as the same."""

import json
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from safetensors.torch import save

from loradrop.catalog.lora.pickle_archive import read_archive
from testkit.adapters import CONFIG
from tests.fuzz.mutations import mutated
from tests.fuzz.targets import (
    archive_of,
    check_config,
    check_pickle,
    check_safetensors,
    check_zip,
    program_of,
    saved,
)

A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
B = A.replace("lora_A", "lora_B")


def state_dict(dtype: Any = torch.float32) -> dict[str, torch.Tensor]:
    return {A: torch.ones(4, 8).to(dtype), B: torch.ones(8, 4).to(dtype)}


def module_state() -> dict[str, torch.Tensor]:
    return torch.nn.Linear(4, 8).state_dict()


CONFIGS = [json.dumps(CONFIG | extra).encode() for extra in ({}, {"rank_pattern": {"q": 4}, "x": [[{}]]})]
SAFETENSORS = [
    save(state_dict()),
    save(state_dict(torch.bfloat16), metadata={"format": "pt", "note": '["\U0001f600"]'}),
]
ARCHIVES = [
    saved(state_dict()),
    saved(module_state()),
    saved({A: torch.nn.Parameter(torch.ones(4, 8)), B: torch.ones(4, 8).T}),
    archive_of(program_of(saved(state_dict()))),
]
PROGRAMS = [program_of(archive) for archive in ARCHIVES]

many = settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)


@pytest.mark.parametrize(
    ("check", "originals"),
    [
        (check_config, CONFIGS),
        (check_safetensors, SAFETENSORS),
        (check_zip, ARCHIVES),
        (check_pickle, PROGRAMS[:1]),
    ],
)
def test_what_the_libraries_write_is_read_alike(check: Any, originals: list[bytes]) -> None:
    for original in originals:
        check(original)


@many
@given(mutated(CONFIGS))
def test_a_configuration_is_what_json_reads(data: bytes) -> None:
    check_config(data)


@many
@given(mutated(SAFETENSORS))
def test_safetensors_are_what_the_reference_reads(data: bytes) -> None:
    check_safetensors(data)


@many
@given(mutated(ARCHIVES))
def test_an_archive_is_what_torch_reads(data: bytes) -> None:
    check_zip(data)


@many
@given(mutated(PROGRAMS))
def test_a_pickle_is_what_torch_reads(data: bytes) -> None:
    check_pickle(data)


def test_every_archive_here_is_accepted_before_it_is_damaged(tmp_path: Any) -> None:
    for archive in ARCHIVES:
        path = tmp_path / "adapter_model.bin"
        path.write_bytes(archive)
        with path.open("rb") as file:
            assert len(read_archive(file.fileno(), len(archive))) == 2
