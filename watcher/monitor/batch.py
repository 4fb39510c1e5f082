"""A batch of adapters, examined within a time budget, under a prefix that stayed the same throughout.

Runs in threads. Not here: one adapter (`evaluation`), and which to examine (`work_queue`).
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loradrop.catalog.errors import DiscoveryError
from loradrop.catalog.printable import printable
from loradrop.watcher.monitor.evaluation import EvaluationRule, Evaluator, ExamineRequest, TooLarge
from loradrop.watcher.prefix.filesystem import filesystem_type, is_shared
from loradrop.watcher.prefix.findings import Absent, Examined, Finding, RootIdentity, Unreadable
from loradrop.watcher.prefix.scan import list_names, open_root
from loradrop.watcher.prefix.signature import failed
from loradrop.watcher.state.settle import SettleRule
from loradrop.watcher.validation.inspection import Rules

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What a batch found, and what it took.

    `listed` is all the prefix held after the batch; None where none of `found` is absent. `left` were not
    reached within the time, or are too large to be examined beside others; `error` says that nothing could
    be told.
    """

    identity: RootIdentity | None
    found: dict[str, Examined] = field(default_factory=dict)
    listed: frozenset[str] | None = None
    left: tuple[ExamineRequest, ...] = ()
    error: DiscoveryError | None = None
    hashed_bytes: int = 0
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0


class Examiner:
    """Examines adapters of one prefix."""

    def __init__(
        self,
        prefix: Path,
        rules: Rules,
        settle: SettleRule,
        rule: EvaluationRule | None = None,
        *,
        marker: str | None = None,
        filesystem_type: Callable[[Path], str | None] = filesystem_type,
    ) -> None:
        """Examine under `prefix` by these rules; it must hold the file `marker`, where one is given.

        `filesystem_type` tells what kind of filesystem a path lies on.
        """
        self._prefix = prefix
        self._filesystem_type = filesystem_type
        self._marker = marker
        self._identity: RootIdentity | None = None
        self._evaluator = Evaluator(rules, settle, rule)

    def examine(self, requests: Sequence[ExamineRequest], *, budget_seconds: float) -> BatchResult:
        """Return findings for as many of `requests` as fit the budget, at least one. Raises nothing."""
        started, started_cpu = time.monotonic(), time.thread_time()
        try:
            with open_root(self._prefix, marker=self._marker) as (root_fd, identity):
                self._note_filesystem(identity)
                found, left = self._examine(requests, root_fd, until=started + budget_seconds)
                vanished = any(isinstance(examined, Absent) for examined in found.values())
                listed = list_names(root_fd, self._prefix) if vanished else None
        except DiscoveryError as error:
            return BatchResult(None, error=error)
        except Exception as error:
            # Whatever is under the prefix or around it, the watcher goes on, and concludes nothing from it.
            _logger.exception("Examining a batch failed")
            return BatchResult(None, error=DiscoveryError(f"The prefix cannot be examined ({error!r})."))
        return BatchResult(
            identity,
            found,
            listed=listed,
            left=tuple(left),
            hashed_bytes=_hashed_bytes(requests, found),
            wall_seconds=time.monotonic() - started,
            cpu_seconds=time.thread_time() - started_cpu,
        )

    def _note_filesystem(self, identity: RootIdentity) -> None:
        if identity != self._identity:
            self._evaluator.trust_times(not is_shared(self._filesystem_type(self._prefix)))
            self._identity = identity

    def _examine(
        self, requests: Sequence[ExamineRequest], root_fd: int, *, until: float
    ) -> tuple[dict[str, Examined], list[ExamineRequest]]:
        found: dict[str, Examined] = {}
        large: list[ExamineRequest] = []
        for index, request in enumerate(requests):
            if found and time.monotonic() > until:
                return found, [*requests[index:], *large]
            try:
                found[request.name] = self._evaluated(request, root_fd, even_large=False)
            except TooLarge:
                large.append(request)
        if large and not found:  # nothing small is kept waiting
            alone = large.pop(0)
            found[alone.name] = self._evaluated(alone, root_fd, even_large=True)
        return found, large

    def _evaluated(self, request: ExamineRequest, root_fd: int, *, even_large: bool) -> Examined:
        try:
            return self._evaluator.evaluate(request, root_fd, even_large=even_large)
        except TooLarge:
            raise
        except Exception as error:
            # One adapter, however strange, must not end the watching of all the others.
            _logger.exception("Examining an adapter failed name=%s", printable(request.name))
            return Unreadable(failed(error))


def _hashed_bytes(requests: Sequence[ExamineRequest], found: dict[str, Examined]) -> int:
    total = 0
    for request in requests:
        examined = found.get(request.name)
        if isinstance(examined, Finding) and examined.facts is not None and examined is not request.before:
            total += examined.facts.size_bytes
    return total
