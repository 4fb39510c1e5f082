"""What a worker knows of one name: which revision is desired, and why the last try failed. Pure.

Which revision is loaded is known to the residency; the reported state is computed from both, so it cannot
contradict them.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from loradrop.catalog.adapter import Adapter, Reason, Revision
from loradrop.catalog.backoff import Backoff
from loradrop.catalog.status import WorkerAdapter, WorkerState
from loradrop.worker.places.timings import TIMINGS


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
    tries: int = 0
    """Tries in progress."""
    manual: Revision | None = None
    """The revision loaded through vLLM's own route; it takes precedence over the catalog's."""
    fault: Fault | None = None
    retries: Backoff = field(default_factory=TIMINGS.retries)
    loads: int = 0
    load_seconds: float | None = None
    last_used: datetime | None = None

    @property
    def desired(self) -> Revision | None:
        """The revision that should be served, or None."""
        if self.manual is not None:
            return self.manual
        return self.adapter.revision if self.adapter is not None else None

    @property
    def is_rejected(self) -> bool:
        """Whether the desired revision will never work here."""
        return self.fault is not None and self.fault.retry_at is None and self.fault.revision == self.desired

    def current_fault(self, now: datetime) -> Fault | None:
        """Return why the desired revision must not be tried now, or None."""
        fault = self.fault
        if fault is None or fault.revision != self.desired:
            return None
        return fault if fault.retry_at is None or now < fault.retry_at else None

    def note_failed(self, revision: Revision | None, reason: Reason, now: datetime) -> None:
        """Record a failure of `revision`, to be tried again after the next pause."""
        self.fault = Fault(revision, reason, now + timedelta(seconds=self.retries.pause_seconds()))

    def note_rejected(self, revision: Revision | None, reason: Reason) -> None:
        """Record that `revision` will never work here."""
        self.fault = Fault(revision, reason)

    def note_loaded(self, seconds: float) -> None:
        """Record that the desired revision is served, and how long making it ready took."""
        self.fault = None
        self.retries.reset()
        self.loads += 1
        self.load_seconds = seconds

    def state(self, serving: Revision | None, *, is_name_taken: bool = False) -> WorkerState:
        """Return the state while `serving` (or nothing) answers for the name.

        `is_name_taken`: the base model or a static module has the name, so no adapter can.
        """
        if serving is not None:
            return WorkerState.LOADED
        if self.tries:
            return WorkerState.LOADING
        if self.adapter is None:
            return WorkerState.DRAINING
        if is_name_taken and self.desired is not None:
            return WorkerState.REJECTED
        if self.fault is not None and self.fault.revision == self.desired:
            return WorkerState.REJECTED if self.fault.retry_at is None else WorkerState.FAILED
        return WorkerState.LISTED

    def report(self, serving: Revision | None, *, name_taken: Reason | None = None) -> WorkerAdapter | None:
        """Return what to report; None where the catalog's record is all there is to say.

        `name_taken` is the reason to report where the name cannot be served here at all.
        """
        state = self.state(serving, is_name_taken=name_taken is not None)
        if state is WorkerState.LISTED and not self.loads:
            return None
        if name_taken is not None and state is WorkerState.REJECTED:
            return WorkerAdapter(state=state, revision=self.desired, reason=name_taken)
        return WorkerAdapter(
            state=state,
            revision=serving or self.desired,
            reason=self.fault.reason if self.fault else None,
            loads=self.loads,
            load_seconds=self.load_seconds,
            last_used=self.last_used,
            retry_at=self.fault.retry_at if self.fault else None,
        )
