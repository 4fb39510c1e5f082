"""Hints from Linux's inotify: one watch on the prefix, and one on each adapter's directory.

A watch is added before its directory is examined, so that nothing falls between; the close of a file is
welcome and never waited for (a directory renamed in brings none). Reads and single writes are not asked
for: the first would make every load by vLLM a hint, the second would flood.

The only importer of asyncinotify.
"""

import errno
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from asyncinotify import Event, Inotify, Mask, Watch

from loradrop.catalog.adapter import CONFIG_FILENAME, Reason, WeightsFormat
from loradrop.catalog.lora.faults import Rejected
from loradrop.catalog.lora.open_files import Roots, opened_directory
from loradrop.catalog.status import WatcherMode
from loradrop.watcher.notify.lost import NotifierLost, overflowed, replaced, unwatchable
from loradrop.watcher.notify.notifier import Hint, Notifier
from loradrop.watcher.notify.proof import Proof
from loradrop.watcher.prefix.naming import is_atomic_writer, is_ignored

_CHANGES = Mask.CLOSE_WRITE | Mask.MOVED_TO | Mask.MOVED_FROM | Mask.CREATE | Mask.DELETE | Mask.ATTRIB
_SELF = Mask.DELETE_SELF | Mask.MOVE_SELF
_PREFIX_MASK = _CHANGES | _SELF | Mask.ONLYDIR
_ADAPTER_MASK = _CHANGES | _SELF | Mask.ONLYDIR | Mask.MASK_ADD
_ENTRY_MASK = _ADAPTER_MASK | Mask.DONT_FOLLOW
"""A link may lead to a filesystem that never answers, which the event loop must not wait for."""
_LEFT = _SELF | Mask.IGNORED
_PREFIX_LOST = _SELF | Mask.UNMOUNT | Mask.IGNORED
_CAME = Mask.MOVED_TO | Mask.CREATE
_WENT = Mask.MOVED_FROM | Mask.DELETE
_ARRIVED = Mask.MOVED_TO | Mask.ISDIR
_READ_EVENTS = 256
_OUR_FILES = frozenset({CONFIG_FILENAME, *(weights.filename for weights in WeightsFormat)})
_LIMITS = frozenset({errno.ENOSPC, errno.ENOMEM})
_WATCH_LIMIT = (
    "The kernel allows no more inotify watches. Raise fs.inotify.max_user_watches; until then rescans find"
    " what changes inside the adapters that are not watched."
)


