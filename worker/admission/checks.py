"""Would this adapter work on this base model and this server?

Pure: what is known of the adapter, the base model and the server goes in, a reason or None comes out.
vLLM itself half-loads or silently ignores much of what is refused here (tensors of a smaller model,
layers that do not exist, ranks that disagree), and not-finite weights poison its cache for everybody.

What cannot be known, because the base model's checkpoint is not on this machine, is admitted; the caller
says so. Here are the server's limits and the weights themselves; not here: the comparison with the base
model (`base_fit`), reading the files (`weights`, `base_model`).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from loradrop.catalog.adapter import Reason
from loradrop.worker.admission.base_fit import BaseModel, find_misfit
from loradrop.worker.admission.lora import LoraConfig, Pair, Tensor, has_suffix, is_expert

_WEIGHT = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+)\.(?:lora_(?P<ab>[AB])\.weight|lora_embedding_(?P<eab>[AB]))"
)
_FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
_MAX_DELTA = 1e6
"""Largest change of a base weight that is plausible; beyond it activations overflow and turn into NaN."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server was started with. `largest_value` is the serving type's largest finite number."""

    max_lora_rank: int
    largest_value: float


def find_fault(
    config: LoraConfig, tensors: Mapping[str, Tensor], base: BaseModel | None, limits: Limits
) -> Reason | None:
    """Return why the adapter would not work, or None. `base` is None where it is not known."""
    if fault := _rank_fault(config, limits):
        return fault
    pairs, fault = _pair_up(config, tensors)
    if fault:
        return fault
    checks = (
        (_pair_fault(config, module, pair) or _value_fault(config, limits, module, pair))
        for module, pair in pairs.items()
    )
    if fault := next(filter(None, checks), None):
        return fault
    if not any(pair.a and pair.b and pair.a.largest and pair.b.largest for pair in pairs.values()):
        return Reason(
            "changes_nothing",
            "Every product of lora_A and lora_B is zero, so the adapter would answer like the base model. "
            "Save it after training, in a floating-point type.",
        )
    return find_misfit(config, pairs, base) if base is not None else None


def _rank_fault(config: LoraConfig, limits: Limits) -> Reason | None:
    highest = max([config.rank, *config.rank_pattern.values()])
    if highest > limits.max_lora_rank:
        return Reason(
            "rank_too_high",
            f"The adapter's rank {highest} is above this server's --max-lora-rank {limits.max_lora_rank}. "
            "Start the server with a higher one, or train with a lower rank.",
        )
    return None


def _pair_up(config: LoraConfig, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Pair], Reason | None]:
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _WEIGHT.fullmatch(name)
        if match is None:
            if fault := _extra_fault(config, name, tensor):
                return {}, fault
            continue
        if tensor.dtype not in _FLOATS:
            return {}, Reason(
                "dtype_unsupported",
                f"The tensor {name} is of type {tensor.dtype}, which would be rounded when served. "
                "Save the adapter as float32, float16 or bfloat16.",
            )
        halves.setdefault(match["module"], {})[match["ab"] or match["eab"]] = tensor
    return {module: Pair(half.get("A"), half.get("B")) for module, half in halves.items()}, None


def _extra_fault(config: LoraConfig, name: str, tensor: Tensor) -> Reason | None:
    """Return why a tensor that is no LoRA weight may not be there, or None where vLLM knows it."""
    if name.endswith((".embed_tokens.base_layer.weight", ".lm_head.base_layer.weight")):
        return None  # never loaded
    if not has_suffix(name.rpartition(".")[0], config.full_modules):
        return Reason(
            "not_lora_weights",
            f"The tensor {name} is no LoRA weight vLLM knows. Save the adapter alone, with PEFT.",
        )
    return None if math.isfinite(tensor.largest) else _not_finite(name)


def _pair_fault(config: LoraConfig, module: str, pair: Pair) -> Reason | None:
    if pair.a is None or pair.b is None:
        missing = "lora_A" if pair.a is None else "lora_B"
        return Reason("weights_incomplete", f"{module} has no {missing}. Save the adapter again.")
    if is_expert(module):
        return None
    if len(pair.a.shape) != 2 or len(pair.b.shape) != 2:  # noqa: PLR2004 - a matrix
        return Reason("shape_unsupported", f"{module} has LoRA weights that are not matrices.")
    rank = config.rank_of(module)
    if pair.a.shape[0] != rank or pair.b.shape[1] != rank:
        return Reason(
            "rank_disagrees",
            f"{module} has weights of rank {pair.a.shape[0]} and {pair.b.shape[1]}, the configuration says "
            f"{rank}. The configuration and the weights are not of the same training run.",
        )
    return None


def _value_fault(config: LoraConfig, limits: Limits, module: str, pair: Pair) -> Reason | None:
    assert pair.a is not None
    assert pair.b is not None  # _pair_fault comes first
    for tensor in (pair.a, pair.b):
        if not math.isfinite(tensor.largest):
            return _not_finite(module)
        if tensor.largest > limits.largest_value:
            return Reason(
                "weights_overflow",
                f"{module} holds {tensor.largest:.3g}, which the serving type cannot hold "
                f"(at most {limits.largest_value:.3g}).",
            )
    scaling = config.scaling_of(module)
    if not math.isfinite(scaling):
        return Reason("alpha_not_finite", f"lora_alpha gives {module} the factor {scaling}.")
    largest_delta = abs(scaling) * config.rank_of(module) * pair.a.largest * pair.b.largest
    if largest_delta > _MAX_DELTA:
        return Reason(
            "weights_overflow",
            f"{module} would change base weights by up to {largest_delta:.3g}: answers would turn into NaN.",
        )
    return None


def _not_finite(name: str) -> Reason:
    return Reason("weights_not_finite", f"{name} holds NaN or infinite values: the training run diverged.")
