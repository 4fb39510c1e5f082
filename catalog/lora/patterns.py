"""Names of modules as a PEFT configuration gives them: suffixes, or regular expressions.

Pure. A regular expression is never run here: its writer is unknown, and some would run for ever.
"""

from collections.abc import Collection, Mapping

from loradrop.catalog.lora.faults import Rejected

MAX_PATTERNS = 4096
MAX_PATTERN_LENGTH = 256
"""Enough for one entry per module of the largest models, each with the module's whole name."""

_REGEX_SIGNS = frozenset("\\^$*+?()[]{}|")


def is_regex(key: str) -> bool:
    """Return whether `key` is more than a module's name, whose dots PEFT takes as they are meant."""
    return not _REGEX_SIGNS.isdisjoint(key)


def suffixes(module: str) -> list[str]:
    """Return what a configuration may call `module`: the whole name, and what follows each of its dots."""
    parts = module.split(".")
    return [".".join(parts[at:]) for at in range(len(parts))]


def has_suffix(module: str, names: Collection[str]) -> bool:
    """Return whether one of `names` means `module`."""
    return any(suffix in names for suffix in suffixes(module))


class PossibleValues:
    """What a pattern may say of a module: all it could, where it holds regular expressions."""

    def __init__(self, pattern: Mapping[str, int], *, default: int) -> None:
        self._pattern = pattern
        self._default = frozenset({default})
        self._any = frozenset({default, *pattern.values()}) if any(map(is_regex, pattern)) else None

    def of(self, module: str) -> frozenset[int]:
        """Return the values `module` may have."""
        if not self._pattern:
            return self._default
        if self._any is not None:
            return self._any
        found = {suffix for suffix in suffixes(module) if suffix in self._pattern}
        if not found:
            return self._default
        # The first in the configuration's order wins.
        first = found.pop() if len(found) == 1 else next(key for key in self._pattern if key in found)
        return frozenset({self._pattern[first]})


def pattern_invalid(name: str, message: str) -> Rejected:
    """Return the rejection of `rank_pattern` or `alpha_pattern`, whichever is called `name`."""
    return Rejected("rank_pattern_invalid" if name == "rank_pattern" else "alpha_pattern_invalid", message)
