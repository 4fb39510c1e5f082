"""Turns at the engine: one load at a time, and pauses between them in which running streams breathe.

The engine stops for each load. One that somebody waits for gets the next turn. One that nobody waits for, an
update of what is served or a load ahead of the first request, lets the engine run for as long as the load
before it stopped it; and one ahead waits until no request is under way. What is not wanted any more when its
turn comes does not stop the engine at all.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

_SHORTEST_PAUSE_SECONDS = 0.1
"""A few tokens of every stream."""

_LOOK_SECONDS = 0.05
"""How often a load ahead looks whether the engine is idle: vLLM does not tell."""


class NotWanted(Exception):
    """Nobody wants any more what a turn in the background was for."""


@dataclass(frozen=True, slots=True)
class Demand:
    """How much a load in the background is wanted: `asked` is set once somebody waits for it."""

    asked: asyncio.Event
    is_wanted: Callable[[], bool]


class Turns:
    """Keeps true: one at a time; and loads nobody waits for take at most half of the engine's time."""

    def __init__(self, is_idle: Callable[[], bool]) -> None:
        """Let loads ahead begin only where no request is under way."""
        self._is_idle = is_idle
        self._one = asyncio.Lock()
        self._rested_at = 0.0

    def alone(self) -> AbstractAsyncContextManager[None]:
        """Have the next turn, for what does not stop the engine."""
        return self._one

    @contextlib.asynccontextmanager
    async def at_once(self) -> AsyncIterator[None]:
        """Have the next turn: somebody waits."""
        async with self._one:
            with self._timed():
                yield

    @contextlib.asynccontextmanager
    async def in_the_background(self, demand: Demand, *, ahead: Callable[[], bool]) -> AsyncIterator[None]:
        """Have a turn after the pause and, while it is a load `ahead`, in an idle engine; or once asked for.

        Raises NotWanted.
        """
        while True:
            async with self._one:
                if not demand.is_wanted():
                    raise NotWanted
                wait_seconds = 0.0 if demand.asked.is_set() else self._wait_seconds(ahead)
                if not wait_seconds:
                    with self._timed():
                        yield
                    return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds):
                    await demand.asked.wait()

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            yield
        finally:
            self._rested_at = clock() + pause_seconds(clock() - began)

    def _wait_seconds(self, ahead: Callable[[], bool]) -> float:
        rest = self._rested_at - asyncio.get_running_loop().time()
        if rest <= 0 and ahead() and not self._is_idle():
            return _LOOK_SECONDS
        return max(0.0, rest)


def pause_seconds(load_seconds: float) -> float:
    """Return how long the engine is left alone after something that stopped it for `load_seconds`."""
    return max(load_seconds, _SHORTEST_PAUSE_SECONDS)
