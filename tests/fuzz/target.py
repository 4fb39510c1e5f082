"""What is fuzzed: a check that takes any bytes, and what it is fed at first."""

from collections.abc import Callable
from dataclasses import dataclass

MAX_BYTES = 1 << 16
"""Of an input: adapters for a tiny model, archives and streams entries included, fit."""


class Disagreement(AssertionError):
    """What loradrop says of an input is not what the reference says of it."""


@dataclass(frozen=True, slots=True)
class Target:
    """One entry point for bytes from outside.

    Invariant: `check` returns for every input, quickly and in little memory; whatever it raises is a finding.
    `tokens` are words of the format, which a fuzzer puts into inputs.
    """

    name: str
    check: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    tokens: tuple[bytes, ...] = ()
