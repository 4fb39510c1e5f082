"""Every bad kind of adapter that kills, poisons or fools a stock vLLM, made for the tiny model."""

import json
import os
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from testkit.tiny_model import LAYERS, tiny_adapter_tensors, write_tiny_adapter

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_SEED = 9
_RANK = 4

Write = Callable[[Path], object]
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Bad:
    """One kind: how to write it, and a part of the reason's code that clients must be shown."""

    name: str
    write: Write
    code: str
    poisonous: bool = False


def owned_file(directory: Path) -> Path:
    """What the malicious pickle would make, if it were run."""
    return directory.parent.parent / "owned"


def write_good_pickle(directory: Path) -> Path:
    """Write a good adapter whose weights are a `.bin` file."""
    write_tiny_adapter(directory, seed=_SEED)
    (directory / WEIGHTS).unlink()
    torch.save(tiny_adapter_tensors(seed=_SEED), directory / "adapter_model.bin")
    return directory


def _adapter(**fields: Any) -> Write:
    return lambda directory: write_tiny_adapter(directory, seed=_SEED, **fields)


def _weights(content: Callable[[bytes], bytes]) -> Write:
    def write(directory: Path) -> None:
        path = write_tiny_adapter(directory, seed=_SEED) / WEIGHTS
        path.write_bytes(content(path.read_bytes()))

    return write


def _config(text: bytes) -> Write:
    return lambda directory: (write_tiny_adapter(directory, seed=_SEED) / CONFIG).write_bytes(text)


def _without(*filenames: str) -> Write:
    def write(directory: Path) -> None:
        for filename in filenames:
            (write_tiny_adapter(directory, seed=_SEED) / filename).unlink()

    return write


def _instead_of(filename: str, make: Callable[[Path], object]) -> Write:
    def write(directory: Path) -> None:
        _without(filename)(directory)
        make(directory / filename)

    return write


def _every(change: Callable[[str, torch.Tensor], torch.Tensor | None], **fields: Any) -> Write:
    """Change every tensor of a good adapter; None leaves it out."""
    changed = {name: change(name, tensor) for name, tensor in tiny_adapter_tensors(seed=_SEED).items()}
    kept = {name: tensor.contiguous() for name, tensor in changed.items() if tensor is not None}
    return lambda directory: write_tiny_adapter(directory, seed=_SEED, tensors=kept, **fields)


def _renamed(change: Callable[[str], str]) -> Write:
    tensors = {change(name): tensor for name, tensor in tiny_adapter_tensors(seed=_SEED).items()}
    return lambda directory: write_tiny_adapter(directory, seed=_SEED, tensors=tensors)


def _with(**tensors: torch.Tensor) -> Write:
    more = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    good = tiny_adapter_tensors(seed=_SEED)
    return lambda directory: write_tiny_adapter(directory, seed=_SEED, tensors=good | more)


def _resized(factor: float) -> Callable[[str, torch.Tensor], torch.Tensor]:
    """Shapes of a model whose hidden size is `factor` times the tiny one's."""

    def change(name: str, tensor: torch.Tensor) -> torch.Tensor:
        size = int(128 * factor)
        return torch.full((_RANK, size) if "lora_A" in name else (size, _RANK), 0.1)

    return change


def _no_tensors(directory: Path) -> None:
    save_file({}, str(write_tiny_adapter(directory, seed=_SEED) / WEIGHTS))


