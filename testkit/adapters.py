"""Adapter directories: real PEFT files, small enough to write thousands of them."""

import json
import struct
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "tiny-llama",
    "r": 4,
    "lora_alpha": 8,
    "lora_dropout": 0.0,
    "bias": "none",
    "target_modules": ["q_proj", "v_proj"],
    "inference_mode": True,
}


def safetensors_bytes(tensors: dict[str, tuple[str, list[int], bytes]]) -> bytes:
    """Return a safetensors file of name -> (dtype, shape, data)."""
    header: dict[str, Any] = {}
    offset = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values())


def lora_weights(*, rank: int = 4, hidden: int = 8, layers: int = 1, seed: int = 1) -> bytes:
    """Return float32 weights for `q_proj` and `v_proj` of each layer, every value `seed / 256`."""
    one = struct.pack("<f", seed / 256)
    tensors = {}
    for layer in range(layers):
        for module in ("q_proj", "v_proj"):
            stem = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{stem}.lora_A.weight"] = ("F32", [rank, hidden], one * (rank * hidden))
            tensors[f"{stem}.lora_B.weight"] = ("F32", [hidden, rank], one * (rank * hidden))
    return safetensors_bytes(tensors)


def write_adapter(directory: Path, *, seed: int = 1, rank: int = 4, **config: Any) -> Path:
    """Write a complete, valid adapter into `directory`, and return it."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "adapter_config.json").write_text(json.dumps(CONFIG | {"r": rank} | config))
    (directory / "adapter_model.safetensors").write_bytes(lora_weights(rank=rank, seed=seed))
    return directory


def publish_adapter(prefix: Path, name: str, *, seed: int = 1, rank: int = 4, **config: Any) -> Path:
    """Write an adapter aside and rename it into the prefix, as a careful publisher does."""
    aside = write_adapter(prefix.parent / f"{name}.aside", seed=seed, rank=rank, **config)
    return aside.rename(prefix / name)
