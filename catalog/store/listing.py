"""What readers are given: the catalog as it was listed, and what changed after that."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from loradrop.catalog.adapter import Adapter
from loradrop.catalog.errors import RecordInvalid
from loradrop.catalog.wire import decode_adapter


@dataclass(frozen=True, slots=True)
class Listing:
    """The whole catalog at `seq` of `epoch`.

    `unreadable` are names whose record does not decode: they exist, and nothing else is known of them.
    Until a catalog is `complete`, a missing name must not count as removed. A `damaged` one, whose number of
    records is not the one it states, never is: the watcher replaces it. `size` is the number of records, also
    for a caller that keeps none of `adapters`.
    """

    epoch: str
    seq: int
    cursor: str
    adapters: Mapping[str, Adapter]
    unreadable: frozenset[str] = frozenset()
    complete: bool = True
    damaged: bool = False
    size: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """What changed up to `seq`: name -> record, or None where the name is gone.

    A batch without changes means that the reader is in step.
    """

    seq: int
    cursor: str
    changes: Mapping[str, Adapter | None]


def decode_records(records: Mapping[str, str]) -> tuple[dict[str, Adapter], frozenset[str]]:
    """Return the adapters by name, and the names whose record does not decode or is another name's."""
    adapters: dict[str, Adapter] = {}
    for name, record in records.items():
        with suppress(RecordInvalid):
            adapter = decode_adapter(record)
            if adapter.name == name:
                adapters[name] = adapter
    return adapters, frozenset(records.keys() - adapters.keys())