def _malicious_pickle(directory: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {owned_file(directory)}",)

    _without(WEIGHTS)(directory)
    torch.save({"x": Evil()}, directory / "adapter_model.bin", pickle_module=pickle)


def _all_beyond(name: str) -> str:
    return name.replace("layers.", f"layers.{LAYERS + 1}")


_NAN = float("nan")
_BIG = torch.ones(8, 8)

BAD = [
    Bad("truncated", _weights(lambda good: good[:-64]), "truncated"),
    Bad("random-bytes", _weights(lambda _: b"\x93" * 4096), "header_too_large"),
    Bad("header-2-40", _weights(lambda _: struct.pack("<Q", 1 << 40) + b"{" * 99), "header_too_large"),
    Bad("zero-bytes", _weights(lambda _: b""), "truncated"),
    Bad("header-blanks", _weights(lambda _: struct.pack("<Q", 99_000_000) + b" " * 99_000_000), "header"),
    Bad("no-tensors", _no_tensors, "no_tensors"),
    Bad("rank-too-high", _adapter(rank=16), "rank_too_high"),
    Bad("rank-lie-high", _every(lambda _, tensor: tensor, r=8, lora_alpha=16), "disagree"),
    Bad("rank-lie-low", _every(lambda _, tensor: tensor, r=2), "disagree"),
    Bad("bigger-model", _every(_resized(2)), "shape_disagrees"),
    Bad("smaller-model", _every(_resized(0.5)), "shape_disagrees"),
    Bad("one-dimension", _every(lambda _, tensor: tensor.flatten()), "shape_unsupported"),
    Bad("three-dimensions", _every(lambda _, tensor: tensor[None]), "shape_unsupported"),
    Bad("no-b", _every(lambda name, tensor: None if "lora_B" in name else tensor), "lora_b_missing"),
    Bad(
        "one-b-missing",
        _every(lambda name, tensor: None if "layers.1.self_attn.o_proj.lora_B" in name else tensor),
        "lora_b_missing",
    ),
    Bad("other-targets", _adapter(target_modules=["fc1", "fc2"]), "disagree"),
    Bad("other-modules", _renamed(lambda name: name.replace("q_proj", "qq_proj")), "disagree"),
    Bad("odd-names", _renamed(lambda name: f"x.{name}.y"), "tensor_unsupported"),
    Bad("full-model", _with(model__layers__0__mlp__up_proj__weight=_BIG), "tensor_unsupported"),
    Bad("embeddings", _with(base_model__model__model__embed_tokens__weight=_BIG), "tensor_unsupported"),
    Bad("no-config", _without(CONFIG), "config_missing"),
    Bad("no-weights", _without(WEIGHTS), "weights_missing"),
    Bad("empty-directory", Path.mkdir, "directory_empty"),
    Bad("weights-directory", _instead_of(WEIGHTS, Path.mkdir), "not_a_file"),
    Bad("config-pipe", _instead_of(CONFIG, os.mkfifo), "not_a_file"),
    Bad("weights-pipe", _instead_of(WEIGHTS, os.mkfifo), "not_a_file"),
    Bad("dangling-link", lambda path: path.symlink_to("nowhere"), "dangling"),
    Bad("config-not-json", _config(b"{nonsense"), "config_invalid"),
    Bad("config-list", _config(b"[]"), "config_invalid"),
    Bad("config-empty-object", _config(b"{}"), "rank_invalid"),
    Bad("rank-text", _adapter(r="8"), "rank_invalid"),
    Bad("rank-zero", _adapter(r=0), "rank_invalid"),
    Bad("alpha-null", _adapter(lora_alpha=None), "alpha_invalid"),
    Bad("dora", _adapter(use_dora=True), "dora_unsupported"),
    Bad("bias", _adapter(bias="all"), "bias_unsupported"),
    Bad("saved-head", _adapter(modules_to_save=["lm_head"]), "modules_to_save_unsupported"),
    Bad("pissa", _adapter(init_lora_weights="pissa"), "init_unsupported"),
    Bad("prompt-tuning", _adapter(peft_type="PROMPT_TUNING"), "peft_type_unsupported"),
    Bad("malicious-pickle", _malicious_pickle, "pickle"),
    Bad("one-layer", _every(lambda name, tensor: tensor if "layers.0" in name else None), "layers_missing"),
    Bad("all-layers-beyond", _renamed(_all_beyond), "not_in_base_model"),
    Bad(
        "more-layers",
        _with(
            **{
                f"base_model__model__model__layers__{LAYERS}__self_attn__q_proj__lora_{side}__weight": tensor
                for side, tensor in (("A", torch.ones(_RANK, 128)), ("B", torch.ones(128, _RANK)))
            }
        ),
        "not_in_base_model",
    ),
    Bad("integers", _every(lambda _, tensor: tensor.to(torch.int8)), "dtype_unsupported"),
    Bad("all-zero", _every(lambda _, tensor: torch.zeros_like(tensor)), "changes_nothing"),
    Bad("nan", _every(lambda _, tensor: torch.full_like(tensor, _NAN)), "not_finite", poisonous=True),
    Bad("infinite", _every(lambda _, tensor: tensor / 0), "not_finite", poisonous=True),
    Bad("huge", _every(lambda _, tensor: torch.full_like(tensor, 1e18)), "overflow", poisonous=True),
    Bad("alpha-nan", _adapter(lora_alpha=_NAN), "invalid", poisonous=True),
    Bad(
        "alpha-infinite",
        _config(json.dumps({"peft_type": "LORA", "r": _RANK}).encode()[:-1] + b', "lora_alpha": 1e999}'),
        "invalid",
        poisonous=True,
    ),
]


def poison_one_value(directory: Path) -> None:
    """One NaN among thousands of good values: the hardest poison to see."""
    tensors = tiny_adapter_tensors(seed=_SEED)
    next(iter(tensors.values())).view(-1)[77] = _NAN
    write_tiny_adapter(directory, seed=_SEED, tensors=tensors)


BAD.append(Bad("one-nan", poison_one_value, "not_finite", poisonous=True))
