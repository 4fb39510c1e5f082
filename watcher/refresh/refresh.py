"""Manual refreshes: what one waits for, and what is answered.

A refresh is answered once a scan that began after it was asked for has been followed to its end: everything
in its scope examined, settled or given up on, and published.

Pure: clocks are passed in.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from loradrop.catalog.adapter import Adapter, AdapterState, Reason, Revision
from loradrop.catalog.events import RefreshRequest
from loradrop.catalog.status import RefreshResult, RefreshStatus
from loradrop.watcher.refresh.progress import Progress
from loradrop.watcher.state.records import difference


@dataclass(frozen=True, slots=True)
class Refresh:
    """One request being followed: what was served before, and when (monotonic) its time is up."""

    request: RefreshRequest
    progress: Progress
    before: Mapping[str, Revision]
    deadline: float

    def is_due(self, now: float) -> bool:
        """Return whether it is answered at `now`: it is over, or out of time with the scan done."""
        return self.progress.is_over or (self.progress.awaited is not None and now >= self.deadline)


def answer(
    request: RefreshRequest,
    before: Mapping[str, Revision],
    records: Mapping[str, Adapter],
    *,
    total: int,
    seq: int,
    at: datetime,
) -> RefreshResult:
    """Return the answer to `request`: what changed from `before` to `records`, in its scope.

    `total` is how many adapters are served now, at `seq` of the catalog.
    """
    scope: Collection[str] = frozenset(request.names) or records.keys()
    in_scope = {name: records[name] for name in scope if name in records}
    after = {name: record.revision for name, record in in_scope.items() if record.revision is not None}
    asked = frozenset(request.names)
    change = difference({name: old for name, old in before.items() if not asked or name in asked}, after)
    return RefreshResult(
        id=request.id,
        status=RefreshStatus.SCANNED,
        at=at,
        dry_run=request.dry_run,
        discovered=change.discovered,
        updated=change.updated,
        removed=change.removed,
        rejected={
            name: record.reason
            for name, record in sorted(in_scope.items())
            if record.state is AdapterState.REJECTED and record.reason is not None
        },
        total=total,
        seq=seq,
    )


def failed(request: RefreshRequest, reason: Reason, *, at: datetime) -> RefreshResult:
    """Return the answer to a refresh whose scan failed: nothing was changed."""
    return RefreshResult(
        id=request.id, status=RefreshStatus.FAILED, at=at, dry_run=request.dry_run, error=reason
    )
