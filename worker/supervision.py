"""Tasks that are kept running: our code may fail, vLLM must not notice."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from loradrop.catalog.backoff import Backoff

_log = logging.getLogger(__name__)


@asynccontextmanager
async def supervised(
    tasks: Mapping[str, Callable[[], Awaitable[None]]], backoff: Callable[[], Backoff]
) -> AsyncIterator[None]:
    """Run `tasks`, by name, for the length of the block; one that breaks is started again after a pause."""
    running = [
        asyncio.create_task(_supervise(name, run, backoff()), name=f"loradrop-{name}")
        for name, run in tasks.items()
    ]
    try:
        yield
    finally:
        await cancelled(running)


async def cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel `tasks` and wait until all have ended, however they end."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)


async def _supervise(name: str, run: Callable[[], Awaitable[None]], backoff: Backoff) -> None:
    clock = asyncio.get_running_loop().time
    while True:
        started = clock()
        try:
            await run()
        except Exception:  # noqa: BLE001 - vLLM must not notice
            pause = backoff.pause_seconds(lasted_seconds=clock() - started)
            _log.exception("task broke, starting it again task=%s pause=%.1f", name, pause)
            await asyncio.sleep(pause)
