"""The private store of revisions: what the engine reads, never written again once published.

    DIR/revisions/REVISION/   adapter_config.json, adapter_model.*, .pin
    DIR/incoming/RANDOM/      a copy under way

A copy is made in `incoming`, digested on the way, made durable and renamed into `revisions`: at no
moment, kill -9 included, is there a partial revision. Several processes and servers share a store: each pins
(`pins`) what it may use, and what is pinned is never evicted.

When the store outgrows its size, or its disk has no room for the next copy, the least recently pinned
revisions go, except young ones: the process that copied one may be about to pin it. A revision found in the
store is digested again before its first use by this process. One that is damaged is copied again; if other
processes use it, its files are replaced in place.
"""

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loradrop.catalog.adapter import Revision
from loradrop.catalog.revision import short
from loradrop.worker.metrics import DAMAGED
from loradrop.worker.outcomes import Failed, Rejected
from loradrop.worker.store.copying import (
    Copy,
    Permit,
    Source,
    copy_adapter,
    digest_copy,
    mend_copy,
    size_bytes,
    store_errors_as_failed,
    sync_directory,
)
from loradrop.worker.store.deadline import DEADLINE, Deadline
from loradrop.worker.store.deadline_threads import DeadlineThreads
from loradrop.worker.store.pins import PIN, Pinned, exclusively, last_used, note_use, pin
from loradrop.worker.store.rate_limit import RateLimit
from loradrop.worker.store.staging import Staging
from loradrop.worker.store.store_directory import StoreDirectory

_log = logging.getLogger(__name__)

_CONCURRENT_COPIES = 4
_CONCURRENT_LOOKUPS = 4

_CopyAdapter = Callable[[Source, Path, Permit], Copy]


@dataclass(frozen=True, slots=True)
class StoreTimings:
    """How long storage may take, and how long a revision that was pinned is kept from eviction."""

    deadline: Deadline = DEADLINE
    young_seconds: float = 60.0
    """Far more than lies between a copy and its first pin."""


_TIMINGS = StoreTimings()


def _free_bytes(directory: Path) -> int:
    return shutil.disk_usage(directory).free


