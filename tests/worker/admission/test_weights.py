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

from loradrop.worker.admission.weights import read_config, read_tensors
from loradrop.worker.outcomes import Rejected
from testkit.adapters import CONFIG

NAME = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def written(directory: Path, config: Any) -> Path:
    (directory / "adapter_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return directory


def saved(directory: Path, tensor: torch.Tensor) -> Path:
    save_file({NAME: tensor}, str(directory / "adapter_model.safetensors"))
    return directory


def code_of(read: Any, directory: Path) -> str:
    with pytest.raises(Rejected) as caught:
        read(directory)
    return caught.value.reason.code


# The configuration.


def test_a_configuration_is_read(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, CONFIG))
    assert (config.rank, config.alpha, config.target_modules) == (4, 8.0, ("q_proj", "v_proj"))
    assert not (config.rslora or config.layers_chosen or config.full_modules or config.exclude_modules)


def test_patterns_and_chosen_layers_are_read(tmp_path: Path) -> None:
    extra = {
        "use_rslora": True,
        "rank_pattern": {"q_proj": 2},
        "alpha_pattern": {"v_proj": 4},
        "layers_to_transform": [0, 1],
        "exclude_modules": "o_proj",
        "modules_to_save": ["score"],
    }
    config = read_config(written(tmp_path, CONFIG | extra))
    assert config.rslora
    assert config.layers_chosen
    assert (config.rank_pattern, config.alpha_pattern) == ({"q_proj": 2}, {"v_proj": 4.0})
    assert (config.exclude_modules, config.full_modules) == (("o_proj",), ("score",))


@pytest.mark.parametrize("pattern", ["all-linear", r".*\.(q|v)_proj", "^model.*proj$"])
def test_target_modules_may_be_a_pattern(tmp_path: Path, pattern: str) -> None:
    config = read_config(written(tmp_path, CONFIG | {"target_modules": pattern}))
    assert config.target_modules == ()
    assert config.layers_chosen


def test_nulls_mean_not_given(tmp_path: Path) -> None:
    nulls = dict.fromkeys(
        [
            "target_modules",
            "rank_pattern",
            "alpha_pattern",
            "layers_to_transform",
            "exclude_modules",
            "modules_to_save",
        ]
    )
    config = read_config(written(tmp_path, CONFIG | nulls))
    assert (config.target_modules, config.layers_chosen) == ((), False)


@pytest.mark.parametrize(
    "config",
    [
        "not json",
        "",
        "[]",
        "{}",
        "null",
        "[" * 100_000,
        "\xff",
        CONFIG | {"r": "8"},
        CONFIG | {"r": 0},
        CONFIG | {"r": -1},
        CONFIG | {"r": True},
        CONFIG | {"r": None},
        CONFIG | {"lora_alpha": None},
        CONFIG | {"lora_alpha": "16"},
        CONFIG | {"lora_alpha": math.nan},
        CONFIG | {"lora_alpha": math.inf},
        CONFIG | {"lora_alpha": 10**400},
        CONFIG | {"rank_pattern": {"q_proj": 0}},
        CONFIG | {"rank_pattern": ["q_proj"]},
        CONFIG | {"alpha_pattern": {"q_proj": None}},
        CONFIG | {"target_modules": 7},
        CONFIG | {"modules_to_save": 7},
        {key: value for key, value in CONFIG.items() if key != "r"},
        {key: value for key, value in CONFIG.items() if key != "lora_alpha"},
    ],
    ids=lambda config: (config if isinstance(config, str) else json.dumps(config))[:40],
)
def test_what_is_no_lora_configuration_is_rejected(tmp_path: Path, config: Any) -> None:
    assert code_of(read_config, written(tmp_path, config)) == "config_invalid"


def test_bytes_that_are_no_text_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_bytes(b"\xff\xfe{}")
    assert code_of(read_config, tmp_path) == "config_invalid"


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(.*)*x", "(a|aa)+", "((.+){2,}){3,}", ".*.*.*.*.*.*.*x", "q" * 5000]
)
@pytest.mark.parametrize("field", ["rank_pattern", "alpha_pattern"])
def test_a_pattern_that_could_match_for_ever_is_never_run(tmp_path: Path, field: str, pattern: str) -> None:
    assert code_of(read_config, written(tmp_path, CONFIG | {field: {pattern: 4}})) == "config_invalid"


