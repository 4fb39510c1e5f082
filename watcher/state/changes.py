"""What to write: the records that must change, from what is known of the disk and what the catalog holds."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from loradrop.catalog.adapter import Adapter, AdapterState, Reason
from loradrop.catalog.store import Withdrawal
from loradrop.watcher.prefix.naming import shown
from loradrop.watcher.state.prefix_state import Disk
from loradrop.watcher.state.records import is_rewording

_REWORDED_EVERY = timedelta(seconds=5)
"""How often the growing size of an incomplete adapter is told."""


def changed_records(
    disk: Disk,
    names: Iterable[str],
    records: Mapping[str, Adapter],
    remembered: Mapping[str, Adapter],
    *,
    now: datetime,
) -> list[Adapter]:
    """Return the records of `names` that must be written over `records`.

    `remembered` also holds records that Redis has lost: their revision stays served during an update, and
    until they are proven gone.
    """
    changes = []
    for name in names:
        before = remembered.get(shown(name))
        record = before if name in disk.absent else disk.record(name, remembered, now=now) or before
        known = records.get(shown(name))
        if record is None or record is known or _is_chatter(record, known, now):
            continue
        changes.append(record)
    return changes


def withdrawals(names: Iterable[str], records: Mapping[str, Adapter]) -> list[Withdrawal]:
    """Return the withdrawal of those of `names`, all proven gone, that the catalog holds."""
    return [
        Withdrawal(shown(name), Reason("gone", "Its directory is no longer in the prefix."))
        for name in names
        if shown(name) in records
    ]


def _is_chatter(record: Adapter, known: Adapter | None, now: datetime) -> bool:
    if record.state is not AdapterState.INCOMPLETE or known is None:
        return False
    return is_rewording(record, known) and now - known.updated_at < _REWORDED_EVERY
