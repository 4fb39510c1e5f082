"""Would this adapter work on this base model and this server?

Pure: what is known of the adapter, the base model and the server goes in, a reason or None comes out.
vLLM itself half-loads or silently ignores much of what is refused here (tensors of a smaller model,
layers that do not exist, ranks that disagree), and not-finite weights poison its cache for everybody.

What cannot be known, because the base model's checkpoint is not on this machine, is admitted; the caller
says so. Not here: reading the files (`weights`, `base_model`).
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from catalog.adapter import Reason

_WEIGHT = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+)\.(?:lora_(?P<ab>[AB])\.weight|lora_embedding_(?P<eab>[AB]))"
)
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
_MAX_DELTA = 1e6
"""Largest change of a base weight that is plausible; beyond it activations overflow and turn into NaN."""
_NAMED_IN_MESSAGES = 3


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of an adapter: safetensors' name of its type, shape, and its largest magnitude.

    `largest` is NaN or infinite where any value is.
    """

    dtype: str
    shape: tuple[int, ...]
    largest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """What of adapter_config.json decides how the weights are applied."""

    rank: int
    alpha: float
    rslora: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    target_modules: tuple[str, ...] = ()
    """Suffixes of module names; empty where the configuration gives a pattern instead."""
    exclude_modules: tuple[str, ...] = ()
    layers_chosen: bool = False
    """Whether the configuration names single layers, so that the others are rightly missing."""
    full_modules: tuple[str, ...] = ()
    """Modules saved whole (`modules_to_save`)."""

    def rank_of(self, module: str) -> int:
        """Return the rank PEFT uses for `module`."""
        return next((r for pattern, r in self.rank_pattern.items() if _matches(pattern, module)), self.rank)

    def scaling_of(self, module: str) -> float:
        """Return the factor the product of A and B is multiplied with for `module`."""
        found = (a for pattern, a in self.alpha_pattern.items() if _matches(pattern, module))
        alpha, rank = next(found, self.alpha), self.rank_of(module)
        return alpha / math.sqrt(rank) if self.rslora else alpha / rank


@dataclass(frozen=True, slots=True)
class BaseModel:
    """The base model's linear and embedding weights: module name -> (rows, columns).

    `layers` is how many transformer layers are run (a checkpoint may hold more). `renamed` says that
    vLLM renames modules of this model, so that a name that is not found may still be right.
    """

    shapes: Mapping[str, tuple[int, int]]
    layers: int | None = None
    renamed: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server was started with. `largest_value` is the serving type's largest finite number."""

    max_lora_rank: int
    largest_value: float


@dataclass(frozen=True, slots=True)
class _Pair:
    a: Tensor | None
    b: Tensor | None


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
    return _base_fault(config, pairs, base) if base is not None else None


def _rank_fault(config: LoraConfig, limits: Limits) -> Reason | None:
    highest = max([config.rank, *config.rank_pattern.values()])
    if highest > limits.max_lora_rank:
        return Reason(
            "rank_too_high",
            f"The adapter's rank {highest} is above this server's --max-lora-rank {limits.max_lora_rank}. "
            "Start the server with a higher one, or train with a lower rank.",
        )
    return None


def _pair_up(config: LoraConfig, tensors: Mapping[str, Tensor]) -> tuple[dict[str, _Pair], Reason | None]:
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
    return {module: _Pair(half.get("A"), half.get("B")) for module, half in halves.items()}, None


def _extra_fault(config: LoraConfig, name: str, tensor: Tensor) -> Reason | None:
    """Return why a tensor that is no LoRA weight may not be there, or None where vLLM knows it."""
    if name.endswith((".embed_tokens.base_layer.weight", ".lm_head.base_layer.weight")):
        return None  # never loaded
    if not _has_suffix(name.rpartition(".")[0], config.full_modules):
        return Reason(
            "not_lora_weights",
            f"The tensor {name} is no LoRA weight vLLM knows. Save the adapter alone, with PEFT.",
        )
    return None if math.isfinite(tensor.largest) else _not_finite(name)


def _pair_fault(config: LoraConfig, module: str, pair: _Pair) -> Reason | None:
    if pair.a is None or pair.b is None:
        missing = "lora_A" if pair.a is None else "lora_B"
        return Reason("weights_incomplete", f"{module} has no {missing}. Save the adapter again.")
    if _is_expert(module):
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


def _value_fault(config: LoraConfig, limits: Limits, module: str, pair: _Pair) -> Reason | None:
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


def _base_fault(config: LoraConfig, pairs: Mapping[str, _Pair], base: BaseModel) -> Reason | None:
    known = {module: name for module in pairs if (name := _known_as(module, base)) is not None}
    unknown = [module for module in pairs if module not in known and not _is_expert(module)]
    if unknown and not base.renamed:
        return Reason(
            "module_not_in_base_model",
            f"The base model has no {_some(unknown)}. The adapter is for another model, or its names have "
            "another prefix.",
        )
    for module, name in known.items():
        pair, expected = pairs[module], base.shapes[name]
        if pair.a is None or pair.b is None or _is_expert(module):
            continue
        found = (pair.b.shape[0], pair.a.shape[1])
        if found != expected and found != expected[::-1]:  # embeddings and Conv1D are stored transposed
            return Reason(
                "shape_disagrees",
                f"{module} is for weights of {found[0]} x {found[1]}, the base model's are {expected[0]} x "
                f"{expected[1]}. The adapter is for another model.",
            )
    if missing := list(_missing(config, frozenset(known.values()), base)):
        return Reason(
            "layers_missing",
            f"The adapter has no weights for {_some(missing)}, though its target_modules name them. It is "
            "for a smaller model, or was not saved whole. Adapters for chosen layers say so in "
            "layers_to_transform.",
        )
    return None


def _is_expert(module: str) -> bool:
    """Whether `module` is a mixture's expert, whose weights checkpoints fuse in many ways."""
    return ".experts" in module


def _known_as(module: str, base: BaseModel) -> str | None:
    """Return the name under which the checkpoint has `module`, or None.

    A checkpoint saved from the bare model lacks the prefix (`transformer.`, `model.`) its modules have
    in the whole model, where adapters are trained; then all of its names lack it.
    """
    if module in base.shapes:
        return module
    prefix, _, rest = module.partition(".")
    if rest in base.shapes and not any(name.startswith(f"{prefix}.") for name in base.shapes):
        return rest
    return None


def _missing(config: LoraConfig, present: frozenset[str], base: BaseModel) -> Iterator[str]:
    if config.layers_chosen or not config.target_modules or base.renamed:
        return
    for name in base.shapes:
        layer = None if _is_expert(name) else _LAYER.search(name)
        if layer is None or (base.layers is not None and int(layer[1]) >= base.layers):
            continue
        wanted = _has_suffix(name, config.target_modules) and not _has_suffix(name, config.exclude_modules)
        if wanted and name not in present:
            yield name


def _has_suffix(name: str, suffixes: tuple[str, ...]) -> bool:
    return any(name == suffix or name.endswith(f".{suffix}") for suffix in suffixes)


def _matches(pattern: str, module: str) -> bool:
    try:
        return re.fullmatch(rf"(?:.*\.)?(?:{pattern})", module) is not None
    except re.error:
        return False


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMED_IN_MESSAGES])
    return (
        shown if len(names) <= _NAMED_IN_MESSAGES else f"{shown} and {len(names) - _NAMED_IN_MESSAGES} more"
    )
