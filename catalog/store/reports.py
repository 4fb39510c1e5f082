"""Heartbeats: what workers and the watcher report, for displays and for refreshes that wait for workers.

Every key has a time to live, so a worker that stops reporting disappears.
"""

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from loradrop.catalog.errors import RecordInvalid
from loradrop.catalog.status import WatcherStatus, WorkerAdapter, WorkerStatus
from loradrop.catalog.store.connection import Connection, translated
from loradrop.catalog.wire import (
    decode_seq,
    decode_worker_adapter,
    encode_worker_adapter,
    from_fields,
    to_fields,
)

HEARTBEAT = timedelta(seconds=2)
"""How often a worker reports when nothing happens."""

WORKER_TTL = timedelta(seconds=10)
"""The report of a worker expires after this long without a heartbeat."""

_FORGOTTEN = timedelta(days=1)
"""An expired worker's id is removed after this long: far above any clock difference between two hosts."""


@dataclass(frozen=True, slots=True)
class Meta:
    """How far the catalog has come."""

    epoch: str
    seq: int


class Reports:
    """Writes and reads the status of workers and of the watcher."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def report_worker(
        self, status: WorkerStatus, adapters: Mapping[str, WorkerAdapter | None], *, everything: bool = False
    ) -> None:
        """Write a worker's heartbeat and the adapters that changed since the last (None: forget it).

        With `everything`, `adapters` is complete and replaces what was there.
        """
        keys = self._connection.keys
        own, table = keys.worker(status.id), keys.worker_adapters(status.id)
        gone = [name for name, adapter in adapters.items() if adapter is None]
        changed = {name: encode_worker_adapter(a) for name, a in adapters.items() if a is not None}
        async with translated(), self._connection.commands.pipeline(transaction=True) as pipeline:
            pipeline.hset(own, mapping=to_fields(status))
            pipeline.zadd(keys.workers, {status.id: status.last_heartbeat.timestamp()})
            pipeline.zremrangebyscore(keys.workers, "-inf", (status.last_heartbeat - _FORGOTTEN).timestamp())
            if everything:
                pipeline.delete(table)
            if gone:
                pipeline.hdel(table, *gone)
            if changed:
                pipeline.hset(table, mapping=changed)
            pipeline.pexpire(own, WORKER_TTL)
            pipeline.pexpire(table, WORKER_TTL)
            await pipeline.execute()

    async def forget_worker(self, worker_id: str) -> None:
        """Remove all that a worker has reported: it is stopping."""
        keys = self._connection.keys
        async with translated(), self._connection.commands.pipeline(transaction=True) as pipeline:
            pipeline.zrem(keys.workers, worker_id)
            pipeline.delete(keys.worker(worker_id), keys.worker_adapters(worker_id))
            await pipeline.execute()

    async def workers(self) -> dict[str, WorkerStatus]:
        """Return the living workers by id."""
        keys = self._connection.keys
        async with translated():
            ids = await self._connection.commands.zrange(keys.workers, 0, -1)
        found = await self._hashes([keys.worker(worker_id) for worker_id in ids])
        workers = {}
        for worker_id, fields in zip(ids, found, strict=True):
            # No hash: it has expired. Its clock may differ from ours, so Redis decides.
            with suppress(RecordInvalid):
                if fields:
                    workers[worker_id] = from_fields(WorkerStatus, fields)
        return workers

    async def tables(self, worker_ids: Collection[str]) -> dict[str, dict[str, WorkerAdapter]]:
        """Return what each worker reports about the adapters it has touched, by name, in one round trip.

        A record that does not decode is left out: the worker's next full report replaces it.
        """
        found = await self._hashes(
            [self._connection.keys.worker_adapters(worker_id) for worker_id in worker_ids]
        )
        tables: dict[str, dict[str, WorkerAdapter]] = {}
        for worker_id, records in zip(worker_ids, found, strict=True):
            table = tables[worker_id] = {}
            for name, record in records.items():
                with suppress(RecordInvalid):
                    table[name] = decode_worker_adapter(record)
        return tables

    async def watcher(self) -> WatcherStatus | None:
        """Return the publishing watcher's heartbeat, or None where no watcher is alive."""
        async with translated():
            fields = await self._connection.commands.hgetall(self._connection.keys.watcher)
        try:
            return from_fields(WatcherStatus, fields) if fields else None
        except RecordInvalid:
            return None  # it has the lease and has not reported yet

    async def meta(self) -> Meta | None:
        """Return the catalog's epoch and seq, or None without a catalog; raises CatalogUnavailable."""
        async with translated():
            epoch, seq = await self._connection.commands.hmget(self._connection.keys.meta, "epoch", "seq")
        return Meta(epoch, decode_seq(seq)) if epoch is not None else None

    async def _hashes(self, keys: list[str]) -> list[dict[str, str]]:
        async with translated(), self._connection.commands.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.hgetall(key)
            found: list[dict[str, str]] = await pipeline.execute()
        return found