class InotifyNotifier(Notifier):
    """Watches one prefix. Invariant: a name it covers is watched, or a hint about it is on its way."""

    mode = WatcherMode.INOTIFY

    def __init__(self, prefix: Path, on_hint: Callable[[Hint], None], roots: Roots | None = None) -> None:
        """Begin to watch, also where links lead inside `roots`, by default the prefix.

        Raises NotifierLost where that cannot be.
        """
        self._prefix = prefix
        self._roots = roots or Roots((prefix,))
        self._on_hint = on_hint
        self._watches: dict[str, Watch] = {}
        self._sharing: dict[int, set[str]] = {}
        self._limited: set[str] = set()
        self._proof = Proof()
        try:
            self._inotify = Inotify(cache_size=_READ_EVENTS)
        except OSError as error:
            self._proof.close()
            raise _no_instance(error) from error
        try:
            self._proof_watch = self._inotify.add_watch(self._proof.directory, Mask.CLOSE_WRITE)
            self._prefix_watch = self._inotify.add_watch(prefix, _PREFIX_MASK)
        except OSError as error:
            self.close()
            raise _no_watch(error, prefix) from error

    @property
    def blind(self) -> Reason | None:
        """Why some adapters are not watched, or None where all are."""
        return Reason("watch_limit", _WATCH_LIMIT) if self._limited else None

    def cover(self, names: Iterable[str]) -> None:
        """Watch inside these adapters, too, where that is not so already."""
        for name in names:
            if name not in self._watches:
                self._add(name)

    def covers(self, name: str) -> bool:
        """Return whether changes inside this adapter are noticed."""
        return name in self._watches

    async def follow(self) -> None:
        """Pass on hints for ever; raises NotifierLost."""
        async for event in self._inotify:
            watch = event.watch
            if watch is self._prefix_watch:
                self._in_prefix(event)
            elif watch is self._proof_watch:
                self._proof.notice()
            elif watch is not None:
                self._in_adapter(event, watch)
            elif Mask.Q_OVERFLOW in event.mask:
                raise overflowed()

    async def prove_attached(self) -> None:
        """Return where the prefix is still the directory that is watched; raises NotifierLost."""
        # Asking for a watch that is there already answers with the same one; it cannot tell a lie.
        try:
            again = self._inotify.add_watch(self._prefix, _PREFIX_MASK)
        except OSError as error:
            raise _no_watch(error, self._prefix) from error
        if again is not self._prefix_watch:
            raise replaced(self._prefix)

    async def prove_alive(self, timeout_seconds: float) -> None:
        """Return where a change made now comes back as a notification; raises NotifierLost."""
        await self._proof.prove_alive(timeout_seconds)

    def close(self) -> None:
        """Stop watching."""
        self._inotify.close()
        self._proof.close()

    def _add(self, name: str) -> None:
        try:
            watch = self._watched(name)
        except OSError as error:
            if error.errno in _LIMITS:
                self._limited.add(name)
            return
        except Rejected:  # a link that leads out: its examination says so
            return
        self._limited.discard(name)
        self._watches[name] = watch
        if watch in (self._prefix_watch, self._proof_watch):
            return  # a link to the prefix itself
        if isinstance(watch.path, Path):
            watch.path = name  # type: ignore[assignment]  # its name is all we need of it; a Path is 300 bytes
        elif watch.path != name:  # two links to one directory share a watch
            self._sharing.setdefault(watch.wd, {str(watch.path)}).add(name)

    def _watched(self, name: str) -> Watch:
        """Return a new watch on the directory `name`; raises Rejected and OSError."""
        try:
            return self._inotify.add_watch(f"{self._prefix}/{name}", _ENTRY_MASK)
        except NotADirectoryError:
            with opened_directory(self._prefix, name, self._roots) as directory:  # a link, or no directory
                return self._inotify.add_watch(f"/proc/self/fd/{directory}", _ADAPTER_MASK)

    def _remove(self, name: str) -> None:
        self._limited.discard(name)
        watch = self._watches.pop(name, None)
        if watch is None or watch in (self._prefix_watch, self._proof_watch):
            return
        others = self._sharing.get(watch.wd, set()) - {name}
        if others:
            self._sharing[watch.wd] = others
            return
        with suppress(OSError):  # the kernel has dropped it already
            self._inotify.rm_watch(watch)

    def _in_prefix(self, event: Event) -> None:
        if event.name is None:
            if event.mask & _PREFIX_LOST:
                raise replaced(self._prefix)
            self._on_hint(Hint(None))
            return
        name = str(event.name)
        if is_atomic_writer(name):
            self._on_hint(Hint(None))
        if is_ignored(name):
            return
        if event.mask & _CAME:
            self._remove(name)
            self._add(name)
        elif event.mask & _WENT:
            self._remove(name)
        self._on_hint(Hint(name, arrived=_ARRIVED in event.mask))

    def _in_adapter(self, event: Event, watch: Watch) -> None:
        if event.name is not None and not _concerns_us(str(event.name)):
            return
        for name in self._sharing.get(watch.wd) or {str(watch.path)}:
            if self._watches.get(name) is not watch:
                continue  # of the directory that was there before: nothing of it concerns its successor
            if event.mask & _LEFT:
                self._remove(name)  # so that the next examination watches what is there then
            self._on_hint(Hint(name))


def _concerns_us(filename: str) -> bool:
    return is_atomic_writer(filename) or any(file in filename for file in _OUR_FILES)


def _no_instance(error: OSError) -> NotifierLost:
    return NotifierLost(
        "notifier_unavailable",
        f"inotify cannot be started ({error.strerror}). Raise fs.inotify.max_user_instances; rescans go on.",
    )


def _no_watch(error: OSError, prefix: Path) -> NotifierLost:
    if error.errno in _LIMITS:
        return NotifierLost("watch_limit", _WATCH_LIMIT)
    return unwatchable(error, prefix)
