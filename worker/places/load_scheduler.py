"""Serializes loads; pauses between background loads let streams progress.

The engine stops for each load. There are three kinds of turns:

    immediate    a request waits for the load: next, as soon as the engine has a place for it
    background   an update of what is served, or a load ahead of the first request: after a pause as long as
                 the load before it took; a load ahead waits until no request runs, too
    exclusive    work that does not stop the engine: next, and it costs no pause

A background load becomes immediate when a request comes to wait for it, and is given up when its revision is
no longer desired. A load without a place leaves its turn to others and asks again.

For example, with loads of 2 s and nothing else to do:

    0 s   background load of A begins
    1 s   updates of B and C arrive: both wait
    2 s   A ends; background loads pause until 4 s
    3 s   a request asks for C: C is loaded now, until 5 s; background loads pause until 7 s
    7 s   B is loaded
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from loradrop.worker.places.timings import TIMINGS, Timings


class NotDesired(Exception):
    """The revision of a background load is no longer the desired one, or takes no place from another."""


Place = Callable[[], Awaitable[bool]]
"""Asked in the load's turn: makes room if it can, and returns whether there is a place. May raise."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Whether a load is still needed. `requested` is set once a request waits for it."""

    requested: asyncio.Event
    is_desired: Callable[[], bool]

    @classmethod
    def of_request(cls) -> "Demand":
        """Return the demand of a load that a request waits for from the beginning."""
        requested = asyncio.Event()
        requested.set()
        return cls(requested, lambda: True)


class LoadScheduler:
    """Invariant: one turn at a time; background loads take at most half of the engine's time."""

    def __init__(self, is_idle: Callable[[], bool], timings: Timings = TIMINGS) -> None:
        """Let loads ahead begin only while `is_idle`: no request is running."""
        self._is_idle = is_idle
        self._timings = timings
        self._turn = asyncio.Lock()
        self._pause_ends_at = 0.0

    def exclusive(self) -> AbstractAsyncContextManager[None]:
        """Take the next turn, for work that does not stop the engine."""
        return self._turn

    @contextlib.asynccontextmanager
    async def load(self, demand: Demand, *, ahead: Callable[[], bool], place: Place) -> AsyncIterator[None]:
        """Take a turn for a load once it has a `place`: after the pause, and for a load `ahead` in an idle
        engine; or at once where it is requested.

        Raises NotDesired, and what `place` raises.
        """
        while True:
            async with self._turn:
                if not demand.is_desired():
                    raise NotDesired
                wait_seconds = 0.0 if demand.requested.is_set() else self._wait_seconds(ahead)
                if not wait_seconds and await place():
                    with self._pause_afterwards():
                        yield
                    return
            await self._wait(demand.requested, wait_seconds or self._timings.idle_poll_seconds)

    @staticmethod
    async def _wait(requested: asyncio.Event, seconds: float) -> None:
        """Wait for `seconds`, or until a load becomes requested."""
        if requested.is_set():
            await asyncio.sleep(seconds)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await requested.wait()

    @contextlib.contextmanager
    def _pause_afterwards(self) -> Iterator[None]:
        clock = self._timings.clock
        began = clock()
        try:
            yield
        finally:
            self._pause_ends_at = clock() + self._timings.pause_seconds(clock() - began)

    def _wait_seconds(self, ahead: Callable[[], bool]) -> float:
        if ahead() and not self._is_idle():
            return self._timings.idle_poll_seconds
        return max(0.0, self._pause_ends_at - self._timings.clock())
