"""Which adapters have stopped changing.

A file that is complete by its own account may still be written to: preallocated, or the first of a pair.
So an adapter's bytes count only once its signature has stood still for a while. Two clocks can prove
that: ours, from look to look, and the files' own times, which a rename of a finished directory does not
touch. An upper bound keeps an adapter that never rests from waiting in silence.

Pure: every clock is passed in, in seconds.
"""

from dataclasses import dataclass

from loradrop.watcher.prefix.findings import Signature, Stillness


@dataclass(frozen=True, slots=True)
class SettleRule:
    """How long files must be still, and how long they may be restless before that is reported."""

    settle_seconds: float = 1.0
    """Longer than a writer pauses between two writes, short enough not to be felt."""
    unstable_after_seconds: float = 60.0
    """Longer than a big copy takes from complete to closed."""


def observe(before: Stillness | None, signature: Signature, *, now: float) -> Stillness:
    """Return what is known about an adapter's stillness once `signature` was seen at `now`."""
    if before is None:
        return Stillness(signature, now, now)
    if before.signature == signature:
        return before
    return Stillness(signature, now, before.restless_since)


def remaining_seconds(
    stillness: Stillness, rule: SettleRule, *, now: float, age_seconds: float, arrived: bool
) -> float:
    """Return how long the adapter must still be left alone; 0.0 where it has settled.

    `age_seconds` is how long its files have been unchanged by their own times (negative where those are
    not to be trusted). `arrived` says that the whole directory came by a rename just now.
    """
    if arrived:
        return 0.0
    still_seconds = max(now - stillness.same_since, age_seconds)
    return max(0.0, rule.settle_seconds - still_seconds)


def is_unstable(stillness: Stillness, rule: SettleRule, *, now: float) -> bool:
    """Return whether the adapter has been complete but restless for longer than the upper bound."""
    return now - stillness.restless_since > rule.unstable_after_seconds
