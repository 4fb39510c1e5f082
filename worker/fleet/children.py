"""Child processes that are kept running: started again after doubling pauses, stopped with the block."""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from loradrop.catalog.backoff import Backoff
from loradrop.worker.fleet import child

_log = logging.getLogger(__name__)

_STOP_SECONDS = 3.0


@asynccontextmanager
async def kept_running(
    name: str, command: Sequence[str], backoff: Backoff, *, stop_seconds: float = _STOP_SECONDS
) -> AsyncIterator[None]:
    """Keep `command` running for the length of the block.

    At its end the child gets SIGTERM, and SIGKILL where it has not ended after `stop_seconds`.
    """
    task = asyncio.create_task(_supervise(name, command, backoff, stop_seconds), name=f"loradrop-{name}")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _supervise(name: str, command: Sequence[str], backoff: Backoff, stop_seconds: float) -> None:
    clock = asyncio.get_running_loop().time
    while True:
        started = clock()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-S", child.__file__, str(os.getpid()), *command),
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches the server alone, which then stops its children in order
        )
        _log.info("child started name=%s pid=%d", name, process.pid)
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            await _stop(name, process, stop_seconds)
            raise
        pause = backoff.pause_seconds(lasted_seconds=clock() - started)
        _log.error("child ended, starting it again name=%s code=%d pause=%.1f", name, code, pause)
        await asyncio.sleep(pause)


async def _stop(name: str, process: asyncio.subprocess.Process, stop_seconds: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        try:
            async with asyncio.timeout(stop_seconds):
                await process.wait()
        except TimeoutError:
            _log.warning("child did not stop, killing it name=%s pid=%d", name, process.pid)
            process.kill()
            await process.wait()
