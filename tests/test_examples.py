"""The adapters in examples/: small, whole, and all for the demo model."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open

EXAMPLES = Path(__file__).parents[1] / "examples"
ADAPTERS = sorted(path.name for path in (EXAMPLES / "adapters").iterdir())
TWO_MEGABYTES = 2_000_000


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_example_adapter_is_two_small_files(name: str) -> None:
    files = {path.name: path.stat().st_size for path in (EXAMPLES / "adapters" / name).iterdir()}
    assert files.keys() == {"adapter_config.json", "adapter_model.safetensors"}
    assert sum(files.values()) < TWO_MEGABYTES


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_example_adapter_is_of_rank_8_in_bfloat16_for_the_demo_model(name: str) -> None:
    folder = EXAMPLES / "adapters" / name
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert config["r"] == 8
    with safe_open(folder / "adapter_model.safetensors", framework="np") as weights:
        slices = {tensor: weights.get_slice(tensor) for tensor in weights.keys()}  # noqa: SIM118  # no mapping
    assert {tensor.get_dtype() for tensor in slices.values()} == {"BF16"}
    assert {tensor.get_shape()[0] for name, tensor in slices.items() if "lora_A" in name} == {8}


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_example_adapter_comes_with_the_pairs_it_learned(name: str) -> None:
    for line in (EXAMPLES / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        assert json.loads(line).keys() == {"question", "answer"}
