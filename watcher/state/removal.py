"""When is an adapter really gone? Two examinations that agree, a pause between, and not too many at once.

An absent name proves little: a rename swaps two directories through an instant with neither, a mount goes
away and leaves an empty directory, a script empties the wrong folder. So one absence is only noted, and the
removal waits for a second examination after a grace period. Where most adapters vanish together, the grace
is much longer and the operator is told. Once one of those is back, the others may only be late, and what was
seen before counts no more.

Pure: the clock is passed in, in monotonic seconds. Not here: the guard against another directory in place of
the prefix (`root`).
"""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace

_EXAMINATIONS = 2


@dataclass(frozen=True, slots=True)
class RemovalRule:
    """How much proof a removal needs."""

    grace_seconds: float = 1.0
    """Longer than a rename swap leaves a gap, shorter than one waits for `rm -r` to take effect."""
    hurried_grace_seconds: float = 0.25
    """While a refresh waits: still longer than two renames are apart, but on a machine that is overrun."""
    mass_share: float = 0.5
    """More than this share of the served adapters gone at once is taken for an accident ..."""
    mass_count: int = 3
    """... where it is also more than this many."""
    mass_grace_seconds: float = 30.0
    """How long a mass removal is held back for an operator or a mount to come back."""


@dataclass(frozen=True, slots=True)
class Absence:
    """Since when a name is absent, when it was last found so, and how often."""

    since: float
    last: float
    examinations: int = 1


@dataclass(frozen=True, slots=True)
class Removals:
    """What to do about absent names: remove what is proven gone, and examine the others again at a time."""

    proven: tuple[str, ...]
    look_again: Mapping[str, float]


def miss(before: Absence | None, *, now: float) -> Absence:
    """Return what is known once a name was examined and not found at `now`."""
    if before is None:
        return Absence(now, now)
    return replace(before, last=now, examinations=before.examinations + 1)


def miss_anew(*, now: float) -> Absence:
    """Return an absence of which no examination before `now` counts."""
    return Absence(now, now, examinations=0)


def is_mass(lost: int, served: Callable[[], int], rule: RemovalRule) -> bool:
    """Return whether the loss of `lost` of all `served` adapters is taken for an accident."""
    return lost > rule.mass_count and lost > rule.mass_share * served()


def decide_removals(
    absent: Mapping[str, Absence],
    rule: RemovalRule,
    *,
    held: Set[str] = frozenset(),
    is_hurried: Callable[[str], bool] = lambda _name: False,
    confirmed: bool = False,
) -> Removals:
    """Return which of `absent` are proven gone.

    `held` are the names of a mass removal, which has the long grace. `is_hurried` says whether a refresh
    waits to hear of a name. `confirmed`: the operator has said that a mass removal is meant.
    """
    proven, look_again = [], {}
    for name, absence in absent.items():
        if confirmed:
            grace = 0.0
        elif name in held:
            grace = rule.mass_grace_seconds
        elif is_hurried(name):
            grace = min(rule.grace_seconds, rule.hurried_grace_seconds)
        else:
            grace = rule.grace_seconds
        if absence.examinations >= _EXAMINATIONS and absence.last - absence.since >= grace:
            proven.append(name)
        else:
            look_again[name] = absence.since + grace
    return Removals(tuple(proven), look_again)
