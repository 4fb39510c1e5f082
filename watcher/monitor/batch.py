"""A batch of adapters, examined within a time budget, under a prefix that stayed the same throughout.

Runs in threads. Not here: the judgement of one adapter (`judgement`), and which to ask about (`agenda`).
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loradrop.catalog.errors import DiscoveryError
from loradrop.watcher.monitor.evaluation import Judge, Question, TooLarge
from loradrop.watcher.prefix.findings import Absent, Examined, Finding, Unreadable
from loradrop.watcher.prefix.naming import shown
from loradrop.watcher.prefix.scan import RootIdentity, list_names, open_root
from loradrop.watcher.prefix.signature import failed
from loradrop.watcher.state.settle import SettleRule
from loradrop.watcher.validation.inspection import Rules

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answers:
    """What a batch found, and what it took.

    `listed` is all the prefix held after the batch; None where none of `found` is absent. `left` were not
    reached within the time, or are too large to be examined beside others; `error` says that nothing could
    be told.
    """

    identity: RootIdentity | None
    found: dict[str, Examined] = field(default_factory=dict)
    listed: frozenset[str] | None = None
    left: tuple[Question, ...] = ()
    error: DiscoveryError | None = None
    hashed_bytes: int = 0
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0


class Examiner:
    """Examines adapters of one prefix."""

    def __init__(self, prefix: Path, rules: Rules, settle: SettleRule, *, marker: str | None = None) -> None:
        """Remember what does not change from one batch to the next."""
        self._prefix = prefix
        self._marker = marker
        self._judge = Judge(str(prefix), rules, settle)

    def trust_times(self, trusted: bool) -> None:
        """Say whether the files' times are this machine's."""
        self._judge.trust_times = trusted

    def examine(self, questions: Sequence[Question], *, budget_seconds: float) -> Answers:
        """Return findings for as many of `questions` as fit the budget, at least one. Raises nothing."""
        started, started_cpu = time.monotonic(), time.thread_time()
        try:
            with open_root(self._prefix, marker=self._marker) as (root_fd, identity):
                found, left = self._examine(questions, root_fd, until=started + budget_seconds)
                vanished = any(isinstance(examined, Absent) for examined in found.values())
                listed = list_names(root_fd, self._prefix) if vanished else None
        except DiscoveryError as error:
            return Answers(None, error=error)
        return Answers(
            identity,
            found,
            listed=listed,
            left=tuple(left),
            hashed_bytes=_hashed_bytes(questions, found),
            wall_seconds=time.monotonic() - started,
            cpu_seconds=time.thread_time() - started_cpu,
        )

    def _examine(
        self, questions: Sequence[Question], root_fd: int, *, until: float
    ) -> tuple[dict[str, Examined], list[Question]]:
        found: dict[str, Examined] = {}
        large: list[Question] = []
        for index, question in enumerate(questions):
            if found and time.monotonic() > until:
                return found, [*questions[index:], *large]
            try:
                found[question.name] = self._judged(question, root_fd, even_large=False)
            except TooLarge:
                large.append(question)
        if large and not found:  # nothing small is kept waiting
            alone = large.pop(0)
            found[alone.name] = self._judged(alone, root_fd, even_large=True)
        return found, large

    def _judged(self, question: Question, root_fd: int, *, even_large: bool) -> Examined:
        try:
            return self._judge.judge(question, root_fd, even_large=even_large)
        except TooLarge:
            raise
        except Exception as error:
            # One adapter, however strange, must not end the watching of all the others.
            _logger.exception("Looking at an adapter failed name=%s", shown(question.name))
            return Unreadable(failed(error))


def _hashed_bytes(questions: Sequence[Question], found: dict[str, Examined]) -> int:
    total = 0
    for question in questions:
        examined = found.get(question.name)
        if isinstance(examined, Finding) and examined.facts is not None and examined is not question.before:
            total += examined.facts.size_bytes
    return total
