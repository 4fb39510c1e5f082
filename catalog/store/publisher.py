"""The leading watcher's side of the catalog: lead, publish, report, resign.

The right to write is a lease on the `watcher` key and a fence that grows with each new owner. Every
write carries the fence, the epoch and the last seq this publisher knows; a write that does not fit what
Redis holds changes nothing and raises LeaseLost, and so does a catalog that was damaged. The remedy is always
the same: lead again, list what the catalog holds, and publish what differs from the disk. A damaged catalog
is replaced by an empty one of a new epoch first, so that every reader lists it again once it is complete.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from loradrop.catalog.adapter import Adapter, Reason
from loradrop.catalog.bounds import bounded_reason
from loradrop.catalog.errors import LeaseHeld, LeaseLost
from loradrop.catalog.status import WatcherStatus
from loradrop.catalog.store import scripts
from loradrop.catalog.store.connection import Connection, translated
from loradrop.catalog.wire import encode_adapter, is_published_as, to_fields

LEASE = timedelta(seconds=10)
"""The lease of a watcher that has not reported for this long expires."""

_MIN_EVENTS = 10_000
_EVENTS_PER_ADAPTER = 10
_PIPELINE = 200
"""Changes sent at once: enough to hide the round trip, few enough not to block Redis for others."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to publish: valid while the catalog's fence and epoch are these."""

    fence: str
    epoch: str


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A name to remove from the catalog, and why."""

    name: str
    reason: Reason


class Publisher:
    """Writes one pool's catalog. Invariant: a change is in the hash and in the stream, or in neither."""

    def __init__(self, connection: Connection, *, owner: str) -> None:
        """Write as `owner`, which is unique among living watchers."""
        self._connection = connection
        self._owner = owner
        self._lease: Lease | None = None
        self._epoch = ""  # outlives the lease: a regress is noticed when this publisher leads again
        self._seq = 0
        self._is_complete = False
        self._completing = asyncio.Lock()
        """Held while Redis and `_is_complete` may differ: a heartbeat in between would call that damage."""
        self._is_damaged = False
        register = connection.commands.register_script
        self._publish = register(scripts.PUBLISH)
        self._withdraw = register(scripts.WITHDRAW)
        self._lead = register(scripts.LEAD)
        self._replace = register(scripts.REPLACE)
        self._root = ""
        self._complete = register(scripts.COMPLETE)
        self._expect_root = register(scripts.EXPECT_ROOT)
        self._report = register(scripts.REPORT)
        self._resign = register(scripts.RESIGN)

    @property
    def lease(self) -> Lease:
        """The lease held; raises LeaseLost where there is none."""
        if self._lease is None:
            raise LeaseLost("No lease is held: lead before publishing.")
        return self._lease

    @property
    def seq(self) -> int:
        """The last seq this publisher has written or read."""
        return self._seq

    @property
    def root(self) -> str:
        """Which directory the catalog expects at the prefix, in the watcher's words; empty where unknown."""
        return self._root

    async def lead(self, *, presumed_dead: str = "") -> Lease:
        """Take or keep the lease, and return it.

        A new epoch begins where Redis holds no catalog, a damaged one, or an older one than this publisher
        has written.
        `presumed_dead` names an owner whose lease may be taken before it runs out.
        Raises LeaseHeld where another owner is alive, and CatalogUnavailable.
        """
        keys = self._connection.keys
        new_epoch = secrets.token_hex(8)
        is_damaged, self._is_damaged = self._is_damaged, False
        async with translated():
            answer = await self._lead(
                keys=[keys.meta, keys.watcher, keys.adapters, keys.events],
                args=[self._owner, _milliseconds(LEASE), new_epoch, presumed_dead],
            )
            if answer[0] == "held":
                raise LeaseHeld(answer[1])
            fence, epoch, seq, complete = answer[1], answer[2], int(answer[3]), answer[4]
            self._root = answer[5]
            if epoch == self._epoch and (is_damaged or seq < self._seq):
                await self._replace(keys=[keys.meta, keys.adapters, keys.events], args=[fence, new_epoch])
                epoch, seq, complete = new_epoch, 0, "0"
        self._lease, self._epoch, self._seq = Lease(fence, epoch), epoch, seq
        self._is_complete = complete == "1"
        return self._lease

    async def publish(self, changes: Sequence[Adapter | Withdrawal], *, catalog_size: int) -> int:
        """Write `changes` in their order and return the catalog's seq after the last.

        `catalog_size` is the number of records there will be: the stream keeps ten events for each, and
        10 000 at least. Raises LeaseLost (the changes before the first refused one are written).
        """
        lease = self.lease
        max_events = max(_MIN_EVENTS, _EVENTS_PER_ADAPTER * catalog_size)
        for start in range(0, len(changes), _PIPELINE):
            guard = self._guard(lease)
            answers = await self._send_all(changes[start : start + _PIPELINE], guard, max_events)
            for answer in answers:
                self._seq = int(self._accepted(answer)[1])
        return self._seq

    async def complete(self) -> None:
        """Mark the catalog as complete: everything under the prefix is published; raises LeaseLost.

        Until then, a missing name must not count as removed.
        """
        lease = self.lease
        async with self._completing, translated():
            answer = await self._complete(keys=[self._connection.keys.meta], args=self._guard(lease))
            self._accepted(answer)
            self._is_complete = True

    async def expect_root(self, root: str) -> None:
        """Keep which directory to expect at the prefix, also over restarts; raises LeaseLost."""
        lease = self.lease
        async with translated():
            answer = await self._expect_root(
                keys=[self._connection.keys.meta], args=[*self._guard(lease), root]
            )
        self._accepted(answer)
        self._root = root

    async def report(self, status: WatcherStatus) -> None:
        """Write the heartbeat, which also keeps the lease; raises LeaseLost, also for a damaged catalog."""
        keys, lease = self._connection.keys, self.lease
        degraded = status.degraded and bounded_reason(status.degraded)
        fields = [part for field in to_fields(replace(status, degraded=degraded)).items() for part in field]
        async with self._completing, translated():
            answer = await self._report(
                keys=[keys.meta, keys.watcher, keys.adapters, keys.events],
                args=[*self._guard(lease), _milliseconds(LEASE), int(self._is_complete), *fields],
            )
        self._accepted(answer)

    async def verify(self, records: Mapping[str, Adapter], *, size: int) -> None:
        """Compare `records`, as last published, with what Redis holds; raises LeaseLost where they differ.

        A heartbeat notices lost records by their number. This notices what was overwritten, and where there
        are not `size` records in all, whatever their number is said to be. Not while changes are published:
        Redis would be ahead of `records`.
        """
        key = self._connection.keys.adapters
        async with translated(), self._connection.commands.pipeline(transaction=True) as pipeline:
            pipeline.hlen(key)
            if records:
                pipeline.hmget(key, list(records))
            held, *answers = await pipeline.execute()
        if held != size:
            self._is_damaged = True
            raise LeaseLost(f"Redis holds {held} records instead of {size}. The watcher publishes all again.")
        found = answers[0] if answers else []
        for (name, record), stored in zip(records.items(), found, strict=True):
            if stored is None or not is_published_as(record, stored):
                self._is_damaged = True
                raise LeaseLost(
                    f"The record of {name!r} in Redis is damaged. The watcher publishes all again."
                )

    async def resign(self) -> None:
        """Give the lease back, so that the next watcher need not wait for it to run out."""
        self._lease = None
        async with translated():
            await self._resign(keys=[self._connection.keys.watcher], args=[self._owner])

    def _guard(self, lease: Lease) -> list[Any]:
        return [lease.fence, lease.epoch, self._seq]

    async def _send_all(
        self, changes: Sequence[Adapter | Withdrawal], guard: list[Any], maxlen: int
    ) -> list[list[str]]:
        commands = self._connection.commands
        async with translated():
            if len(changes) == 1:  # a pipeline asks first which scripts Redis knows: a second round trip
                return [await self._send(commands, changes[0], guard, maxlen)]
            async with commands.pipeline(transaction=False) as pipeline:
                for change in changes:
                    await self._send(pipeline, change, guard, maxlen)
                answers: list[list[str]] = await pipeline.execute()
                return answers

    async def _send(self, client: Any, change: Adapter | Withdrawal, guard: list[Any], maxlen: int) -> Any:
        keys = [self._connection.keys.meta, self._connection.keys.adapters, self._connection.keys.events]
        if isinstance(change, Adapter):
            return await self._publish(
                keys=keys, args=[*guard, encode_adapter(change), maxlen], client=client
            )
        now = msgspec.to_builtins(datetime.now(UTC))
        reason = bounded_reason(change.reason)
        args = [*guard, change.name, reason.code, reason.message, now, maxlen]
        return await self._withdraw(keys=keys, args=args, client=client)

    def _accepted(self, answer: list[str]) -> list[str]:
        if answer[0] == "ok":
            return answer
        why = {
            "fence": "another watcher has taken over",
            "epoch": "the catalog was replaced",
            "regress": "Redis fell back to older data",
            "damaged": "keys, fields or records of the catalog were lost or overwritten",
        }[answer[0]]
        if answer[0] == "fence":
            self._lease = None
        self._is_damaged = answer[0] == "damaged"
        raise LeaseLost(f"Publishing was refused: {why}. The watcher leads and lists again.")


def _milliseconds(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1000)
