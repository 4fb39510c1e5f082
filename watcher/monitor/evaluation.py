"""From the files of one adapter to a finding: are they complete, valid and at rest, and what is their digest?

What is known from the last time comes in as a value and what is known now goes out as one, so an evaluation
can be thrown away, repeated, or made for a dry run without side effects. Runs in threads.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from loradrop.catalog.adapter import AdapterState, Reason
from loradrop.catalog.lora.faults import Changed, Incomplete, Rejected
from loradrop.watcher.prefix.findings import Absent, Examined, Finding, Signature, Stillness, Unreadable
from loradrop.watcher.prefix.naming import is_entry_name, unusable
from loradrop.watcher.prefix.signature import Look, look_at, unreadable
from loradrop.watcher.state.settle import SettleRule, is_unstable, observe, remaining_seconds
from loradrop.watcher.validation.inspection import Proof, Rules, prove

_SHORTEST_WAIT_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class EvaluationRule:
    """How long what was seen may change without showing, and what is put off."""

    racy_seconds: float = 0.02
    """Two writes closer than this can leave the same times behind, on kernels before 6.13."""
    coarse_seconds: float = 2.0
    """The same where a filesystem keeps whole seconds."""
    growing_seconds: float = 10.0
    """An incomplete adapter that changed this lately is examined again without a hint."""
    growing_pause_seconds: float = 1.0
    large_bytes: int = 32 << 20
    """Weights that take so long to digest that nothing else in a batch should wait for them."""


@dataclass(frozen=True, slots=True)
class ExamineRequest:
    """One adapter to examine. `arrived`: its whole directory came by a rename; `rehash`: read every byte."""

    name: str
    before: Finding | None
    arrived: bool = False
    rehash: bool = False


class TooLarge(Exception):
    """Digesting this adapter takes long, and the caller asked not to begin."""


class WallClock:
    """Wall clock clamped to start plus monotonic time, to compare the times of files with.

    Whichever says a file is younger is believed: the clock itself, or the clock at the start plus what a
    monotonic clock has counted since.
    """

    def __init__(self) -> None:
        """Begin now."""
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        """Return seconds since 1970."""
        return min(time.time(), self._offset + time.monotonic())


class Evaluator:
    """Evaluates adapters of one prefix."""

    def __init__(
        self,
        rules: Rules,
        settle: SettleRule,
        rule: EvaluationRule | None = None,
        *,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Evaluate by these rules. `clock` counts seconds since 1970."""
        self._rules = rules
        self._settle = settle
        self._rule = rule or EvaluationRule()
        self._clock = clock or WallClock().now
        self._trust_times = True

    def trust_times(self, trusted: bool) -> None:
        """Say whether the files' times are this machine's, so that they prove how long files were still."""
        self._trust_times = trusted

    def evaluate(self, request: ExamineRequest, root_fd: int, *, even_large: bool = True) -> Examined:
        """Return what is on disk under one name of the prefix open at `root_fd`.

        Raises TooLarge where that means to digest a large file and that was not wanted.
        """
        if not is_entry_name(request.name):
            return Absent()  # of a record that is not ours: no path to somewhere else is followed
        look = look_at(request.name, root_fd, self._rules.roots)
        if not isinstance(look, Look):
            return look
        reason = unusable(request.name)
        if reason is not None:
            return Finding(signature=look.signature, state=AdapterState.REJECTED, reason=reason)
        if (unchanged := self._unchanged(request, look)) is not None:
            return unchanged
        rest = self._rest(request, look)
        if rest.is_over and look.weights_bytes > self._rule.large_bytes and not even_large:
            raise TooLarge
        try:
            return self._prove(request, look, rest, root_fd)
        except OSError as error:
            return Unreadable(unreadable(error))

    def _unchanged(self, request: ExamineRequest, look: Look) -> Finding | None:
        """Return the last finding where it still holds without reading anything."""
        before = request.before
        if before is None or before.signature != look.signature or request.rehash:
            return None
        if before.stillness is None and not before.racy:
            return before
        if before.state is AdapterState.INCOMPLETE:
            return replace(before, look_again_at=self._while_growing(before.stillness, time.monotonic()))
        return None

    def _prove(self, request: ExamineRequest, look: Look, rest: "_Rest", root_fd: int) -> Finding:
        try:
            proof = prove(request.name, root_fd, self._rules, digest=rest.is_over)
            if (
                proof.signature != look.signature
                or self._signature_now(request.name, root_fd) != look.signature
            ):
                raise Changed
        except Incomplete as error:
            return self._incomplete(look, rest, error.reason)
        except Changed as error:
            return self._settling(look, rest, error.reason)
        except Rejected as error:
            if rest.is_over and self._signature_now(request.name, root_fd) == look.signature:
                return Finding(signature=look.signature, state=AdapterState.REJECTED, reason=error.reason)
            return self._settling(look, rest, Changed().reason)
        if proof.revision is None:
            return self._settling(look, rest, Changed().reason)
        return self._ready(proof, rest, look, again=request.before)

    def _rest(self, request: ExamineRequest, look: Look) -> "_Rest":
        now = time.monotonic()
        stillness = observe(_restless(request.before, look), look.signature, now=now)
        trusted = self._trust_times and look.changed_ns > 0
        age = self._clock() - look.changed_ns / 1e9 if trusted else -1.0
        remaining = remaining_seconds(
            stillness,
            self._settle,
            now=now,
            age_seconds=age,
            arrived=request.arrived or _is_digested_anew(request.before, look),
        )
        return _Rest(stillness, now, max(age, now - stillness.same_since), remaining)

    def _settling(self, look: Look, rest: "_Rest", reason: Reason) -> Finding:
        if is_unstable(rest.stillness, self._settle, now=rest.now):
            reason = Reason(
                "unstable",
                "The files are complete and have kept changing for"
                f" {self._settle.unstable_after_seconds:g} s. Publish by writing aside and renaming.",
            )
        wait = max(rest.remaining_seconds or self._settle.settle_seconds, _SHORTEST_WAIT_SECONDS)
        return Finding(
            signature=look.signature,
            state=AdapterState.SETTLING,
            reason=reason,
            stillness=rest.stillness,
            look_again_at=rest.now + wait,
        )

    def _incomplete(self, look: Look, rest: "_Rest", reason: Reason) -> Finding:
        return Finding(
            signature=look.signature,
            state=AdapterState.INCOMPLETE,
            reason=reason,
            stillness=rest.stillness,
            look_again_at=self._while_growing(rest.stillness, rest.now),
        )

    def _ready(self, proof: Proof, rest: "_Rest", look: Look, *, again: Finding | None) -> Finding:
        is_coarse = look.changed_ns % 1_000_000_000 == 0
        window = self._rule.coarse_seconds if is_coarse else self._rule.racy_seconds
        seen_before = again is not None and again.racy and again.signature == look.signature
        racy = rest.still_seconds < window and not seen_before
        return Finding(
            signature=look.signature,
            state=AdapterState.READY,
            facts=proof.facts,
            revision=proof.revision,
            look_again_at=rest.now + window if racy else None,
            racy=racy,
        )

    def _signature_now(self, name: str, root_fd: int) -> Signature | None:
        look = look_at(name, root_fd, self._rules.roots)
        return look.signature if isinstance(look, Look) else None

    def _while_growing(self, stillness: Stillness | None, now: float) -> float | None:
        if stillness is None or now - stillness.same_since > self._rule.growing_seconds:
            return None
        return now + self._rule.growing_pause_seconds


@dataclass(frozen=True, slots=True)
class _Rest:
    """How long an adapter has been still at the moment of a look, and how long it still has to be."""

    stillness: Stillness
    now: float
    still_seconds: float
    remaining_seconds: float

    @property
    def is_over(self) -> bool:
        return self.remaining_seconds <= 0


def _is_digested_anew(before: Finding | None, look: Look) -> bool:
    """Return whether these bytes were published already, and are only to be digested once more."""
    return before is not None and before.state is AdapterState.READY and before.signature == look.signature


def _restless(before: Finding | None, look: Look) -> Stillness | None:
    if before is None:
        return None
    if before.state is AdapterState.INCOMPLETE and before.signature != look.signature:
        return None  # it grew: restless counts from when it is complete
    return before.stillness
