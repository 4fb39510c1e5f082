"""`python -m watcher` and `loradrop watch`: settings, logging and signals. Nothing else is here."""

import asyncio
import ctypes
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence

from loradrop.catalog.errors import LoradropError
from loradrop.catalog.process_log import start_log
from loradrop.catalog.settings import Process, parse_command_line
from loradrop.catalog.settings.declared import settings_of
from loradrop.catalog.store import Connection
from loradrop.watcher.monitor.examiner_pool import THREADS
from loradrop.watcher.settings import Settings
from loradrop.watcher.watcher import Watcher

_logger = logging.getLogger(__name__)

_STOP_SECONDS = 1.0
_M_ARENA_MAX = -8
"""`mallopt`'s number for how many arenas glibc may keep; its default, eight a core, is a heap a thread."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Watch a prefix until stopped. `arguments` default to the process's own."""
    settings = parse_command_line(
        settings_of(Process.WATCH),
        Process.WATCH,
        Settings.of,
        description="Watch a prefix, and publish its adapters to the catalog in Redis.",
        arguments=arguments,
        environment=os.environ,
    )
    start_log(settings.log_level)
    _keep_one_heap()
    try:
        asyncio.run(_run(settings))
    except LoradropError as error:
        sys.stderr.write(f"loradrop watch: {error.message}\n")
        sys.exit(2)
    _leave()


async def _run(settings: Settings) -> None:
    async with Connection(settings.redis_url, pool=settings.pool) as connection:
        watcher = Watcher(settings, connection)
        if settings.metrics_port is None:
            await _until_stopped(watcher)
            return
        from loradrop.watcher.metrics import WatcherCollector, served  # noqa: PLC0415 - megabytes few need

        host = settings.metrics_host
        with served(WatcherCollector(watcher), host=host, port=settings.metrics_port) as port:
            _logger.info("Metrics are served host=%s port=%s", host, port)
            await _until_stopped(watcher)


async def _until_stopped(watcher: Watcher) -> None:
    running = asyncio.create_task(watcher.run())
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        if not running.cancelled():
            raise


def _keep_one_heap() -> None:
    """Let all threads share one heap, where the C library can.

    Of a heap for each thread, every one keeps its own gaps: 3 MiB more after 100,000 updates.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def _leave() -> None:
    """End the process even where a thread hangs in a read of a dead mount."""
    for thread in threading.enumerate():
        if thread.name.startswith(THREADS):
            thread.join(_STOP_SECONDS)
    if any(thread.name.startswith(THREADS) for thread in threading.enumerate()):
        logging.shutdown()
        os._exit(0)


if __name__ == "__main__":
    main()
