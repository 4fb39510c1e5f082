"""What the tensors of an adapter must be, judged by their names, types and shapes alone.

vLLM takes a tensor's name for the truth: `<module>.lora_A.weight` and `.lora_B.weight` in pairs, or the
embedding form. Anything else it refuses, and some of it (1-D tensors, integers) it takes and then serves
wrong answers. Where the configuration says another rank or other modules, the two files are not one
adapter: half of an update.

Pure. Not here: whether the tensors fit the base model (`worker.admission`), and their values.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from loradrop.catalog.lora.config import PeftConfig
from loradrop.catalog.lora.faults import Rejected

FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
"""The types weights may have, in safetensors' words. vLLM rounds whole numbers to nothing."""

_IGNORED_BY_VLLM = (".embed_tokens.base_layer.weight", ".lm_head.base_layer.weight")
_PEFT_PREFIX = "base_model.model."
_REGEX_SIGNS = frozenset("\\^$*+?()[]{}|")
_MATRIX = 2


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as its file declares it."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Part:
    module: str
    side: Literal["A", "B", "head"]


def check_tensors(tensors: Iterable[Tensor], config: PeftConfig) -> None:
    """Return where `tensors` are one LoRA adapter of `config`; raises Rejected."""
    sides: dict[str, set[str]] = {}
    for tensor in tensors:
        if tensor.name.endswith(_IGNORED_BY_VLLM):
            continue
        part = _part(tensor.name, config)
        _check_dtype(tensor)
        if part.side == "head":
            continue
        _check_shape(tensor, part, config)
        sides.setdefault(part.module, set()).add(part.side)
    if not sides:
        raise Rejected("no_tensors", "The weights hold no LoRA tensors. Save the adapter again with PEFT.")
    _check_pairs(sides)
    _check_targets(sides, config)


def _part(name: str, config: PeftConfig) -> _Part:
    parts = name.removeprefix(_PEFT_PREFIX).split(".")
    match parts:
        case [*module, ("lora_A" | "lora_B") as side, "weight"] if module:
            return _Part(".".join(module), "A" if side == "lora_A" else "B")
        case [*module, ("lora_embedding_A" | "lora_embedding_B") as side] if module:
            return _Part(".".join(module), "A" if side == "lora_embedding_A" else "B")
        case [*_, head, "weight" | "bias"] if head in config.modules_to_save:
            return _Part(head, "head")
    raise Rejected(
        "tensor_unsupported",
        f"The tensor {name[:120]!r} is not a LoRA weight vLLM can serve. Save only the adapter, with PEFT.",
    )


def _check_dtype(tensor: Tensor) -> None:
    if tensor.dtype not in FLOATS:
        raise Rejected(
            "dtype_unsupported",
            f"The tensor {tensor.name[:120]!r} is of type {tensor.dtype}; weights must be one of"
            f" {', '.join(sorted(FLOATS))}. Save it in bf16 or f16.",
        )


def _check_shape(tensor: Tensor, part: _Part, config: PeftConfig) -> None:
    experts = ".experts" in f".{part.module}"  # stacked: as many times the rank as there are experts
    if 0 in tensor.shape or not (
        len(tensor.shape) == _MATRIX or (experts and len(tensor.shape) == _MATRIX + 1)
    ):
        raise Rejected(
            "shape_unsupported",
            f"The tensor {tensor.name[:120]!r} has the shape {list(tensor.shape)[:8]}; LoRA weights are"
            " matrices. Save only the adapter, with PEFT.",
        )
    if experts:
        return
    rank = tensor.shape[0] if part.side == "A" else tensor.shape[1]
    allowed = _ranks(part.module, config)
    if rank not in allowed:
        raise Rejected(
            "config_weights_disagree",
            f"The tensor {tensor.name[:120]!r} has rank {rank}, and adapter_config.json says"
            f" {' or '.join(map(str, sorted(allowed)))}. The files are of two adapters: copy both again.",
        )


def _ranks(module: str, config: PeftConfig) -> set[int]:
    if not config.rank_pattern:
        return {config.r}
    if any(_REGEX_SIGNS.intersection(key) for key in config.rank_pattern):
        # A pattern from a stranger is never run: some would run for ever. Any rank it could give is allowed.
        return {config.r, *config.rank_pattern.values()}
    for key, rank in config.rank_pattern.items():
        if module == key or module.endswith(f".{key}"):
            return {rank}
    return {config.r}


def _check_pairs(sides: Mapping[str, set[str]]) -> None:
    for module, found in sides.items():
        if len(found) != len("AB"):
            here = next(iter(found))
            gone = "B" if here == "A" else "A"
            raise Rejected(
                f"lora_{gone.lower()}_missing",
                f"The module {module[:120]!r} has lora_{here} and no lora_{gone}. Save the adapter again,"
                " with PEFT.",
            )


def _check_targets(sides: Mapping[str, set[str]], config: PeftConfig) -> None:
    targets = config.target_modules
    if targets is None or "all-linear" in targets or any(_REGEX_SIGNS.intersection(key) for key in targets):
        return
    for module in sides:
        if not _is_target(module, targets):
            raise Rejected(
                "config_weights_disagree",
                f"The weights hold {module[:120]!r}, which is not in target_modules of adapter_config.json."
                " The files are of two adapters: copy both again.",
            )


def _is_target(module: str, targets: frozenset[str]) -> bool:
    # PEFT's own rule: the whole name, or what follows one of its dots.
    at = -1
    while True:
        if module[at + 1 :] in targets:
            return True
        at = module.find(".", at + 1)
        if at < 0:
            return False
