"""The rank and the factor PEFT and vLLM use for each module, by the configuration's patterns.

vLLM runs these patterns itself, on the engine's thread, with no bound. So they are run here first, with the
same library and a deadline that all of them share: what takes too long never reaches the engine.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import regex

from loradrop.catalog.lora.config import LoraConfig
from loradrop.catalog.lora.faults import Rejected
from loradrop.catalog.lora.patterns import is_regex, pattern_invalid, suffixes

_MAX_MATCHING_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Scaling:
    """How one module's weights are applied: the rank they have, and what their product is multiplied with."""

    rank: int
    factor: float


def scalings(config: LoraConfig, modules: Iterable[str]) -> dict[str, Scaling]:
    """Return the scaling of each of `modules`; raises Rejected where a pattern cannot be used."""
    deadline = time.monotonic() + _MAX_MATCHING_SECONDS
    ranks = _Matcher("rank_pattern", config.rank_pattern, deadline)
    alphas = _Matcher("alpha_pattern", config.alpha_pattern, deadline)
    found = {}
    for module in modules:
        rank = int(ranks.find(module, config.rank))
        found[module] = Scaling(rank, config.scaling(rank, alphas.find(module, config.alpha)))
    return found


class _Matcher:
    """One of the two patterns. As in PEFT, the first entry that means a module wins."""

    def __init__(self, field: str, pattern: Mapping[str, float], deadline: float) -> None:
        self._field = field
        self._pattern = pattern
        self._deadline = deadline
        self._order = {key: number for number, key in enumerate(pattern)}
        self._compiled = [(key, self._compile(key)) for key in pattern if is_regex(key)]

    def find(self, module: str, default: float) -> float:
        """Return what the pattern says of `module`."""
        found = [suffix for suffix in suffixes(module) if suffix in self._order] if self._order else []
        first = min(found, key=self._order.__getitem__, default=None)
        for key, compiled in self._compiled:
            if first is not None and self._order[first] < self._order[key]:
                break
            if self._matches(compiled, key, module):
                first = key
                break
        return default if first is None else self._pattern[first]

    def _compile(self, key: str) -> regex.Pattern[str]:
        try:
            return regex.compile(rf"(.*\.)?({key})$")
        except (regex.error, RecursionError, OverflowError) as error:
            raise self._unusable(key, f"is not a regular expression ({error})") from error

    def _matches(self, compiled: regex.Pattern[str], key: str, module: str) -> bool:
        left = max(self._deadline - time.monotonic(), 0.0)
        try:
            return compiled.match(module, timeout=left, concurrent=True) is not None
        except TimeoutError as error:
            raise self._unusable(key, "takes too long to match") from error

    def _unusable(self, key: str, why: str) -> Rejected:
        return pattern_invalid(
            self._field,
            f"{key[:60]!r} in {self._field} of adapter_config.json {why}. Name the modules instead.",
        )
