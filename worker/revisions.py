"""The private store of revisions: what the engine reads, never written again once published.

    DIR/revisions/REVISION/   adapter_config.json, adapter_model.*, .pin
    DIR/incoming/RANDOM/      a copy under way

A copy is made in `incoming`, digested on the way, made durable and renamed into `revisions`: at no
moment, kill -9 included, is there a partial revision. Several processes and servers share a store; what
they tell each other are locks on open files, which end with the process that holds them:

* whoever may use a revision holds a shared lock on its `.pin`, so it is never evicted;
* whoever copies holds an exclusive lock on its incoming directory, so that one left behind by a dead
  process is told from one under way, and removed.

When the store outgrows its size, the least recently pinned revisions go. A revision found in the store
is digested again before its first use by this process.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalog.adapter import Revision
from catalog.revision import short
from worker.files import Copy, Source, copy_adapter, digest_copy, store_errors_as_failed, sync_directory
from worker.outcomes import Failed, Rejected

_log = logging.getLogger("loradrop.worker.revisions")

_PATIENCE_SECONDS = 30.0
_SLOWEST_BYTES_PER_SECOND = 10e6
"""Storage slower than this, after the patience above, is taken for hung."""

_CONCURRENT_COPIES = 4
_CONCURRENT_LOOKUPS = 4
_MAX_HUNG = 16
_PIN = ".pin"


@dataclass(slots=True)
class Pinned:
    """A revision that stays in the store until `release`."""

    revision: Revision
    directory: Path
    _descriptor: int = field(repr=False)

    def release(self) -> None:
        """Let the store evict the revision again. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class RevisionStore:
    """Keeps true: a directory in `revisions` holds exactly the bytes its name is the digest of."""

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        """Use `directory`, made if need be, for up to `max_bytes`. Clears what dead copies left.

        Raises OSError where the directory cannot be made or written.
        """
        self._revisions = directory / "revisions"
        self._incoming = directory / "incoming"
        self._max_bytes = max_bytes
        self._proven: set[Revision] = set()
        self._copies = asyncio.Semaphore(_CONCURRENT_COPIES)
        self._lookups = asyncio.Semaphore(_CONCURRENT_LOOKUPS)  # their own: they need no prefix
        self._hung: set[Future[Any]] = set()
        for needed in (self._revisions, self._incoming):
            needed.mkdir(parents=True, exist_ok=True)
        self._clear_orphans()

    async def obtain(self, source: Source) -> Pinned:
        """Return the revision of `source`, pinned: from the store, or copied from the prefix.

        Raises Failed (the prefix no longer holds that revision, storage hung, disk full) and Rejected
        (what the prefix holds may not be read).
        """
        if source.revision is not None:
            async with self._lookups:
                pinned = await self._in_thread(source, lambda _: self._pin_proven(source.revision))
            if pinned is not None:
                return pinned
        async with self._copies:
            if len(self._hung) >= _MAX_HUNG:
                raise Failed("storage_hung", f"{_MAX_HUNG} copies from the prefix hang; check its storage.")
            copied = await self._in_thread(source, lambda cancelled: self._copy(source, cancelled))
        assert copied is not None  # _copy returns or raises
        return copied

    def size_bytes(self) -> int:
        """Return the bytes all revisions take."""
        return sum(_size_bytes(path) for path in self._published())

    def _published(self) -> list[Path]:
        return [path for path in self._revisions.iterdir() if path.is_dir()]

    def _pin_proven(self, revision: Revision | None) -> Pinned | None:
        assert revision is not None  # the caller has looked
        pinned = self._pin(revision)
        if pinned is None:
            return None
        if revision not in self._proven:
            if digest_copy(pinned.directory) != revision:
                pinned.release()
                _log.error("revision damaged in the store, copying it again revision=%s", short(revision))
                self._remove(pinned.directory)
                return None
            self._proven.add(revision)
        os.utime(pinned.directory / _PIN)
        return pinned

    def _pin(self, revision: Revision) -> Pinned | None:
        directory = self._revisions / revision
        try:
            descriptor = os.open(directory / _PIN, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        try:
            evicted = os.stat(directory / _PIN).st_ino != os.fstat(descriptor).st_ino  # noqa: PTH116 - beside fstat
        except FileNotFoundError:
            evicted = True
        if evicted:
            os.close(descriptor)
            return None
        return Pinned(revision, directory, descriptor)

    def _copy(self, source: Source, cancelled: threading.Event) -> Pinned:
        with store_errors_as_failed():
            with self._workspace() as workspace:
                copy = _copy_published(source, workspace, cancelled)
                sync_directory(workspace)
                pinned = self._publish(workspace, copy.revision)
            if pinned is None:  # somebody else published the same bytes first
                pinned = self._pin_proven(copy.revision)
        if pinned is None:
            raise Failed("evicted", "The copy was evicted at once: --lora-cache-size is too small.")
        _log.info("revision copied revision=%s bytes=%d", short(copy.revision), copy.size_bytes)
        self._evict()
        return pinned

    def _publish(self, workspace: Path, revision: Revision) -> Pinned | None:
        """Make a finished copy visible, pinned from its first moment; None where it is there already."""
        target = self._revisions / revision
        pinned = Pinned(revision, target, os.open(workspace / _PIN, os.O_RDONLY | os.O_CLOEXEC))
        try:
            fcntl.flock(pinned._descriptor, fcntl.LOCK_SH)
            workspace.rename(target)
            sync_directory(self._revisions)
        except OSError:
            pinned.release()
            if not target.is_dir():
                raise
            return None
        self._proven.add(revision)
        return pinned

    @contextlib.contextmanager
    def _workspace(self) -> Iterator[Path]:
        path = self._incoming / secrets.token_hex(8)
        with _locked(self._incoming, fcntl.LOCK_SH):  # nobody clears it before it is locked
            path.mkdir()
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            (path / _PIN).touch()
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)  # renamed away when all went well
            os.close(descriptor)

    def _clear_orphans(self) -> None:
        with _locked(self._incoming, fcntl.LOCK_EX):
            for path in self._incoming.iterdir():
                with _exclusively(path) as ours:
                    if ours:
                        _log.info("unfinished copy removed path=%s", path.name)
                        shutil.rmtree(path, ignore_errors=True)

    def _evict(self) -> None:
        entries = [(_last_pinned(path), _size_bytes(path), path) for path in self._published()]
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self._max_bytes:
                return
            if self._remove(path):
                _log.info("revision evicted revision=%s bytes=%d", short(path.name), size)
                total -= size
        if total > self._max_bytes:
            _log.warning(
                "store over its size, all revisions are in use bytes=%d max=%d", total, self._max_bytes
            )

    def _remove(self, path: Path) -> bool:
        with _exclusively(path / _PIN) as ours:
            if not ours:
                return False
            self._proven.discard(Revision(path.name))
            doomed = self._incoming / f"{path.name}.{secrets.token_hex(4)}"
            try:
                path.rename(doomed)
            except FileNotFoundError:
                return False
            shutil.rmtree(doomed, ignore_errors=True)
            return True

    async def _in_thread(
        self, source: Source, work: Callable[[threading.Event], Pinned | None]
    ) -> Pinned | None:
        """Run `work` in a daemon thread, which hung storage may keep for ever without keeping us."""
        patience = _PATIENCE_SECONDS + source.size_bytes / _SLOWEST_BYTES_PER_SECOND
        cancelled = threading.Event()
        future: Future[Pinned | None] = Future()
        future.set_running_or_notify_cancel()  # giving up on it must not end it for the thread

        def body() -> None:
            try:
                future.set_result(work(cancelled))
            except BaseException as error:  # noqa: BLE001 - it is raised again where the future is awaited
                future.set_exception(error)

        threading.Thread(target=body, name="loradrop-copy", daemon=True).start()
        try:
            async with asyncio.timeout(patience):
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            self._hung.add(future)
            future.add_done_callback(self._hung.discard)
            future.add_done_callback(_release_late)
            raise Failed(
                "copy_timed_out",
                f"Copying from the prefix took more than {patience:.0f} s; check its storage.",
            ) from error
        except asyncio.CancelledError:
            future.add_done_callback(_release_late)
            raise
        finally:
            cancelled.set()


