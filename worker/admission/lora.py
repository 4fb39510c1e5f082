"""An adapter as admission sees it: what its configuration says, and its tensors in pairs.

Pure. Not here: reading them from files (`weights`), and whether they would do (`admission`, `base_fit`).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field


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
class Pair:
    """The two halves of what an adapter adds to one module, each None where it is missing."""

    a: Tensor | None
    b: Tensor | None


def is_expert(module: str) -> bool:
    """Whether `module` is a mixture's expert, whose weights checkpoints fuse in many ways."""
    return ".experts" in module


def has_suffix(name: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a module's name ends with one of `suffixes`, whole parts of names."""
    return any(name == suffix or name.endswith(f".{suffix}") for suffix in suffixes)


def _matches(pattern: str, module: str) -> bool:
    try:
        return re.fullmatch(rf"(?:.*\.)?(?:{pattern})", module) is not None
    except re.error:
        return False
