"""Would this adapter work on this base model and this server?

Pure: what is known of the adapter, the base model and the server goes in, a reason or None comes out.
vLLM itself half-loads adapters whose ranks disagree; not-finite weights poison its cache for all requests.

What cannot be known, because the base model's checkpoint is not on this machine, is admitted; the caller
says so. Here are the server's limits and the values of the weights; not here: whether they are an adapter's
at all (`catalog.lora`), the comparison with the base model (`base_fit`), reading the files (`weights`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loradrop.catalog.lora.config import LoraConfig
from loradrop.catalog.lora.faults import Rejected
from loradrop.catalog.lora.tensors import Pair, Tensor, is_expert, lora_pairs, ranks_disagree
from loradrop.worker.admission.base_fit import BaseModel, find_misfit
from loradrop.worker.admission.scaling import Scaling, scalings

_MAX_DELTA = 1e6
"""Largest change of a base weight that is plausible; beyond it activations overflow and turn into NaN."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server was started with. `largest_value` is the serving type's largest finite number."""

    max_lora_rank: int
    largest_value: float


@dataclass(frozen=True, slots=True)
class Weights:
    """An adapter's tensors, and the largest magnitude in each by name: NaN or infinite where any value is."""

    tensors: Sequence[Tensor]
    largest: Mapping[str, float]


def check_adapter(config: LoraConfig, weights: Weights, base: BaseModel | None, limits: Limits) -> None:
    """Return where the adapter would work; raises Rejected. `base` is None where it is not known."""
    if config.max_rank > limits.max_lora_rank:
        raise Rejected(
            "rank_too_high",
            f"The adapter's rank {config.max_rank} is above this server's --max-lora-rank"
            f" {limits.max_lora_rank}. Start the server with a higher one, or train with a lower rank.",
        )
    pairs = lora_pairs(weights.tensors, config)
    _check_finite(weights)
    for module, scaling in scalings(config, pairs).items():
        _check_rank(module, pairs[module], scaling.rank)
        _check_values(module, pairs[module], scaling, weights.largest, limits)
    if not any(weights.largest[pair.a.name] and weights.largest[pair.b.name] for pair in pairs.values()):
        raise Rejected(
            "changes_nothing",
            "Every product of lora_A and lora_B is zero, so the adapter would answer like the base model. "
            "Save it after training, in a floating-point type.",
        )
    misfit = find_misfit(config, pairs, base) if base is not None else None
    if misfit is not None:
        raise Rejected(misfit.code, misfit.message)


def _check_finite(weights: Weights) -> None:
    for name, largest in weights.largest.items():
        if not math.isfinite(largest):
            raise Rejected(
                "weights_not_finite", f"{name[:120]} holds NaN or infinite values: the training run diverged."
            )


def _check_rank(module: str, pair: Pair, rank: int) -> None:
    if is_expert(module):
        return
    for tensor, found in ((pair.a, pair.a.shape[0]), (pair.b, pair.b.shape[1])):
        if found != rank:
            raise ranks_disagree(tensor, found, [rank])


def _check_values(
    module: str, pair: Pair, scaling: Scaling, largest: Mapping[str, float], limits: Limits
) -> None:
    a, b = largest[pair.a.name], largest[pair.b.name]
    if max(a, b) > limits.largest_value:
        raise Rejected(
            "weights_overflow",
            f"{module[:120]} holds {max(a, b):.3g}, which the serving type cannot hold "
            f"(at most {limits.largest_value:.3g}).",
        )
    delta = abs(scaling.factor) * scaling.rank * a * b
    if not delta <= _MAX_DELTA:
        raise Rejected(
            "weights_overflow",
            f"{module[:120]} would change base weights by up to {delta:.3g}: answers would turn into NaN.",
        )
