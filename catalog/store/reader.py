"""The readers' side of the catalog: list it, then follow the stream from there.

`listing` returns the whole catalog and a cursor, read in one transaction. `follow` reads the stream from that
cursor with plain XREAD, so that every reader sees every event. Within an epoch, seq has no gaps; whatever
breaks the sequence raises ResyncNeeded, and the reader lists again. Worked through:

    listing                    epoch e1, seq 7, cursor 100-0, adapters {a, b}
    XREAD after 100-0          101-0: e1 8 c      as expected: yield {c: record}, continue at seq 8
    XREAD times out            meta says e1 8     in step: yield an empty batch
    XREAD after 101-0          109-0: e1 31 d     a gap, as the stream was trimmed behind 101-0: ResyncNeeded
    XREAD times out            meta says e1 5     a regress, as Redis fell back to older data: ResyncNeeded
    XREAD times out            meta says e2 0     a new epoch, as the catalog was replaced: ResyncNeeded
    XREAD times out            meta says e1 9     ahead: read once more without blocking; still nothing means
                                                  that the stream is another one: ResyncNeeded

An idle stream proves nothing, hence the look at meta after each block without an entry. An entry carries the
record as it became, so a reader in step asks nothing more. A reader that is far behind reads the newest
records from the hash instead: what was published in between is no longer needed.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import TypeVar

from loradrop.catalog.adapter import Adapter
from loradrop.catalog.errors import (
    NO_CATALOG,
    CatalogRefused,
    CatalogUnavailable,
    RecordInvalid,
    ResyncNeeded,
)
from loradrop.catalog.events import AdapterEvent, EventType
from loradrop.catalog.store.connection import Connection, translated
from loradrop.catalog.store.listing import Batch, Listing, decode_records
from loradrop.catalog.wire import SCHEMA, decode_adapter, decode_event, decode_place, decode_seq

_Decoded = TypeVar("_Decoded")

_COUNT = 256
_MANY = 1_000
"""Fewer missed changes than this are read one by one in any case."""
_START = "0-0"
_INCOMPLETE_BLOCK_SECONDS = 0.2
"""How long a read blocks while the catalog is incomplete."""


class Reader:
    """Reads one pool's catalog. Invariant: a listing plus its batches is the catalog, or ResyncNeeded."""

    def __init__(self, connection: Connection, *, block_seconds: float | None = None) -> None:
        """Read over `connection`; each read of the stream blocks for `block_seconds`, or the connection's."""
        self._connection = connection
        self._block_seconds = connection.timeouts.block_seconds if block_seconds is None else block_seconds

    async def listing(self) -> Listing:
        """Return the whole catalog.

        Raises CatalogUnavailable, also where no watcher has ever published: no catalog is not an empty one;
        and CatalogRefused where another version of loradrop wrote it.
        """
        keys = self._connection.keys
        async with translated(), self._connection.commands.pipeline(transaction=True) as pipeline:
            pipeline.hmget(keys.meta, "epoch", "seq", "schema", "complete", "count")
            pipeline.hgetall(keys.adapters)
            pipeline.xrevrange(keys.events, count=1)
            (epoch, seq, schema, complete, count), records, newest = await pipeline.execute()
        if epoch is None:
            raise CatalogUnavailable(NO_CATALOG)
        if schema != SCHEMA:
            raise CatalogRefused(
                f"The catalog was written in schema {schema}, this process reads {SCHEMA}. "
                "Run the same version of loradrop as the watcher."
            )
        adapters, unreadable = decode_records(records)
        damaged = count != str(len(records))
        return Listing(
            epoch=epoch,
            seq=decode_seq(seq),
            cursor=newest[0][0] if newest else _START,
            adapters=adapters,
            unreadable=unreadable,
            complete=complete == "1" and not damaged,
            damaged=damaged,
            size=len(records),
        )

    async def get(self, name: str) -> Adapter | None:
        """Return one record, or None; raises RecordInvalid."""
        async with translated():
            record = await self._connection.commands.hget(self._connection.keys.adapters, name)
        return None if record is None else decode_adapter(record)

    async def follow(self, listing: Listing) -> AsyncGenerator[Batch, None]:
        """Yield what changes after `listing`, without end; an empty batch after each block without an entry.

        Raises ResyncNeeded (list again: also once an incomplete catalog is complete, and where a listing is
        less to read than all that was missed) and CatalogUnavailable (wait, then follow on or list again).
        """
        seq, cursor = listing.seq, listing.cursor
        block_seconds = (
            self._block_seconds if listing.complete else min(_INCOMPLETE_BLOCK_SECONDS, self._block_seconds)
        )
        while True:
            entries = await self._read(cursor, block_seconds)
            if not listing.complete and not listing.damaged and await self._is_complete():
                raise ResyncNeeded("The catalog is complete now.")
            if not entries and await self._is_ahead(listing.epoch, seq):
                entries = await self._read(cursor)
                if not entries:
                    raise ResyncNeeded(f"The catalog is ahead of seq {seq}, and the stream does not say why.")
            if not entries:
                yield Batch(seq, cursor, {})
                continue
            if len(entries) == _COUNT and await self._newest_seq() - seq >= max(_MANY, listing.size):
                raise ResyncNeeded(f"As many changes came after seq {seq} as there are adapters.")
            for _, fields in entries:
                if _followed(decode_place, fields) != (listing.epoch, seq + 1):
                    raise ResyncNeeded(
                        f"Expected seq {seq + 1} of epoch {listing.epoch}, "
                        f"read {fields['seq']} of {fields['epoch']}."
                    )
                seq += 1
            cursor = entries[-1][0]
            yield Batch(seq, cursor, await self._changes(entries, listing.epoch, seq))

    async def events_after(self, cursor: str) -> list[tuple[str, AdapterEvent]]:
        """Return (entry id, event) of the entries after `cursor`, blocking until there is one.

        `$` stands for "from now on". Says nothing about gaps: for displays, not for workers.
        """
        entries = await self._read(cursor, self._block_seconds)
        return [(entry_id, _followed(decode_event, fields)) for entry_id, fields in entries]

    async def newest_cursor(self) -> str:
        """Return the id of the newest entry, from where to follow what comes next."""
        async with translated():
            newest = await self._connection.commands.xrevrange(self._connection.keys.events, count=1)
        return str(newest[0][0]) if newest else _START

    async def holds(self, entry_id: str) -> bool:
        """Return whether an entry is still in the stream: then nothing after it has been trimmed."""
        async with translated():
            return bool(
                await self._connection.commands.xrange(self._connection.keys.events, entry_id, entry_id)
            )

    async def _read(
        self, cursor: str, block_seconds: float | None = None
    ) -> list[tuple[str, dict[str, str]]]:
        connection, block = self._connection, block_seconds and max(1, int(block_seconds * 1000))
        client = connection.commands if block is None else connection.blocking
        async with translated():
            answer = await client.xread({connection.keys.events: cursor}, count=_COUNT, block=block)
        entries: list[tuple[str, dict[str, str]]] = answer[0][1] if answer else []
        return entries

    async def _newest_seq(self) -> int:
        async with translated():
            return decode_seq(await self._connection.commands.hget(self._connection.keys.meta, "seq") or "0")

    async def _is_ahead(self, epoch: str, seq: int) -> bool:
        """Return whether the catalog has come further than `seq`; raises ResyncNeeded where it fell back."""
        async with translated():
            now = await self._connection.commands.hmget(self._connection.keys.meta, "epoch", "seq")
        if now[0] != epoch:
            raise ResyncNeeded(f"The catalog was replaced: epoch {now[0]} instead of {epoch}.")
        if decode_seq(now[1]) < seq:
            raise ResyncNeeded(f"Redis fell back to seq {now[1]}, behind {seq}.")
        return decode_seq(now[1]) > seq

    async def _is_complete(self) -> bool:
        async with translated():
            return bool(await self._connection.commands.hget(self._connection.keys.meta, "complete") == "1")

    async def _changes(
        self, entries: list[tuple[str, dict[str, str]]], epoch: str, seq: int
    ) -> dict[str, Adapter | None]:
        records = {fields["name"]: fields.get("record") for _, fields in entries}
        if len(entries) == _COUNT or None in records.values():  # behind, or written by an older watcher
            records = await self._newest(sorted(records), epoch, seq)
            deleted = {fields["name"]: fields.get("type") == EventType.DELETED for _, fields in entries}
            if any(record is None and not deleted[name] for name, record in records.items()):
                raise ResyncNeeded("Records of the catalog were deleted later, or lost.")
        found, unreadable = decode_records({name: record for name, record in records.items() if record})
        return {name: found.get(name) for name in sorted(records) if name not in unreadable}

    async def _newest(self, names: list[str], epoch: str, seq: int) -> dict[str, str | None]:
        """Return the records of `names`, None where there is none any more, at `seq` of `epoch` or later."""
        keys = self._connection.keys
        async with translated(), self._connection.commands.pipeline(transaction=True) as pipeline:
            pipeline.hmget(keys.meta, "epoch", "seq")
            pipeline.hmget(keys.adapters, names)
            (epoch_now, seq_now), records = await pipeline.execute()
        if epoch_now != epoch or decode_seq(seq_now) < seq:  # what is not there may only be lost
            raise ResyncNeeded(f"The catalog was replaced, or fell back, behind seq {seq} of epoch {epoch}.")
        return dict(zip(names, records, strict=True))


def _followed(decode: Callable[[Mapping[str, str]], _Decoded], fields: Mapping[str, str]) -> _Decoded:
    """Return what `fields` hold; no reader can follow a stream of which an entry does not decode."""
    try:
        return decode(fields)
    except RecordInvalid as error:
        raise ResyncNeeded(error.message) from error
