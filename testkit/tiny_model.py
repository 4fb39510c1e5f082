"""A base model small enough for tests: a random two-layer Llama with a byte-level tokenizer, 1.7 MB.

Its answers make no sense and are always the same, and every adapter of `write_tiny_adapter` changes them
in its own way; that is all that tests of serving need.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

HIDDEN = 128
LAYERS = 2
VOCABULARY = 512
PROJECTIONS = {"q_proj": HIDDEN, "k_proj": HIDDEN, "v_proj": HIDDEN, "o_proj": HIDDEN}
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"


def build_tiny_model(directory: Path) -> Path:
    """Write the model and its tokenizer into `directory`, and return it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=alphabet, special_tokens=["<s>", "</s>"], show_progress=False
    )
    tokenizer.train_from_iterator(["hello world, the quick brown fox jumps over the lazy dog"] * 8, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(directory)

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).to(torch.float32).save_pretrained(directory)
    return directory


def tiny_adapter_tensors(*, seed: int, rank: int = 4, scale: float = 0.3) -> dict[str, torch.Tensor]:
    """Return LoRA weights for every projection of every layer, random but the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(LAYERS):
        for module, width in PROJECTIONS.items():
            stem = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{stem}.lora_A.weight"] = torch.randn(rank, HIDDEN, generator=generator) * scale
            tensors[f"{stem}.lora_B.weight"] = torch.randn(width, rank, generator=generator) * scale
    return tensors


def write_tiny_adapter(
    directory: Path,
    *,
    seed: int,
    rank: int = 4,
    tensors: dict[str, torch.Tensor] | None = None,
    **config: object,
) -> Path:
    """Write an adapter for the tiny model into `directory`, and return it."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file(
        tensors or tiny_adapter_tensors(seed=seed, rank=rank), str(directory / "adapter_model.safetensors")
    )
    text = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "tiny",
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(PROJECTIONS),
    }
    (directory / "adapter_config.json").write_text(json.dumps(text | config))
    return directory
