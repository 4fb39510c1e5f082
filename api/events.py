"""The event stream for people and programs: server-sent events over the catalog's stream.

An event's id is its entry's id in Redis, so a client that comes back with `Last-Event-ID` continues
where it was. Where that is impossible (the entries in between were trimmed, or the catalog was
replaced) it is told so with an event `resync`: list `/v1/lora_adapters` again, then go on.

While Redis is away the stream stays open: an EventSource gives up for good on anything but a 200.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import msgspec
from sse_starlette import ServerSentEvent

from loradrop.api.problems import InvalidCursor, TooManyStreams
from loradrop.catalog.adapter import Reason
from loradrop.catalog.backoff import Backoff
from loradrop.catalog.errors import CatalogDenied, CatalogRefused, CatalogUnavailable, ResyncNeeded
from loradrop.catalog.events import AdapterEvent
from loradrop.catalog.http.deadlines import Stopping, unless_stopping
from loradrop.catalog.store import Reader

logger = logging.getLogger(__name__)

_CURSOR = re.compile(r"[0-9]{1,20}(-[0-9]{1,20})?")
_CURSOR_BITS = 64
"""Of each of its two numbers, in Redis."""
_OLDEST = ("0", "0-0")
_PAUSES = (0.8, 30.0)
"""The first and the last between two tries to reach Redis, in seconds."""
_JITTER = (0.75, 1.25)


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """A place among the streams, and where its stream begins.

    `resync` says why what came before is not its continuation.
    """

    cursor: str
    resync: str = ""


class EventFeed:
    """Opens event streams. Invariant: at most `max_streams` clients have a place at once."""

    def __init__(
        self,
        reader: Reader,
        *,
        max_streams: int,
        stopping: asyncio.Event,
        pauses: tuple[float, float] = _PAUSES,
    ) -> None:
        self._reader = reader
        self._stopping = stopping
        self._max_streams = max_streams
        self._pauses = pauses
        self._starting = 0
        self._places: set[Start] = set()

    @property
    def open_streams(self) -> int:
        """How many clients follow the events now, or are about to."""
        return len(self._places) + self._starting

    async def start(self, last_event_id: str | None) -> Start:
        """Take a place, and return where to begin: after `last_event_id`, or with what comes next.

        `leave` gives it back, as the end of the stream does. Raises InvalidCursor, TooManyStreams and
        CatalogUnavailable.
        """
        if self.open_streams >= self._max_streams:
            raise TooManyStreams(
                f"{self.open_streams} clients follow the events already. Try again later, or start another "
                "API."
            )
        self._starting += 1
        try:
            start = await self._begin(last_event_id)
        finally:
            self._starting -= 1
        self._places.add(start)
        return start

    def leave(self, start: Start) -> None:
        """Give a place back."""
        self._places.discard(start)

    async def stream(
        self, start: Start, *, is_admitted: Callable[[], bool] = lambda: True
    ) -> AsyncIterator[ServerSentEvent]:
        """Yield events until this process is asked to stop, or the client's key is no longer in force."""
        try:
            if start.resync:
                yield _resync(start.resync, start.cursor)
            async for event in self._follow(start.cursor):
                if not is_admitted():
                    return
                if event is not None:
                    yield event
        except Stopping:
            return  # the end of the stream: the client comes back, to another API or the next
        finally:
            self.leave(start)

    async def _begin(self, last_event_id: str | None) -> Start:
        if last_event_id is None:
            return Start(await self._reader.newest_cursor())
        if not _is_cursor(last_event_id):
            raise InvalidCursor(
                "Last-Event-ID is not an id of this stream. Send the last `id` received, or no such header."
            )
        if last_event_id in _OLDEST or await self._reader.holds(last_event_id):
            return Start(last_event_id)
        return Start(
            await self._reader.newest_cursor(), f"Events after {last_event_id} are no longer all there."
        )

    async def _follow(self, cursor: str) -> AsyncIterator[ServerSentEvent | None]:
        """Yield each event, and None where none came for a while."""
        expected: tuple[str, int] | None = None
        first_seconds, last_seconds = self._pauses
        backoff = Backoff(first_seconds, last_seconds, jitter=_JITTER)
        while True:
            try:
                entries, why_not = await self._read(cursor)
                if why_not:
                    cursor, expected = await self._reader.newest_cursor(), None
                    yield _resync(why_not, cursor)
            except (CatalogUnavailable, CatalogDenied, CatalogRefused) as error:
                logger.debug("event stream waits code=%s reason=%s", error.code, error.message)
                yield ServerSentEvent(comment="Redis is away, waiting for it")
                await asyncio.sleep(backoff.pause_seconds())
                continue
            backoff.reset()
            if not entries:
                yield None
            for entry_id, event in entries:
                if expected not in (None, (event.epoch, event.seq)):
                    yield _resync("Events in between are no longer there, or the catalog was replaced.")
                yield _sent(entry_id, event)
                cursor, expected = entry_id, (event.epoch, event.seq + 1)

    async def _read(self, cursor: str) -> tuple[list[tuple[str, AdapterEvent]], str]:
        try:
            return await unless_stopping(self._stopping, self._reader.events_after(cursor)), ""
        except ResyncNeeded as error:
            return [], error.message


def _is_cursor(text: str) -> bool:
    if not _CURSOR.fullmatch(text):
        return False
    return all(int(number) < 1 << _CURSOR_BITS for number in text.split("-"))


def _sent(entry_id: str, event: AdapterEvent) -> ServerSentEvent:
    return ServerSentEvent(_encode(event), event=event.type, id=entry_id)


def _resync(message: str, cursor: str | None = None) -> ServerSentEvent:
    reason = Reason("resync_needed", f"{message} List /v1/lora_adapters again, then go on.")
    return ServerSentEvent(_encode({"reason": reason}), event="resync", id=cursor)


def _encode(value: object) -> str:
    return msgspec.json.encode(value).decode()
