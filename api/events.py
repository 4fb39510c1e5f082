"""The event stream for people and programs: server-sent events over the catalog's stream.

An event's id is its entry's id in Redis, so a client that comes back with `Last-Event-ID` continues
where it was. Where that is impossible (the entries in between were trimmed, or the catalog was
replaced) it is told so with an event `resync`: list `/v1/lora_adapters` again, then go on.

While Redis is away the stream stays open: an EventSource gives up for good on anything but a 200.
"""

import asyncio
import logging
import random
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel
from sse_starlette import ServerSentEvent

from loradrop.api.problems import InvalidCursor, Stopping, TooManyStreams, unless_stopping
from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.errors import CatalogDenied, CatalogRefused, CatalogUnavailable, ResyncNeeded
from loradrop.catalog.events import AdapterEvent, EventType
from loradrop.catalog.http.views import ReasonView
from loradrop.catalog.store import Reader

logger = logging.getLogger(__name__)

_CURSOR = re.compile(r"[0-9]{1,20}(-[0-9]{1,20})?")
_CURSOR_BITS = 64
"""Of each of its two numbers, in Redis."""
_OLDEST = ("0", "0-0")
_FIRST_DELAY_SECONDS = 0.8
_LAST_DELAY_SECONDS = 30.0


class EventView(BaseModel):
    """The data of one server-sent event. Within an epoch, `seq` has no gaps."""

    epoch: str
    seq: int
    type: EventType
    name: str
    revision: str | None
    state: AdapterState | None
    reason: ReasonView | None
    at: datetime


class ResyncView(BaseModel):
    """The data of the event `resync`: list the adapters again, then go on."""

    reason: ReasonView


@dataclass(frozen=True, slots=True)
class Start:
    """Where a stream begins; `resync` says why what came before is not its continuation."""

    cursor: str
    resync: str = ""


class EventFeed:
    """Opens event streams, up to `max_streams` at once."""

    def __init__(self, reader: Reader, *, max_streams: int, stopping: asyncio.Event) -> None:
        self._reader = reader
        self._stopping = stopping
        self._max_streams = max_streams
        self._open = 0

    @property
    def open_streams(self) -> int:
        """How many clients follow the events now."""
        return self._open

    async def start(self, last_event_id: str | None) -> Start:
        """Return where to begin: after `last_event_id`, or with what comes next.

        Raises InvalidCursor, TooManyStreams and CatalogUnavailable.
        """
        if self._open >= self._max_streams:
            raise TooManyStreams(
                f"{self._open} clients follow the events already. Try again later, or start another API."
            )
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

    async def stream(self, start: Start) -> AsyncIterator[ServerSentEvent]:
        """Yield events until this process is asked to stop."""
        self._open += 1
        try:
            if start.resync:
                yield _resync(start.resync, start.cursor)
            async for event in self._follow(start.cursor):
                yield event
        except Stopping:
            return  # the end of the stream: the client comes back, to another API or the next
        finally:
            self._open -= 1

    async def _follow(self, cursor: str) -> AsyncIterator[ServerSentEvent]:
        expected: tuple[str, int] | None = None
        delay = _FIRST_DELAY_SECONDS
        while True:
            try:
                entries, why_not = await self._read(cursor)
                if why_not:
                    cursor, expected = await self._reader.newest_cursor(), None
                    yield _resync(why_not, cursor)
            except (CatalogUnavailable, CatalogDenied, CatalogRefused) as error:
                logger.debug("event stream waits code=%s reason=%s", error.code, error.message)
                yield ServerSentEvent(comment="Redis is away, waiting for it")
                await asyncio.sleep(delay * random.uniform(0.75, 1.25))
                delay = min(delay * 2, _LAST_DELAY_SECONDS)
                continue
            delay = _FIRST_DELAY_SECONDS
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
    view = EventView(
        epoch=event.epoch,
        seq=event.seq,
        type=event.type,
        name=event.name,
        revision=event.revision,
        state=event.state,
        reason=ReasonView.of(event.reason),
        at=event.at,
    )
    return ServerSentEvent(view.model_dump_json(), event=event.type, id=entry_id)


def _resync(message: str, cursor: str | None = None) -> ServerSentEvent:
    reason = ReasonView(code="resync_needed", message=f"{message} List /v1/lora_adapters again, then go on.")
    return ServerSentEvent(ResyncView(reason=reason).model_dump_json(), event="resync", id=cursor)
