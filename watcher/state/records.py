"""What is on disk against what the catalog says: which records must change, and what changed for clients.

The catalog keeps the last good revision of an adapter while the disk says something else, so a record
follows from two things: what was found, and what the record said before. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from loradrop.catalog.adapter import Adapter, AdapterState, Reason, Revision
from loradrop.catalog.printable import printable
from loradrop.watcher.prefix.findings import Facts, Finding, Unreadable


@dataclass(frozen=True, slots=True)
class Difference:
    """What is served now and was not, or no longer, or with other bytes: names, in order."""

    discovered: tuple[str, ...]
    updated: tuple[str, ...]
    removed: tuple[str, ...]


def record_for(
    name: str, prefix: str, found: Finding | Unreadable, known: Adapter | None, *, now: datetime
) -> Adapter:
    """Return the record `name` should have; `known` itself where nothing about it changed."""
    record = _wanted(name, prefix, found, known, now)
    if known is not None and _says_the_same(record, known):
        return known
    return record


def is_rewording(record: Adapter, known: Adapter | None) -> bool:
    """Return whether `record` differs from `known` only in the wording of the same reason."""
    if known is None or record.reason is None or known.reason is None:
        return False
    return (
        _says_the_same(replace(record, reason=known.reason), known)
        and record.reason.code == known.reason.code
    )


def with_collision(record: Adapter, known: Adapter | None, reason: Reason) -> Adapter:
    """Return `record` as the rejection of a name that collides with another; what is served stays served."""
    if known is not None and known.revision is not None:
        record = replace(known, updated_at=record.updated_at)
    else:
        record = replace(record, revision=None, size_bytes=0, format=None, rank=None, base_model=None)
    rejected = replace(record, state=AdapterState.REJECTED, reason=reason)
    return known if known is not None and _says_the_same(rejected, known) else rejected


def difference(before: Mapping[str, Revision], after: Mapping[str, Revision]) -> Difference:
    """Return how what is served (name -> revision) changed from `before` to `after`."""
    both = before.keys() & after.keys()
    return Difference(
        discovered=tuple(sorted(after.keys() - before.keys())),
        updated=tuple(sorted(name for name in both if before[name] != after[name])),
        removed=tuple(sorted(before.keys() - after.keys())),
    )


def _wanted(
    name: str, prefix: str, found: Finding | Unreadable, known: Adapter | None, now: datetime
) -> Adapter:
    record = Adapter(
        name=printable(name),
        prefix=prefix,
        path=printable(name),
        revision=None,
        state=AdapterState.UNKNOWN,
        reason=found.reason,
        discovered_at=known.discovered_at if known is not None else now,
        updated_at=now,
    )
    if isinstance(found, Finding):
        record = replace(record, state=found.state)
        if found.facts is not None and found.revision is not None:
            return _with_bytes(record, found.revision, found.facts)
    if known is None or known.revision is None:
        return record
    return _with_bytes(record, known.revision, known)


def _with_bytes(record: Adapter, revision: Revision, facts: Facts | Adapter) -> Adapter:
    return replace(
        record,
        revision=revision,
        size_bytes=facts.size_bytes,
        format=facts.format,
        rank=facts.rank,
        base_model=facts.base_model,
    )


def _says_the_same(one: Adapter, other: Adapter) -> bool:
    return (one.revision, one.state, one.reason, one.prefix, one.path) == (
        other.revision,
        other.state,
        other.reason,
        other.prefix,
        other.path,
    )
