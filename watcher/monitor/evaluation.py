"""From one look at an adapter to a finding: prove it, see whether it rests, digest it.

What is known from the last time comes in as a value and what is known now goes out as one, so a judgement
can be thrown away, repeated, or made for a dry run without anything else noticing. Runs in threads.
"""

import time
from dataclasses import dataclass, replace

from loradrop.catalog.adapter import AdapterState, Reason
from loradrop.catalog.lora.faults import Changed, Incomplete, Rejected
from loradrop.watcher.prefix.findings import Examined, Finding, Signature, Stillness, Unreadable
from loradrop.watcher.prefix.naming import unusable
from loradrop.watcher.prefix.signature import Look, look_at, unreadable
from loradrop.watcher.state.settle import SettleRule, is_unstable, observe, remaining_seconds
from loradrop.watcher.validation.inspection import Proof, Rules, prove

_RACY_SECONDS = 0.02
"""Two writes closer than this can leave the same times behind, on kernels before 6.13."""

_COARSE_SECONDS = 2.0
"""The same where a filesystem keeps whole seconds."""

_GROWING_SECONDS = 10.0
"""An incomplete adapter that changed this lately is looked at again without a hint."""

_GROWING_LOOK_SECONDS = 1.0
_SHORTEST_WAIT_SECONDS = 0.01
_LARGE_BYTES = 32 << 20
"""Weights that take so long to digest that nothing else in a batch should wait for them."""


@dataclass(frozen=True, slots=True)
class Question:
    """One adapter to examine. `arrived`: its whole directory came by a rename; `verify`: digest it anew."""

    name: str
    before: Finding | None
    arrived: bool = False
    verify: bool = False


class TooLarge(Exception):
    """Digesting this adapter takes long, and the caller asked not to begin."""


class WallClock:
    """The time of day as files see it, held back where somebody sets the clock.

    Whichever says a file is younger is believed: the clock itself, or the clock at the start plus what a
    monotonic clock has counted since.
    """

    def __init__(self) -> None:
        """Begin now."""
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        """Return seconds since 1970."""
        return min(time.time(), self._offset + time.monotonic())


class Judge:
    """Judges adapters of one prefix.

    `trust_times`: the files' times are this machine's, so that they can prove how long files were still.
    """

    def __init__(self, prefix: str, rules: Rules, settle: SettleRule) -> None:
        """Remember what does not change from one judgement to the next."""
        self.trust_times = True
        self._prefix = prefix
        self._rules = rules
        self._settle = settle
        self._clock = WallClock()

    def judge(self, question: Question, root_fd: int, *, even_large: bool = True) -> Examined:
        """Return what is on disk under one name of the prefix open at `root_fd`.

        Raises TooLarge where that means to digest a large file and that was not wanted.
        """
        look = look_at(question.name, root_fd)
        if not isinstance(look, Look):
            return look
        reason = unusable(question.name)
        if reason is not None:
            return Finding(signature=look.signature, state=AdapterState.REJECTED, reason=reason)
        before = question.before
        if before is not None and before.signature == look.signature and not question.verify:
            if before.stillness is None and not before.racy:
                return before
            if before.state is AdapterState.INCOMPLETE:
                return replace(before, look_again_at=_while_growing(before.stillness, time.monotonic()))
        rest = self._rest(question, look)
        if rest.is_over and look.weights_bytes > _LARGE_BYTES and not even_large:
            raise TooLarge
        try:
            return self._prove(question, look, rest, root_fd)
        except OSError as error:
            return Unreadable(unreadable(error))

    def _prove(self, question: Question, look: Look, rest: "_Rest", root_fd: int) -> Finding:
        directory = f"{self._prefix}/{question.name}"
        try:
            proof = prove(directory, self._rules, digest=rest.is_over)
            if proof.signature != look.signature or _signature_now(question.name, root_fd) != look.signature:
                raise Changed
        except Incomplete as error:
            return _incomplete(look, rest, error.reason)
        except Changed as error:
            return self._settling(look, rest, error.reason)
        except Rejected as error:
            if rest.is_over and _signature_now(question.name, root_fd) == look.signature:
                return Finding(signature=look.signature, state=AdapterState.REJECTED, reason=error.reason)
            return self._settling(look, rest, Changed().reason)
        if proof.revision is None:
            return self._settling(look, rest, Changed().reason)
        return _ready(proof, rest, look, again=question.before)

    def _rest(self, question: Question, look: Look) -> "_Rest":
        now = time.monotonic()
        stillness = observe(_restless(question.before, look), look.signature, now=now)
        trusted = self.trust_times and look.changed_ns > 0
        age = self._clock.now() - look.changed_ns / 1e9 if trusted else -1.0
        remaining = remaining_seconds(
            stillness,
            self._settle,
            now=now,
            age_seconds=age,
            arrived=question.arrived or _is_digested_anew(question.before, look),
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


def _incomplete(look: Look, rest: _Rest, reason: Reason) -> Finding:
    return Finding(
        signature=look.signature,
        state=AdapterState.INCOMPLETE,
        reason=reason,
        stillness=rest.stillness,
        look_again_at=_while_growing(rest.stillness, rest.now),
    )


def _ready(proof: Proof, rest: _Rest, look: Look, *, again: Finding | None) -> Finding:
    window = _COARSE_SECONDS if look.changed_ns % 1_000_000_000 == 0 else _RACY_SECONDS
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


def _signature_now(name: str, root_fd: int) -> Signature | None:
    look = look_at(name, root_fd)
    return look.signature if isinstance(look, Look) else None


def _while_growing(stillness: Stillness | None, now: float) -> float | None:
    if stillness is None or now - stillness.same_since > _GROWING_SECONDS:
        return None
    return now + _GROWING_LOOK_SECONDS
