"""When is an adapter really gone? Two looks that agree, a pause between them, and not too many at once.

An absent name proves little: a rename swaps two directories through an instant with neither, a mount goes
away and leaves an empty directory, a script empties the wrong folder. So one absence is only noted, and the
removal waits for a second look after a grace period. Where most adapters vanish together, the grace is
much longer and people are told. Once one of those is back, the others may only be late, and what was seen
before counts no more.

Pure: the clock is passed in, in monotonic seconds. Not here: the guard against another device under the
prefix (`disk`).
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace

_LOOKS = 2


@dataclass(frozen=True, slots=True)
class RemovalRule:
    """How much proof a removal needs."""

    grace_seconds: float = 1.0
    """Longer than a rename swap leaves a gap, shorter than people wait for `rm -r` to take effect."""
    hurried_grace_seconds: float = 0.25
    """For a person who waits: still longer than two renames are apart, but on a machine that is overrun."""
    mass_share: float = 0.5
    """More than this share of the served adapters gone at once is taken for an accident ..."""
    mass_count: int = 3
    """... where it is also more than this many."""
    mass_grace_seconds: float = 30.0
    """How long a mass removal is held back for a person or a mount to come back."""


@dataclass(frozen=True, slots=True)
class Absence:
    """Since when a name is missing, and how often it was missed. `hurried`: a person waits for it."""

    since: float
    last: float
    looks: int = 1
    hurried: bool = False


@dataclass(frozen=True, slots=True)
class Removals:
    """What to do about the absent: remove, look again at a time, or hold back as a mass removal."""

    proven: tuple[str, ...]
    look_again: Mapping[str, float]
    held: tuple[str, ...]


def miss(before: Absence | None, *, now: float, hurried: bool) -> Absence:
    """Return what is known once a name was looked for and missed at `now`."""
    if before is None:
        return Absence(now, now, hurried=hurried)
    return replace(before, last=now, looks=before.looks + 1, hurried=before.hurried or hurried)


def miss_anew(absence: Absence, *, now: float) -> Absence:
    """Return an absence of which no look before `now` counts."""
    return replace(absence, since=now, last=now, looks=0)


def decide_removals(
    absent: Mapping[str, Absence],
    served: Set[str],
    rule: RemovalRule,
    *,
    missing: Set[str] = frozenset(),
    confirmed: bool = False,
) -> Removals:
    """Return which of `absent` are proven gone.

    `served` are all names with a revision, or that may have one, the absent among them included: only their
    loss can be a mass removal. `missing` are those a listing of the prefix lacked, most of which nobody may
    have looked for yet. `confirmed`: a person has said that a mass removal is meant.
    """
    lost = len(served & (absent.keys() | missing))
    mass = not confirmed and lost > rule.mass_count and lost > rule.mass_share * len(served)
    proven, look_again, held = [], {}, []
    for name, absence in absent.items():
        is_held = mass and name in served
        grace = 0.0 if confirmed else _grace_seconds(absence, rule, is_held=is_held)
        if absence.looks >= _LOOKS and absence.last - absence.since >= grace:
            proven.append(name)
            continue
        look_again[name] = absence.since + grace
        if is_held:
            held.append(name)
    return Removals(tuple(proven), look_again, tuple(held))


def _grace_seconds(absence: Absence, rule: RemovalRule, *, is_held: bool) -> float:
    if is_held:
        return rule.mass_grace_seconds
    if absence.hurried:
        return min(rule.grace_seconds, rule.hurried_grace_seconds)
    return rule.grace_seconds
