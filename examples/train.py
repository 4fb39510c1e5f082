"""Train one small LoRA adapter for the demo model: question and answer pairs in, a PEFT folder out.

The pairs in ``examples/data/NAME.jsonl`` are shown to the model as chats; the loss counts the answer's tokens
only, so the adapter learns a way of answering and not the questions. The result is what any PEFT training
leaves behind: ``adapter_config.json`` and ``adapter_model.safetensors`` (bfloat16, rank 8, 1.9 MB), in
``examples/adapters/NAME``.

One adapter takes about two minutes on one CPU core. The folder appears in one rename, so this may write
straight into a served prefix.

    python examples/train.py sql_adapter
    python examples/train.py my_adapter --data my_pairs.jsonl --output demo/loras
"""

import argparse
import json
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

BASE_MODEL_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
EXAMPLES = Path(__file__).parent
EPOCHS = 10
BATCH_SIZE = 4
LEARNING_RATE = 2e-3
IGNORED = -100  # the label that torch's cross entropy leaves out


@dataclass(frozen=True, slots=True)
class Chat:
    """One pair: ``tokens`` of the whole chat, of which the first ``prompt_length`` are not to be learned."""

    tokens: list[int]
    prompt_length: int


def main() -> None:
    """Read the command line, train, save."""
    parser = argparse.ArgumentParser(description="Train one small LoRA adapter for the demo model.")
    parser.add_argument("name", help="name of the adapter")
    parser.add_argument("--data", type=Path, help="pairs to learn (default: examples/data/NAME.jsonl)")
    parser.add_argument("--output", type=Path, default=EXAMPLES / "adapters", help="where its folder goes")
    parser.add_argument("--model", type=Path, default=Path("demo/model"), help="from examples/demo_model.py")
    args = parser.parse_args()

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    chats = read_chats(args.data or EXAMPLES / "data" / f"{args.name}.jsonl", tokenizer)
    adapted = get_peft_model(model, lora_config())
    train(adapted, chats)
    save(adapted, args.output / args.name)


def lora_config() -> LoraConfig:
    """Rank 8 on the attention projections: enough to change a style, small enough to commit."""
    return LoraConfig(
        r=8,
        lora_alpha=16,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
        task_type="CAUSAL_LM",
    )


def read_chats(path: Path, tokenizer: PreTrainedTokenizerBase) -> list[Chat]:
    """Read ``{"question", "answer"}`` lines as chats in the model's own template."""
    chats = []
    for line in path.read_text(encoding="utf-8").splitlines():
        pair = json.loads(line)
        question = [{"role": "user", "content": pair["question"]}]
        prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
        prompt_tokens = tokenizer(prompt)["input_ids"]
        answer_tokens = tokenizer(pair["answer"])["input_ids"]
        chats.append(Chat([*prompt_tokens, *answer_tokens, tokenizer.eos_token_id], len(prompt_tokens)))
    return chats


def train(model: PeftModel, chats: list[Chat]) -> None:
    """Fit the adapter to ``chats`` at a linearly falling learning rate, printing the loss of every epoch."""
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=LEARNING_RATE)
    steps = EPOCHS * -(-len(chats) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=steps)
    model.train()
    for epoch in range(1, EPOCHS + 1):
        losses = []
        for batch in shuffled_batches(chats, seed=epoch):
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        print(f"epoch {epoch}/{EPOCHS} loss {sum(losses) / len(losses):.4f}", flush=True)


def shuffled_batches(chats: list[Chat], *, seed: int) -> Iterator[dict[str, torch.Tensor]]:
    """Yield every chat once, ``BATCH_SIZE`` at a time, as padded tensors of shape (batch, longest chat)."""
    order = random.Random(seed).sample(chats, len(chats))
    for start in range(0, len(order), BATCH_SIZE):
        batch = order[start : start + BATCH_SIZE]
        shape = (len(batch), max(len(chat.tokens) for chat in batch))
        tokens = torch.zeros(shape, dtype=torch.long)
        mask = torch.zeros(shape, dtype=torch.long)
        labels = torch.full(shape, IGNORED)
        for row, chat in enumerate(batch):
            length = len(chat.tokens)
            tokens[row, :length] = torch.tensor(chat.tokens)
            mask[row, :length] = 1
            labels[row, chat.prompt_length : length] = tokens[row, chat.prompt_length : length]
        yield {"input_ids": tokens, "attention_mask": mask, "labels": labels}


def save(model: PeftModel, target: Path) -> None:
    """Write the adapter to ``target``, which must not exist, in one rename."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch_name:
        folder = Path(scratch_name) / target.name
        model.peft_config["default"].base_model_name_or_path = BASE_MODEL_NAME
        model.save_pretrained(folder, save_embedding_layers=False)
        (folder / "README.md").unlink()
        weights = folder / "adapter_model.safetensors"
        tensors = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(weights).items()}
        save_file(tensors, weights, metadata={"format": "pt"})
        weights.chmod(0o644)  # safetensors makes it private, but a watcher and its workers may be other users
        folder.rename(target)
    print(f"saved {target}", flush=True)


if __name__ == "__main__":
    main()
