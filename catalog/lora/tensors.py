"""What the tensors of an adapter must be, judged by their names, types and shapes alone.

vLLM takes a tensor's name for the truth: `<module>.lora_A.weight` and `.lora_B.weight` in pairs, or the
embedding form. Anything else it refuses, and some of it (1-D tensors, integers) it takes and then serves
wrong answers. Where the configuration says another rank or other modules, the two files are not one
adapter: half of an update.

Pure. Not here: whether the tensors fit the base model (`worker.admission`), and their values.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from loradrop.catalog.lora.config import LoraConfig
from loradrop.catalog.lora.faults import Rejected
from loradrop.catalog.lora.patterns import PossibleValues, has_suffix, is_regex

_FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
"""The types weights may have, in safetensors' words. vLLM rounds whole numbers to nothing."""

_IGNORED_BY_VLLM = (".embed_tokens.base_layer.weight", ".lm_head.base_layer.weight")
_PEFT_PREFIX = "base_model.model."
_MATRIX = 2
_MAX_NAME_LENGTH = 512
"""Real names have less than 200 characters; longer ones would cost time wherever they are compared."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as its file declares it."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """The two halves of what an adapter adds to one module."""

    a: Tensor
    b: Tensor


@dataclass(frozen=True, slots=True)
class _Part:
    module: str
    side: Literal["A", "B", "head"]


def lora_pairs(tensors: Iterable[Tensor], config: LoraConfig) -> dict[str, Pair]:
    """Return the pairs of one LoRA adapter of `config` by module; raises Rejected where it is none."""
    sides: dict[str, dict[str, Tensor]] = {}
    ranks = PossibleValues(config.rank_pattern, default=config.rank)
    for tensor in tensors:
        if tensor.name.endswith(_IGNORED_BY_VLLM):
            continue
        part = _part(tensor.name, config)
        _check_dtype(tensor)
        if part.side == "head":
            continue
        _check_shape(tensor, part, ranks)
        sides.setdefault(part.module, {})[part.side] = tensor
    if not sides:
        raise Rejected("no_tensors", "The weights hold no LoRA tensors. Save the adapter again with PEFT.")
    pairs = {module: _pair(module, found) for module, found in sides.items()}
    _check_targets(pairs, config)
    return pairs


def is_expert(module: str) -> bool:
    """Return whether `module` is a mixture's expert, whose weights are fused in many ways."""
    return ".experts" in f".{module}"


def _part(name: str, config: LoraConfig) -> _Part:
    parts = name.removeprefix(_PEFT_PREFIX).split(".") if len(name) <= _MAX_NAME_LENGTH else []
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
    if tensor.dtype not in _FLOATS:
        raise Rejected(
            "dtype_unsupported",
            f"The tensor {tensor.name[:120]!r} is of type {tensor.dtype}; weights must be one of"
            f" {', '.join(sorted(_FLOATS))}. Save it in bf16 or f16.",
        )


def _check_shape(tensor: Tensor, part: _Part, ranks: PossibleValues) -> None:
    experts = is_expert(part.module)  # stacked: as many times the rank as there are experts
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
    allowed = ranks.of(part.module)
    if rank not in allowed:
        raise ranks_disagree(tensor, rank, allowed)


def ranks_disagree(tensor: Tensor, rank: int, allowed: Iterable[int]) -> Rejected:
    """Return the fault of a `tensor` whose `rank` is none of those the configuration allows."""
    return Rejected(
        "config_weights_disagree",
        f"The tensor {tensor.name[:120]!r} has rank {rank}, and adapter_config.json says"
        f" {' or '.join(map(str, sorted(allowed)[:3]))}. The files are of two adapters: copy both again.",
    )


def _pair(module: str, found: dict[str, Tensor]) -> Pair:
    if len(found) == len("AB"):
        return Pair(found["A"], found["B"])
    here = next(iter(found))
    gone = "B" if here == "A" else "A"
    raise Rejected(
        "lora_a_missing" if gone == "A" else "lora_b_missing",
        f"The module {module[:120]!r} has lora_{here} and no lora_{gone}. Save the adapter again, with PEFT.",
    )


def _check_targets(modules: Iterable[str], config: LoraConfig) -> None:
    targets = config.target_modules
    if targets is None or config.has_target_parameters or "all-linear" in targets:
        return
    if any(map(is_regex, targets)):
        return
    for module in modules:
        if not has_suffix(module, targets):
            raise Rejected(
                "config_weights_disagree",
                f"The weights hold {module[:120]!r}, which is not in target_modules of adapter_config.json."
                " The files are of two adapters: copy both again.",
            )
