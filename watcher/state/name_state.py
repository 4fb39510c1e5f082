"""Everything the watcher knows of one name. Only `PrefixState` changes it."""

from copy import copy
from dataclasses import dataclass, replace

from loradrop.catalog.adapter import AdapterState, Reason
from loradrop.catalog.backoff import Backoff
from loradrop.watcher.prefix.findings import Finding, Signature, Unreadable
from loradrop.watcher.state.removal import Absence

_ENDLESS = frozenset({"unstable", "writer_active"})
"""Reasons to settle that may last for ever: a refresh does not wait for them."""


@dataclass(slots=True)
class NameState:
    """One name, from the first hint or listing of it to its proven removal.

    `finding` is the last that was read; an `unreadable` name keeps it. `retry` is how long to wait before it
    is read again. `is_missing`: the last listing of the prefix lacked it. `absence`: it was examined and not
    found. `is_unexamined`: it was seen and never examined, so it counts as one that may be served.
    `is_recorded`: the catalog holds, or held, a record of it.
    `hinted_at` is when (monotonic seconds) the first hint came that nothing was published for yet, and
    `arrived` says that the last hint was a rename of the whole directory.
    """

    finding: Finding | None = None
    unreadable: Unreadable | None = None
    retry: Backoff | None = None
    absence: Absence | None = None
    is_missing: bool = False
    is_unexamined: bool = False
    is_recorded: bool = False
    arrived: bool = False
    hinted_at: float | None = None

    @property
    def signature(self) -> Signature | None:
        """The signature of the last finding: what a scan compares."""
        return None if self.finding is None else self.finding.signature

    @property
    def is_unsettled(self) -> bool:
        """Whether another examination soon may find something else."""
        found = self.finding
        return found is not None and found.state is AdapterState.SETTLING and not _is_endless(found.reason)

    @property
    def is_lost(self) -> bool:
        """Whether it may be gone: missing from a listing, or examined and not found."""
        return self.is_missing or self.absence is not None

    def copy(self) -> "NameState":
        """Return an independent copy."""
        return replace(self, retry=copy(self.retry))


def _is_endless(reason: Reason | None) -> bool:
    return reason is not None and reason.code in _ENDLESS
