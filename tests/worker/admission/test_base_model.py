"""What a base model's own checkpoint says of its weights, and when it says too little."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from loradrop.worker.admission.base_fit import BaseModel
from loradrop.worker.admission.base_model import read_base_model

LLAMA = {"num_hidden_layers": 2}


def checkpoint(directory: Path, config: dict[str, Any], *shards: dict[str, torch.Tensor]) -> Path:
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))
    for number, shard in enumerate(shards):
        save_file(shard, str(directory / f"model-{number:05}.safetensors"))
    return directory


def linear(*names: str) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": torch.zeros(6, 4, dtype=torch.bfloat16) for name in names}


def read(directory: Path | None) -> BaseModel | None:
    return read_base_model(directory, renamed=False)


def test_matrices_of_all_shards_are_known_by_their_module(tmp_path: Path) -> None:
    norm = {
        "model.norm.weight": torch.zeros(4),
        "model.q.bias": torch.zeros(2, 2),
        "experts": torch.zeros(2, 3, 4),
    }
    base = read(checkpoint(tmp_path / "m", LLAMA, linear("model.a") | norm, linear("model.b")))
    assert base == BaseModel({"model.a": (6, 4), "model.b": (6, 4)}, 2)


@pytest.mark.parametrize(
    "config", [{"n_layer": 2}, {"num_layers": 2}, {"text_config": {"num_hidden_layers": 2}}]
)
def test_the_number_of_layers_has_many_names(tmp_path: Path, config: dict[str, Any]) -> None:
    base = read(checkpoint(tmp_path / "m", config, linear("a")))
    assert base is not None
    assert base.layers == 2


def test_without_a_number_of_layers_there_is_none(tmp_path: Path) -> None:
    base = read(checkpoint(tmp_path / "m", {"num_hidden_layers": "2"}, linear("a")))
    assert base is not None
    assert base.layers is None


def test_a_head_that_shares_the_embeddings_weights_is_known_too(tmp_path: Path) -> None:
    base = read(checkpoint(tmp_path / "m", LLAMA, linear("model.embed_tokens", "model.layers.0.q_proj")))
    assert base is not None
    assert base.shapes["lm_head"] == (6, 4)


def test_a_renamed_model_says_so(tmp_path: Path) -> None:
    base = read_base_model(checkpoint(tmp_path / "m", LLAMA, linear("a")), renamed=True)
    assert base is not None
    assert base.renamed


@pytest.mark.parametrize(
    "config",
    [
        {"quantization_config": {"quant_method": "awq"}},
        {"text_config": {"quantization_config": {"quant_method": "fp8"}}},
    ],
)
def test_a_quantized_model_is_not_known(
    tmp_path: Path, config: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert read(checkpoint(tmp_path / "m", config, linear("a"))) is None
    assert "without comparing" in caplog.text


def test_a_model_without_safetensors_is_not_known(tmp_path: Path) -> None:
    directory = checkpoint(tmp_path / "m", LLAMA)
    torch.save(linear("a"), directory / "pytorch_model.bin")
    assert read(directory) is None


def test_a_model_that_cannot_be_read_is_not_known(tmp_path: Path) -> None:
    assert read(None) is None
    assert read(tmp_path / "nowhere") is None
    damaged = checkpoint(tmp_path / "damaged", LLAMA)
    (damaged / "model.safetensors").write_bytes(b"half")
    assert read(damaged) is None
    (damaged / "config.json").write_text("{")
    assert read(damaged) is None
    (damaged / "config.json").write_text("[]")
    assert read(damaged) is None
