"""The notifiers there are, and one of them at work for the length of a test."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from loradrop.watcher.notify.inotify import InotifyNotifier
from loradrop.watcher.notify.notifier import Hint, Notifier
from loradrop.watcher.notify.watchdog_notifier import WatchdogNotifier
from testkit.waiting import wait_until

MAKERS: list[Callable[[Path, Callable[[Hint], None]], Notifier]] = [InotifyNotifier, WatchdogNotifier]


@asynccontextmanager
async def following(notifier: Notifier) -> AsyncIterator[asyncio.Task[None]]:
    await notifier.start()
    task = asyncio.create_task(notifier.follow())  # type: ignore[arg-type]  # a coroutine, whatever its protocol
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        notifier.close()


async def until(predicate: Callable[[], bool], description: str) -> None:
    await wait_until(predicate, timeout=10, description=description)