@pytest.mark.parametrize(
    "pattern",
    [
        "q_proj",
        "model.layers.0.self_attn.q_proj",
        r"^model\.layers\.[0-9]+\.self_attn\.(q|k)_proj",
        r".*\.layers\.\d+\..*_proj",
        "layers.(?:0|1|2).mlp",
    ],
)
def test_patterns_as_people_write_them_are_read(tmp_path: Path, pattern: str) -> None:
    assert read_config(written(tmp_path, CONFIG | {"rank_pattern": {pattern: 4}})).rank_pattern == {
        pattern: 4
    }


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
    (found,) = read_tensors(saved(tmp_path, tensor.to(dtype))).values()
    assert (found.dtype, found.shape, found.largest) == (name, (4, 8), 2.0)


def test_whole_numbers_are_named_for_what_they_are(tmp_path: Path) -> None:
    (found,) = read_tensors(saved(tmp_path, torch.ones(4, 8, dtype=torch.int8))).values()
    assert (found.dtype, found.largest) == ("int8", 0.0)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2]
)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_value_that_is_not_finite_is_seen(tmp_path: Path, dtype: torch.dtype, bad: float) -> None:
    tensor = torch.zeros(64, 64)
    tensor[40, 3] = bad
    (found,) = read_tensors(saved(tmp_path, tensor.to(dtype))).values()
    assert not math.isfinite(found.largest)
    assert math.isnan(found.largest) == math.isnan(bad)


def test_nan_beside_infinity_is_not_finite(tmp_path: Path) -> None:
    (found,) = read_tensors(saved(tmp_path, torch.tensor([[math.inf, math.nan, -math.inf]]))).values()
    assert not math.isfinite(found.largest)


def test_an_empty_tensor_changes_nothing(tmp_path: Path) -> None:
    (found,) = read_tensors(saved(tmp_path, torch.zeros(0, 8))).values()
    assert (found.shape, found.largest) == ((0, 8), 0.0)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not safetensors at all",
        (2**40).to_bytes(8, "little") + b"{}",
        (4).to_bytes(8, "little") + b"    ",
        (2).to_bytes(8, "little") + b"{}" + b"left over",
    ],
)
def test_what_is_no_safetensors_file_is_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(content)
    assert code_of(read_tensors, tmp_path) == "weights_invalid"


def test_truncated_safetensors_are_rejected(tmp_path: Path) -> None:
    path = saved(tmp_path, torch.ones(64, 64)) / "adapter_model.safetensors"
    os.truncate(path, path.stat().st_size - 1)
    assert code_of(read_tensors, tmp_path) == "weights_invalid"


# Pickles.


def pickled(directory: Path, content: Any) -> Path:
    torch.save(content, directory / "adapter_model.bin")
    return directory


def test_tensors_in_a_pickle_are_measured(tmp_path: Path) -> None:
    tensors = {NAME: torch.full((4, 8), -3.0), "b": torch.ones(8, 4, dtype=torch.bfloat16)}
    found = read_tensors(pickled(tmp_path, tensors))
    assert {name: (t.dtype, t.shape, t.largest) for name, t in found.items()} == {
        NAME: ("F32", (4, 8), 3.0),
        "b": ("BF16", (8, 4), 1.0),
    }


class _Malice:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_what_a_pickle_would_run_is_not_run(tmp_path: Path) -> None:
    proof = tmp_path / "it_ran"
    (tmp_path / "adapter_model.bin").write_bytes(pickle.dumps({NAME: _Malice(proof)}))
    assert code_of(read_tensors, tmp_path) == "weights_invalid"
    pickled(tmp_path, {NAME: _Malice(proof)})
    assert code_of(read_tensors, tmp_path) == "weights_invalid"
    assert not proof.exists()


@pytest.mark.parametrize(
    "content",
    [[torch.ones(2)], {"a": 1}, {"a": {"b": torch.ones(2)}}, torch.ones(2)],
    ids=["list", "number", "nested", "tensor"],
)
def test_a_pickle_that_is_no_table_of_tensors_is_rejected(tmp_path: Path, content: Any) -> None:
    assert code_of(read_tensors, pickled(tmp_path, content)) == "weights_invalid"


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 half a zip"])
def test_a_damaged_pickle_is_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "adapter_model.bin").write_bytes(content)
    assert code_of(read_tensors, tmp_path) == "weights_invalid"


def test_a_tensor_that_claims_more_values_than_the_file_holds_is_rejected(tmp_path: Path) -> None:
    assert code_of(read_tensors, pickled(tmp_path, {NAME: torch.ones(1, 1).expand(1 << 20, 1 << 20)})) == (
        "weights_invalid"
    )


@pytest.mark.parametrize(
    "tensor", [torch.ones(4, 4).to_sparse(), torch.ones(4, 4, device="meta")], ids=["sparse", "without data"]
)
def test_tensors_that_are_no_plain_numbers_are_rejected(tmp_path: Path, tensor: torch.Tensor) -> None:
    assert code_of(read_tensors, pickled(tmp_path, {NAME: tensor})) == "weights_invalid"
