"""Bounds on how long an answer may wait: for Redis, and for a process that is asked to stop."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from loradrop.catalog.errors import CatalogUnavailable, LoradropError

_Answer = TypeVar("_Answer")


class Stopping(LoradropError):
    """This process was asked to stop while an answer was still awaited."""

    code = "stopping"


@asynccontextmanager
async def in_time(seconds: float) -> AsyncIterator[None]:
    """Bound what is asked of Redis inside; raises CatalogUnavailable when the time is up."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise CatalogUnavailable(
            f"Redis did not answer within {seconds:g} s. It may be overloaded or frozen; try again later."
        ) from error


async def unless_stopping(stopping: asyncio.Event, awaited: Coroutine[Any, Any, _Answer]) -> _Answer:
    """Return what is awaited; raises Stopping as soon as this process was asked to stop."""
    answer = asyncio.ensure_future(awaited)
    stop = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({answer, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise Stopping("This server is stopping. The watcher goes on; ask again how it went.")
        return answer.result()
    finally:
        answer.cancel()
        stop.cancel()
