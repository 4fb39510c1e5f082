"""A random model and adapters of a realistic weight: 16 layers of 1024, 37 MB an adapter of rank 64."""

from pathlib import Path

import torch

from testkit.tiny_model import build_tiny_model, write_tiny_adapter

_HIDDEN = 1024
_INTERMEDIATE = 2304
_LAYERS = 16
_RANK = 64
_SHAPES = {
    **{f"self_attn.{name}": (_HIDDEN, _HIDDEN) for name in ("q_proj", "k_proj", "v_proj", "o_proj")},
    **{f"mlp.{name}": (_INTERMEDIATE, _HIDDEN) for name in ("gate_proj", "up_proj")},
    "mlp.down_proj": (_HIDDEN, _INTERMEDIATE),
}


def build_model(directory: Path) -> Path:
    """Write the model, with the tests' tokenizer, into `directory`, and return it."""
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415 - seconds, and needed once

    build_tiny_model(directory)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=_HIDDEN,
        intermediate_size=_INTERMEDIATE,
        num_hidden_layers=_LAYERS,
        num_attention_heads=16,
        num_key_value_heads=16,
        max_position_embeddings=4096,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(directory)
    return directory


def write_adapter(directory: Path, *, seed: int, **config: object) -> Path:
    """Write an adapter for all linear layers into `directory`, and return it; `config` as PEFT has it."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(_LAYERS):
        for module, (rows, columns) in _SHAPES.items():
            for side, shape in (("A", (_RANK, columns)), ("B", (rows, _RANK))):
                name = f"base_model.model.model.layers.{layer}.{module}.lora_{side}.weight"
                tensors[name] = (torch.randn(shape, generator=generator) * 0.01).to(torch.bfloat16)
    modules = [module.rpartition(".")[2] for module in _SHAPES]
    return write_tiny_adapter(
        directory, seed=seed, rank=_RANK, tensors=tensors, target_modules=modules, **config
    )
