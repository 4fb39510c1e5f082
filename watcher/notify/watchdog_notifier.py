"""Hints from watchdog: FSEvents, kqueue and Windows, and inotify where an operator asks for it.

Only what cannot be had more simply is used: "something changed at this path". Handlers run on watchdog's
own thread, which an exception would kill without a word, and its queue has no bound; so the handler does
one thing that cannot fail. The event filter keeps reads out, which would overflow the kernel's queue while
watchdog walks a large prefix.

The only importer of watchdog.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

from loradrop.catalog.status import WatcherMode
from loradrop.watcher.notify.lost import NotifierLost, identity_at, overflowed, replaced, unwatchable
from loradrop.watcher.notify.notifier import Hint, Notifier
from loradrop.watcher.notify.proof import Proof
from loradrop.watcher.prefix.naming import is_atomic_writer, is_ignored

_FILTER: list[type[FileSystemEvent]] = [
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
]
if not hasattr(os, "inotify_init") and os.uname().sysname != "Linux":
    _FILTER.append(FileModifiedEvent)  # the only sign of a write where nothing tells of a close


_START_SECONDS = 60.0
"""How long watchdog may take to walk the prefix and set its watches."""


class WatchdogNotifier(Notifier):
    """Watches one prefix, recursively. Invariant: what watchdog says becomes a hint in the event loop.

    Invariant: watchdog, whose locks a thread of its own may die with, never holds up the event loop.
    """

    mode = WatcherMode.WATCHDOG

    def __init__(self, prefix: Path, on_hint: Callable[[Hint], None]) -> None:
        """Prepare to watch; raises NotifierLost where that cannot be. Call it in the event loop."""
        self._prefix = prefix
        self._lost: asyncio.Future[NotifierLost] = asyncio.get_running_loop().create_future()
        self._proof = Proof()
        self._observer = Observer()
        self._overflows = _OverflowHandler(asyncio.get_running_loop(), self._overflowed)
        logging.getLogger("watchdog.observers").addHandler(self._overflows)
        loop = asyncio.get_running_loop()
        try:
            self._identity = identity_at(prefix)
            handler = _Handler(loop, str(prefix), on_hint)
            private = str(self._proof.directory)
            proofs = _Handler(loop, private, lambda _hint: self._proof.notice())
            self._observer.schedule(proofs, private, recursive=False, event_filter=_FILTER)
            self._observer.schedule(handler, str(prefix), recursive=True, event_filter=_FILTER)
        except NotifierLost:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise unwatchable(error, prefix) from error

    async def start(self) -> None:
        """Begin to watch; raises NotifierLost where that cannot be."""
        try:
            async with asyncio.timeout(_START_SECONDS):
                await _in_thread(self._observer.start)
        except TimeoutError as error:
            raise NotifierLost(
                "notifier_unavailable",
                f"The prefix {self._prefix} could not be watched within {_START_SECONDS:g} s; rescans go on.",
            ) from error
        except OSError as error:
            raise unwatchable(error, self._prefix) from error

    async def follow(self) -> None:
        """Wait until the notifier is lost; hints come by themselves. Raises NotifierLost."""
        raise await self._lost

    async def prove_attached(self) -> None:
        """Return where the prefix is still the directory that is watched; raises NotifierLost."""
        if identity_at(self._prefix) != self._identity:
            raise replaced(self._prefix)
        if not all(emitter.is_alive() for emitter in self._observer.emitters):
            raise NotifierLost(
                "notifier_died", "A thread of watchdog has died. It is replaced; rescans go on."
            )

    async def prove_alive(self, timeout_seconds: float) -> None:
        """Return where a change made now comes back as a notification; raises NotifierLost."""
        await self._proof.prove_alive(timeout_seconds)

    def close(self) -> None:
        """Stop watching; threads that hang are left behind."""
        logging.getLogger("watchdog.observers").removeHandler(self._overflows)
        if self._observer.is_alive():
            threading.Thread(target=self._observer.stop, name="loradrop-watchdog-stop", daemon=True).start()
        self._proof.close()

    def _overflowed(self) -> None:
        if not self._lost.done():
            self._lost.set_result(overflowed())


class _Handler(FileSystemEventHandler):
    """Turns watchdog's events into hints, on its thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, prefix: str, on_hint: Callable[[Hint], None]) -> None:
        self._loop = loop
        self._start = len(prefix.rstrip(os.sep)) + 1
        self._on_hint = on_hint

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Pass on a hint; never raises, since that would end all notifications in silence."""
        try:
            hints = {hint for path in (event.src_path, event.dest_path) if (hint := self._hint(event, path))}
            for hint in hints:
                self._loop.call_soon_threadsafe(self._on_hint, hint)
        except Exception:
            logging.getLogger(__name__).debug("Hint is lost event=%r", event, exc_info=True)

    def _hint(self, event: FileSystemEvent, path: bytes | str) -> Hint | None:
        name, _, rest = os.fsdecode(path)[self._start :].partition(os.sep)
        if is_atomic_writer(name):
            return Hint(None)
        if not name or is_ignored(name):
            return None
        arrived = isinstance(event, DirMovedEvent) and not rest and path == event.dest_path
        return Hint(name, arrived=arrived)


class _OverflowHandler(logging.Handler):
    """Hears watchdog's only word about an overflow: a line in its log."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_overflow: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._loop = loop
        self._on_overflow = on_overflow

    def emit(self, record: logging.LogRecord) -> None:
        """Tell of an overflow."""
        if "overflow" in record.getMessage().lower():
            self._loop.call_soon_threadsafe(self._on_overflow)


async def _in_thread(action: Callable[[], None]) -> None:
    """Return when `action` has returned, or raise what it raised; a thread that hangs is left behind.

    Unlike a thread of an executor, it does not keep the process from ending.
    """
    done: Future[None] = Future()
    done.set_running_or_notify_cancel()  # from now on only its thread ends it

    def run() -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - it is raised where it is awaited
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=run, name="loradrop-watchdog-start", daemon=True).start()
    await asyncio.wrap_future(done)
