"""Hints from Linux's inotify: one watch on the prefix, and one on each adapter's directory.

A watch is added before its directory is looked at, so that nothing falls between; the close of a file is
welcome and never waited for (a directory renamed in brings none). Reads and single writes are not asked
for: the first would make every load by vLLM a hint, the second would flood.

The only importer of asyncinotify.
"""

import asyncio
import errno
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from asyncinotify import Event, Inotify, Mask, Watch

from catalog.adapter import CONFIG_FILENAME, Reason, WeightsFormat
from watcher.discovery import PrefixMissing, identity_of
from watcher.names import is_atomic_writer, is_ignored
from watcher.notifier import Hint, NotifierLost

_CHANGES = Mask.CLOSE_WRITE | Mask.MOVED_TO | Mask.MOVED_FROM | Mask.CREATE | Mask.DELETE | Mask.ATTRIB
_SELF = Mask.DELETE_SELF | Mask.MOVE_SELF
_PREFIX_MASK = _CHANGES | _SELF | Mask.ONLYDIR
_ADAPTER_MASK = _CHANGES | Mask.DELETE_SELF | Mask.ONLYDIR | Mask.EXCL_UNLINK
_PREFIX_LOST = _SELF | Mask.UNMOUNT | Mask.IGNORED
_READ_EVENTS = 256
_OUR_FILES = frozenset({CONFIG_FILENAME, *(weights.filename for weights in WeightsFormat)})
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP})


class InotifyNotifier:
    """Watches one prefix. Keeps true: a name it covers is watched, or a hint about it is on its way."""

    def __init__(self, prefix: Path, on_hint: Callable[[Hint], None]) -> None:
        """Begin to watch; raises NotifierLost where that cannot be."""
        self._prefix = prefix
        self._on_hint = on_hint
        self._watches: dict[str, Watch] = {}
        self._sharing: dict[int, set[str]] = {}
        self._blind: Reason | None = None
        self._proven = asyncio.Event()
        self._proofs = tempfile.TemporaryDirectory(prefix="loradrop-watcher-")
        try:
            self._inotify = Inotify(cache_size=_READ_EVENTS)
        except OSError as error:
            self._proofs.cleanup()
            raise _no_instance(error) from error
        try:
            self._proof_watch = self._inotify.add_watch(Path(self._proofs.name), Mask.CLOSE_WRITE)
            self._prefix_watch = self._inotify.add_watch(prefix, _PREFIX_MASK)
            self._identity = identity_of(prefix)
        except (OSError, PrefixMissing) as error:
            self.close()
            raise _no_watch(error, prefix) from error

    @property
    def blind(self) -> Reason | None:
        """Why some adapters are not watched, or None where all are."""
        return self._blind

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
            if Mask.Q_OVERFLOW in event.mask:
                self._overflowed()
            elif (watch := event.watch) is self._prefix_watch:
                self._in_prefix(event)
            elif watch is self._proof_watch:
                self._proven.set()
            elif watch is not None:
                self._in_adapter(event, watch)

    async def prove_attached(self) -> None:
        """Return where the prefix is still the directory that is watched; raises NotifierLost."""
        # Asking for a watch that is there already answers with the same one; it cannot tell a lie.
        try:
            again = self._inotify.add_watch(self._prefix, _PREFIX_MASK)
        except OSError as error:
            raise _no_watch(error, self._prefix) from error
        if again is not self._prefix_watch:
            raise _replaced(self._prefix)

    async def prove_alive(self, timeout_seconds: float) -> None:
        """Return where a change made now comes back as a notification; raises NotifierLost."""
        self._proven.clear()
        try:
            Path(self._proofs.name, "proof").write_bytes(b"")
            async with asyncio.timeout(timeout_seconds):
                await self._proven.wait()
        except OSError as error:  # TimeoutError is one, too
            raise NotifierLost(
                "notifier_silent",
                f"No notification came back within {timeout_seconds:g} s. The notifier is replaced; rescans go on.",
            ) from error

    def close(self) -> None:
        """Stop watching."""
        self._inotify.close()
        self._proofs.cleanup()

    def _add(self, name: str) -> None:
        try:
            watch = self._inotify.add_watch(os.fsencode(f"{self._prefix}/{name}"), _ADAPTER_MASK)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                self._blind = _watch_limit(error)
            return
        if name not in self._watches and watch.path in self._watches.keys():
            pass
        self._watches[name] = watch

    def _remove(self, name: str) -> None:
        watch = self._watches.pop(name, None)
        if watch is not None:
            try:
                self._inotify.rm_watch(watch)
            except OSError:
                pass