def _copy_published(source: Source, workspace: Path, cancelled: threading.Event) -> Copy:
    """Copy what the catalog says is there; if something else is, that says nothing about those bytes."""
    try:
        copy = copy_adapter(source, workspace, cancelled)
    except Rejected as rejected:
        if source.revision is None:
            raise
        raise Failed(rejected.reason.code, rejected.reason.message) from rejected
    if source.revision is not None and copy.revision != source.revision:
        raise Failed(
            "changed_on_disk",
            f"The prefix now holds {short(copy.revision)} instead of {short(source.revision)}; "
            "the watcher will publish what it is.",
        )
    return copy


def _release_late(future: "Future[Pinned | None]") -> None:
    """Let go of what a thread pins after everybody has given up on it."""
    if future.exception() is None and (pinned := future.result()) is not None:
        pinned.release()


@contextlib.contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _exclusively(path: Path) -> Iterator[bool]:
    """Yield whether nobody else holds a lock on `path`; if so, hold it meanwhile."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
        return
    else:
        yield True
    finally:
        os.close(descriptor)


def _last_pinned(path: Path) -> float:
    try:
        return (path / _PIN).stat().st_mtime
    except FileNotFoundError:
        return time.time()


def _size_bytes(path: Path) -> int:
    try:
        return sum(file.stat().st_size for file in path.iterdir())
    except FileNotFoundError:
        return 0