class RevisionStore:
    """Invariant: a directory in `revisions` holds exactly the bytes its name is the digest of."""

    def __init__(
        self,
        directory: Path,
        *,
        max_bytes: int,
        bytes_per_second: float = 0.0,
        timings: StoreTimings = _TIMINGS,
        copy: _CopyAdapter = copy_adapter,
        free_bytes: Callable[[Path], int] = _free_bytes,
    ) -> None:
        """Use `directory`, made if need be, for up to `max_bytes`, and clear what dead copies left.

        All copies together read at most `bytes_per_second` from the prefix; 0: no limit. `copy` reads the
        prefix, `free_bytes` says how much room the disk of a directory has. Raises OSError.
        """
        self.directory = StoreDirectory(directory)
        self._revisions = self.directory.revisions
        self._max_bytes = max_bytes
        self._rate_limit = RateLimit(bytes_per_second)
        self._timings = timings
        self._copy_adapter = copy
        self._free_bytes = free_bytes
        self._verified: set[Revision] = set()
        self._copies = DeadlineThreads(
            "Copying from the prefix", late="copy_timed_out", at_once=_CONCURRENT_COPIES
        )
        self._lookups = DeadlineThreads(  # their own: they need no prefix
            "Reading the private store", late="store_timed_out", at_once=_CONCURRENT_LOOKUPS
        )
        self._staging = Staging(self.directory.incoming)

    async def obtain(self, source: Source) -> Pinned:
        """Return the revision of `source`, pinned: from the store, or copied from the prefix.

        Raises Failed (the prefix no longer holds that revision, storage hung, disk full) and Rejected
        (what the prefix holds may not be read).
        """
        seconds = self._timings.deadline.seconds_for(source.size_bytes)
        wanted = source.revision
        if wanted is not None:
            found = await self._lookups.run(
                lambda _: self._pin_verified(wanted), about=wanted, seconds=seconds, discard=_release
            )
            if found is not None:
                return found
        seconds += self._rate_limit.seconds_for(source.size_bytes, readers=_CONCURRENT_COPIES)
        return await self._copies.run(
            lambda given_up: self._copy(source, self._rate_limit.permit(given_up)),
            about=source.path,
            seconds=seconds,
            discard=_release,
        )

    def revisions(self) -> frozenset[Revision]:
        """Return all that is in the store, verified by this process or not. Raises OSError."""
        return frozenset(Revision(path.name) for path in self._revisions.iterdir())

    def evict(self, *, coming_bytes: int = 0) -> None:
        """Delete the least recently used until the store has its size, and its disk room for `coming_bytes`.

        Raises OSError.
        """
        published = [path for path in self._revisions.iterdir() if path.is_dir()]
        entries = [(last_used(path), size_bytes(path), path) for path in published]
        excess = sum(size for _, size, _ in entries) - self._max_bytes
        if coming_bytes:
            excess = max(excess, coming_bytes - self._free_bytes(self._staging.directory))
        now = time.time()
        for used, size, path in sorted(entries):
            if excess <= 0:
                return
            if not 0 <= now - used < self._timings.young_seconds and self._remove(path):
                _log.info("revision evicted revision=%s bytes=%d", short(path.name), size)
                excess -= size
        if excess > 0:
            _log.warning("store over its size, all is young or in use excess_bytes=%d", excess)

    def _pin_verified(self, revision: Revision) -> Pinned | None:
        pinned = pin(self._revisions / revision, revision)
        if pinned is None:
            return None
        if not self._is_whole(pinned):
            pinned.release()
            DAMAGED.inc()
            _log.error("revision damaged in the store, copying it again revision=%s", short(revision))
            self._remove(pinned.directory)
            return None
        note_use(pinned.directory)
        return pinned

    def _is_whole(self, pinned: Pinned) -> bool:
        if pinned.revision not in self._verified and digest_copy(pinned.directory) == pinned.revision:
            self._verified.add(pinned.revision)
        return pinned.revision in self._verified and pinned.is_there()

    def _copy(self, source: Source, permit: Permit) -> Pinned:
        with store_errors_as_failed(), self._staging.workspace() as workspace:
            self.directory.make()
            if self._free_bytes(self._staging.directory) < source.size_bytes <= self._max_bytes:
                self.evict(coming_bytes=source.size_bytes)
            copy = self._copy_published(source, workspace, permit)
            sync_directory(workspace)
            pinned = self._publish(workspace, copy.revision) or self._adopt(workspace, copy)
        if pinned is None:
            raise Failed("evicted", "The copy was evicted at once: --lora-cache-size is too small.")
        _log.info("revision copied revision=%s bytes=%d", short(copy.revision), copy.size_bytes)
        self.evict()
        return pinned

    def _copy_published(self, source: Source, workspace: Path, permit: Permit) -> Copy:
        """Copy the revision the catalog names; raises Failed where the prefix holds something else by now."""
        try:
            copy = self._copy_adapter(source, workspace, permit)
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

    def _publish(self, workspace: Path, revision: Revision) -> Pinned | None:
        """Make a finished copy visible, pinned from its first moment; None where it is there already."""
        target = self._revisions / revision
        pinned = pin(workspace, revision)
        assert pinned is not None  # the workspace is ours alone
        try:
            note_use(workspace)
            workspace.rename(target)
            sync_directory(self._revisions)
        except OSError:
            pinned.release()
            if not target.is_dir():
                raise
            if not (target / PIN).exists():  # an operator deleted part of it
                self._staging.discard(target)
            return None
        pinned.directory = target
        self._verified.add(revision)
        return pinned

    def _adopt(self, workspace: Path, copy: Copy) -> Pinned | None:
        """Pin what was there first, repaired from `workspace` where it is damaged; None where it is gone."""
        pinned = pin(self._revisions / copy.revision, copy.revision)
        if pinned is None:
            return None
        try:
            if not self._is_whole(pinned):
                mend_copy(pinned.directory, workspace, copy.weights_format)
                _log.warning("revision mended in the store revision=%s", short(copy.revision))
            if not self._is_whole(pinned):
                raise Failed(
                    "revision_damaged",
                    f"The private copy {pinned.directory} is damaged, in use, and could not be mended. "
                    "Check the disk of --lora-cache-dir.",
                )
            note_use(pinned.directory)
        except BaseException:
            pinned.release()
            raise
        return pinned

    def _remove(self, path: Path) -> bool:
        with exclusively(path / PIN) as ours:
            if not ours:
                return False
            self._verified.discard(Revision(path.name))
            return self._staging.discard(path)


def _release(pinned: Pinned | None) -> None:
    """Release a pin whose caller is gone."""
    if pinned is not None:
        pinned.release()
