"""What to write: the records that must change and the names proven gone, from what is known of the prefix.

Pure: a plan is a value, made from the state of the prefix and from what the catalog holds; the state changes
only when the plan is written and committed. In a turn of the watcher:

    state                        catalog            plan
    sql: finding ready, dirty    sql: revision 1    records    sql -> revision 2
    new: finding ready, dirty                       records    new -> revision 1
    old: absent once             old: revision 1    look_again old -> in 1 s
    bad: absent twice, 1 s apart bad: revision 1    removals   bad

The catalog keeps the last good revision of an adapter, also where Redis has lost its record since: `records`
are what Redis holds, and `remembered` also what it is known to have held.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from itertools import islice

from loradrop.catalog.adapter import Adapter, AdapterState, Revision
from loradrop.catalog.printable import printable
from loradrop.watcher.prefix.naming import collision_reason
from loradrop.watcher.state.plan import Plan
from loradrop.watcher.state.prefix_state import PrefixState
from loradrop.watcher.state.records import is_rewording, record_for, with_collision
from loradrop.watcher.state.removal import decide_removals, is_mass

_REWORDED_EVERY = timedelta(seconds=5)
"""How often the growing size of an incomplete adapter is published."""

_AT_ONCE = 1_000
"""Records written in one turn: few enough to take in hints and requests in between."""


def plan(
    state: PrefixState,
    records: Mapping[str, Adapter],
    remembered: Mapping[str, Adapter],
    *,
    now: datetime,
    is_hurried: Callable[[str], bool] = lambda _name: False,
    confirmed: bool = False,
) -> Plan:
    """Return what to write over `records` now.

    `is_hurried` says whether a refresh waits to hear of a name; `confirmed`, that the operator means what
    vanished to be gone.
    """
    considered = dict(islice(state.dirty.items(), _AT_ONCE))
    changed = {}
    for name in considered:
        known = records.get(printable(name))
        record = wanted_record(state, name, remembered, now=now)
        if record is not None and record is not known and not _is_chatter(record, known, now):
            changed[name] = record
    accepts_root = state.root.on_other_device and _may_accept_root(state, confirmed)
    if state.root.on_other_device and not accepts_root:
        return Plan(considered=considered, records=changed, removals={}, look_again={})
    held = frozenset() if confirmed else mass_removal(state, remembered)
    absent = {name: absence for name in state.lost if (absence := state.names[name].absence) is not None}
    removals = decide_removals(absent, state.rule, held=held, is_hurried=is_hurried, confirmed=confirmed)
    return Plan(
        considered=considered,
        records=changed,
        removals={name: absent[name] for name in removals.proven},
        look_again=removals.look_again,
        held=held - set(removals.proven),
        accepted_root=state.root.seen if accepts_root else None,
    )


def wanted_record(
    state: PrefixState, name: str, records: Mapping[str, Adapter], *, now: datetime
) -> Adapter | None:
    """Return the record the catalog should hold for `name`; that of `records` itself where nothing changed.

    None where nothing is known of it.
    """
    known = records.get(printable(name))
    seen = state.names.get(name)
    if seen is None or seen.absence is not None:
        return known  # it stays as it was until its removal is proven
    found = seen.unreadable or seen.finding
    if found is None:
        return known
    record = record_for(name, state.prefix, found, known, now=now)
    if record.state is not AdapterState.READY:
        return record
    others = state.colliding(name)
    if not others or _was_first(name, others, records):
        return record
    return with_collision(record, known, collision_reason(name, others[0]))


def mass_removal(state: PrefixState, records: Mapping[str, Adapter]) -> frozenset[str]:
    """Return the lost names that were served, where they are so many that it is taken for an accident."""

    def is_served(name: str) -> bool:
        record = records.get(printable(name))
        return state.names[name].is_unexamined or (record is not None and record.revision is not None)

    def count_served() -> int:
        unrecorded = (n for n, s in state.names.items() if s.is_unexamined and printable(n) not in records)
        return len(served(records)) + sum(1 for _ in unrecorded)

    lost = frozenset(name for name in state.lost if is_served(name))
    return lost if is_mass(len(lost), count_served, state.rule) else frozenset()


def served(records: Mapping[str, Adapter]) -> dict[str, Revision]:
    """Return name -> revision of the records that have one."""
    return {name: record.revision for name, record in records.items() if record.revision is not None}


def _may_accept_root(state: PrefixState, confirmed: bool) -> bool:
    """Return whether a listing of the directory that is at the prefix now lacks nothing, or need not."""
    lacks_nothing = not any(state.names[name].is_missing for name in state.lost)
    return state.root.is_listed and (confirmed or lacks_nothing)


def _was_first(name: str, others: Iterable[str], records: Mapping[str, Adapter]) -> bool:
    """Return whether `name` was served before the names it collides with came."""
    known = records.get(name)
    if known is None or known.revision is None:
        return False
    return not any((other := records.get(twin)) is not None and other.revision is not None for twin in others)


def _is_chatter(record: Adapter, known: Adapter | None, now: datetime) -> bool:
    if record.state is not AdapterState.INCOMPLETE or known is None:
        return False
    return is_rewording(record, known) and now - known.updated_at < _REWORDED_EVERY
