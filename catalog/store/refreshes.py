"""Manual refreshes in Redis, from the request to the result.

A request is an entry of the `refreshes` stream, for the watcher, and a hash with a time to live, for clients
that ask for the result. A request without a result is answered by the next watcher that leads.
"""

import math
from collections import deque
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from loradrop.catalog.bounds import MAX_LABEL_BYTES, MAX_NAMES_BYTES, bounded_result, names_bytes, shortened
from loradrop.catalog.errors import (
    NoWatcher,
    RecordInvalid,
    RequestTooLarge,
    TooManyRefreshes,
    UnknownRefresh,
)
from loradrop.catalog.events import RefreshRequest
from loradrop.catalog.status import RefreshResult, RefreshStatus
from loradrop.catalog.store import scripts
from loradrop.catalog.store.connection import Connection, translated
from loradrop.catalog.wire import from_fields, to_fields

RESULT_TTL = timedelta(hours=1)
"""How long the result of a refresh can be read, where later ones do not take its place."""

_MAX_KEPT_BYTES = 32 * 1024 * 1024

MAX_PER_MINUTE = 600
"""Of one pool: a watcher can handle far more, and the stream must hold those of a whole minute."""

_MAX_REQUESTS = 1_000


class Refreshes:
    """The refreshes of one pool."""

    def __init__(
        self,
        connection: Connection,
        *,
        max_per_minute: int = MAX_PER_MINUTE,
        max_kept_bytes: int = _MAX_KEPT_BYTES,
        block_seconds: float | None = None,
    ) -> None:
        """Accept `max_per_minute` requests of a pool, and keep `max_kept_bytes` of own results.

        Reads block for `block_seconds`, or as long as the connection's do.
        """
        self._connection = connection
        self._block_seconds = connection.timeouts.block_seconds if block_seconds is None else block_seconds
        self._max_per_minute = max_per_minute
        self._max_kept_bytes = max_kept_bytes
        self._kept: deque[tuple[str, int]] = deque(maxlen=_MAX_REQUESTS)
        self._request = connection.commands.register_script(scripts.REQUEST)

    async def request(self, request: RefreshRequest) -> None:
        """Ask the watcher for a refresh.

        Raises NoWatcher, TooManyRefreshes and RequestTooLarge, with nothing left behind.
        """
        if names_bytes(request.names) > MAX_NAMES_BYTES:
            raise RequestTooLarge(MAX_NAMES_BYTES, what="The names have")
        keys = self._connection.keys
        fields = to_fields(replace(request, asked_by=shortened(request.asked_by, MAX_LABEL_BYTES)))
        async with translated():
            answer, *milliseconds = await self._request(
                keys=[keys.watcher, keys.refreshes, keys.refresh(request.id)],
                args=[
                    int(RESULT_TTL.total_seconds() * 1000),
                    request.id,
                    _MAX_REQUESTS,
                    self._max_per_minute,
                    fields["at"],
                    fields["dry_run"],
                    *(part for field in fields.items() for part in field),
                ],
            )
        if answer == "later":
            raise TooManyRefreshes(
                per_minute=self._max_per_minute, retry_after_seconds=max(1, math.ceil(milliseconds[0] / 1000))
            )
        if answer == "no watcher":
            raise NoWatcher(
                "No watcher is alive to look at the prefix. Start one with `loradrop watch`, then ask again."
            )

    async def result(self, refresh_id: str) -> RefreshResult:
        """Return how far a refresh has come; raises UnknownRefresh."""
        async with translated():
            fields = await self._connection.commands.hgetall(self._connection.keys.refresh(refresh_id))
        if not fields:
            raise UnknownRefresh(
                f"No refresh has the id {refresh_id!r}; results are kept for an hour. Ask for a new one."
            )
        return from_fields(RefreshResult, fields)

    async def asked(self, count: int) -> list[tuple[RefreshRequest, RefreshStatus | None]]:
        """Return the last `count` requests, the newest first, and how far each has come.

        A status is None where the result has expired. What is not of our shape is left out.
        """
        keys, commands = self._connection.keys, self._connection.commands
        requests = []
        async with translated(), commands.pipeline(transaction=False) as pipeline:
            for _, fields in await commands.xrevrange(keys.refreshes, count=count):
                with suppress(RecordInvalid):
                    requests.append(from_fields(RefreshRequest, fields))
            for request in requests:
                pipeline.hget(keys.refresh(request.id), "status")
            statuses = await pipeline.execute()
        return [
            (request, RefreshStatus(status) if status in set(RefreshStatus) else None)
            for request, status in zip(requests, statuses, strict=True)
        ]

    async def requests_after(self, cursor: str) -> tuple[str, list[RefreshRequest]]:
        """Return the requests after `cursor` and the new cursor, blocking until there is one.

        Requests that were answered, or whose result has expired, are left out. Start with `0-0`.
        """
        keys = self._connection.keys
        async with translated():
            answer = await self._connection.blocking.xread(
                {keys.refreshes: cursor}, count=100, block=max(1, int(self._block_seconds * 1000))
            )
        if not answer:
            return cursor, []
        waiting = [request for _, fields in answer[0][1] if (request := await self._unanswered(fields))]
        return str(answer[0][1][-1][0]), waiting

    async def answer(self, result: RefreshResult) -> None:
        """Write the watcher's result, and delete the oldest ones it has written where they are too much."""
        key = self._connection.keys.refresh(result.id)
        fields = to_fields(bounded_result(result))
        self._kept.append((key, sum(len(value.encode()) for value in fields.values())))
        async with translated(), self._connection.commands.pipeline(transaction=True) as pipeline:
            pipeline.hset(key, mapping=fields)
            pipeline.pexpire(key, RESULT_TTL)
            while sum(size for _, size in self._kept) > self._max_kept_bytes:
                pipeline.delete(self._kept.popleft()[0])
            await pipeline.execute()

    async def _unanswered(self, fields: dict[str, str]) -> RefreshRequest | None:
        try:
            request = from_fields(RefreshRequest, fields)
        except RecordInvalid:
            return None  # not written by us: no client waits for it
        async with translated():
            status = await self._connection.commands.hget(self._connection.keys.refresh(request.id), "status")
        return request if status == RefreshStatus.PENDING else None
