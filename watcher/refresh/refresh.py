"""Manual refreshes: what one waits for, and what is answered.

A refresh is answered once a look that began after it was asked for has been followed to its end: everything
in its scope examined, settled or given up on, and published. Time bounds the waiting, not the looking.

Pure.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from loradrop.catalog.adapter import Adapter, AdapterState, Reason, Revision
from loradrop.catalog.events import RefreshRequest
from loradrop.catalog.status import RefreshResult, RefreshStatus
from loradrop.watcher.state.records import difference


@dataclass(slots=True)
class Look:
    """A look at the prefix that is followed to its end.

    `scan` is the number of the first scan that began after it was wanted, 0 where only `names` are looked
    at. `awaited` are the names still open, None as long as that scan has not told which.
    """

    scan: int
    names: tuple[str, ...] = ()
    awaited: list[str] | None = None

    def covers(self, name: str) -> bool:
        """Return whether `name` is in the scope."""
        return not self.names or name in self.names

    def is_over(
        self, *, scans_done: int, waiting: Callable[[], set[str]], is_open: Callable[[str], bool]
    ) -> bool:
        """Return whether there is nothing left to wait for.

        `waiting` are the names being looked at now; `is_open` says whether a name may soon be something else.
        """
        if scans_done < self.scan:
            return False
        if self.awaited is None:
            self.awaited = [name for name in waiting() if self.covers(name)]
        while self.awaited and not is_open(self.awaited[-1]):  # one open name is reason enough to wait
            self.awaited.pop()
        return not self.awaited


@dataclass(frozen=True, slots=True)
class Refresh:
    """One request being followed: what was served before, and by when it must be answered as it stands."""

    request: RefreshRequest
    look: Look
    before: Mapping[str, Revision]
    deadline: float


def answer(
    request: RefreshRequest, before: Mapping[str, Revision], records: Mapping[str, Adapter], *, seq: int
) -> RefreshResult:
    """Return the answer to `request`: what changed from `before` to `records`, in its scope."""
    in_scope = {name: record for name, record in records.items() if _asks_for(request, name)}
    after = {name: record.revision for name, record in in_scope.items() if record.revision is not None}
    change = difference({name: old for name, old in before.items() if _asks_for(request, name)}, after)
    return RefreshResult(
        id=request.id,
        status=RefreshStatus.SCANNED,
        at=datetime.now(UTC),
        dry_run=request.dry_run,
        discovered=change.discovered,
        updated=change.updated,
        removed=change.removed,
        rejected={
            name: record.reason
            for name, record in sorted(in_scope.items())
            if record.state is AdapterState.REJECTED and record.reason is not None
        },
        total=sum(1 for record in records.values() if record.revision is not None),
        seq=seq,
    )


def failed(request: RefreshRequest, reason: Reason) -> RefreshResult:
    """Return the answer to a refresh whose look at the disk failed: nothing was changed."""
    return RefreshResult(
        id=request.id,
        status=RefreshStatus.FAILED,
        at=datetime.now(UTC),
        dry_run=request.dry_run,
        error=reason,
    )


def _asks_for(request: RefreshRequest, name: str) -> bool:
    return not request.names or name in request.names
