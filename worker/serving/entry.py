"""What a worker knows of one name: what is wanted and what went wrong. Pure.

What is served is the residency's to say; the state people see follows from both, so it cannot
contradict them.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from loradrop.catalog.adapter import Adapter, Reason, Revision
from loradrop.catalog.status import WorkerAdapter, WorkerState

_FIRST_PAUSE = timedelta(seconds=1)
_LONGEST_PAUSE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a revision is not served: for good, or until `retry_at`."""

    revision: Revision | None
    reason: Reason
    retry_at: datetime | None = None


@dataclass(slots=True)
class Entry:
    """One name on this worker. `adapter` is None once it is gone from the catalog."""

    name: str
    adapter: Adapter | None = None
    loading: int = 0
    """Tries under way."""
    by_hand: Revision | None = None
    """What was loaded through vLLM's own route; the catalog does not override it."""
    fault: Fault | None = None
    failures: int = 0
    """Tries that failed since the last that went well."""
    loads: int = 0
    load_seconds: float | None = None
    last_used: datetime | None = None

    @property
    def wanted(self) -> Revision | None:
        """The revision that should be served, or None."""
        if self.by_hand is not None:
            return self.by_hand
        return self.adapter.revision if self.adapter is not None else None

    def fault_now(self, now: datetime) -> Fault | None:
        """Return why there is no point in trying the wanted revision now, or None."""
        fault = self.fault
        if fault is None or fault.revision != self.wanted:
            return None
        return fault if fault.retry_at is None or now < fault.retry_at else None

    def failed(self, revision: Revision | None, reason: Reason, now: datetime) -> None:
        """Note a failure; the next try waits twice as long as the last, up to five minutes."""
        pause = min(_FIRST_PAUSE * 2 ** min(self.failures, 16), _LONGEST_PAUSE)
        self.failures += 1
        self.fault = Fault(revision, reason, now + pause)

    def rejected(self, revision: Revision | None, reason: Reason) -> None:
        """Note that `revision` will never do."""
        self.fault = Fault(revision, reason)

    def loaded(self, seconds: float) -> None:
        """Note that what was wanted is served, and how long making it ready took."""
        self.fault, self.failures = None, 0
        self.loads += 1
        self.load_seconds = seconds

    def state(self, serving: Revision | None, *, is_barred: bool = False) -> WorkerState:
        """Return the state while `serving` answers, or nothing does; `is_barred`: nothing ever will here."""
        if serving is not None:
            return WorkerState.LOADED
        if self.loading:
            return WorkerState.LOADING
        if self.adapter is None:
            return WorkerState.DRAINING
        if is_barred and self.wanted is not None:
            return WorkerState.REJECTED
        if self.fault is not None and self.fault.revision == self.wanted:
            return WorkerState.REJECTED if self.fault.retry_at is None else WorkerState.FAILED
        return WorkerState.LISTED

    def report(self, serving: Revision | None, *, barred: Reason | None = None) -> WorkerAdapter | None:
        """Return what to report; None where the catalog says all there is to say.

        `barred` is why the name cannot be served here, whatever its bytes are.
        """
        state = self.state(serving, is_barred=barred is not None)
        if state is WorkerState.LISTED and not self.loads:
            return None
        if barred is not None and state is WorkerState.REJECTED:
            return WorkerAdapter(state=state, revision=self.wanted, reason=barred)
        return WorkerAdapter(
            state=state,
            revision=serving or self.wanted,
            reason=self.fault.reason if self.fault else None,
            loads=self.loads,
            load_seconds=self.load_seconds,
            last_used=self.last_used,
            retry_at=self.fault.retry_at if self.fault else None,
        )
