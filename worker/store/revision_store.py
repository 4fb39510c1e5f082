"""The private store of revisions: what the engine reads, never written again once published.

    DIR/revisions/REVISION/   adapter_config.json, adapter_model.*, .pin
    DIR/incoming/RANDOM/      a copy under way

A copy is made in `incoming`, digested on the way, made durable and renamed into `revisions`: at no
moment, kill -9 included, is there a partial revision. Several processes and servers share a store: whoever
may use a revision has it pinned (`pins`), so it is never evicted.

When the store outgrows its size, or its disk has no room for the next copy, the least recently pinned
revisions go, except young ones: whoever copied one may be about to pin it. A revision found in the store is
digested again before its first use by this process. One that is damaged is copied again; if others use it, it
is mended where it lies.
"""

import logging
import time
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
from loradrop.worker.store.deadline_threads import StorageThreads, patience_seconds
from loradrop.worker.store.pins import PIN, Pinned, exclusively, last_used, note_use, pin
from loradrop.worker.store.rate_limit import Bandwidth
from loradrop.worker.store.staging import Incoming

_log = logging.getLogger(__name__)

_CONCURRENT_COPIES = 4
_CONCURRENT_LOOKUPS = 4
_YOUNG_SECONDS = 60.0
"""A revision pinned less than this ago is not evicted: far more than lies between a copy and its use."""


class RevisionStore:
    """Keeps true: a directory in `revisions` holds exactly the bytes its name is the digest of."""

    def __init__(
        self,
        directory: Path,
        *,
        max_bytes: int,
        bytes_per_second: float = 0.0,
        allow_symlinks_to: tuple[Path, ...] = (),
    ) -> None:
        """Use `directory`, made if need be, for up to `max_bytes`. Clears what dead copies left.

        Links of the prefix may lead into it, and into `allow_symlinks_to`.

        All copies together read at most `bytes_per_second` from the prefix; 0: no bound.

        Raises OSError where the directory cannot be made or written.
        """
        self._revisions = directory / "revisions"
        self._max_bytes = max_bytes
        self._allow_symlinks_to = allow_symlinks_to
        self._bandwidth = Bandwidth(bytes_per_second)
        self._proven: set[Revision] = set()
        self._copies = StorageThreads(
            "Copying from the prefix", late="copy_timed_out", at_once=_CONCURRENT_COPIES
        )
        self._lookups = StorageThreads(  # their own: they need no prefix
            "Reading the private store", late="store_timed_out", at_once=_CONCURRENT_LOOKUPS
        )
        self._revisions.mkdir(parents=True, exist_ok=True)
        self._incoming = Incoming(directory / "incoming")

    async def obtain(self, source: Source) -> Pinned:
        """Return the revision of `source`, pinned: from the store, or copied from the prefix.

        Raises Failed (the prefix no longer holds that revision, storage hung, disk full) and Rejected
        (what the prefix holds may not be read).
        """
        seconds = patience_seconds(source.size_bytes)
        wanted = source.revision
        if wanted is not None:
            found = await self._lookups.run(
                lambda _: self._pin_proven(wanted), about=wanted, seconds=seconds, discard=_release
            )
            if found is not None:
                return found
        seconds += self._bandwidth.seconds_for(source.size_bytes, readers=_CONCURRENT_COPIES)
        return await self._copies.run(
            lambda given_up: self._copy(source, self._bandwidth.permit(given_up)),
            about=source.path,
            seconds=seconds,
            discard=_release,
        )

    def revisions(self) -> frozenset[Revision]:
        """Return all that is in the store, proven by this process or not. Raises OSError."""
        return frozenset(Revision(path.name) for path in self._revisions.iterdir())

    def _pin_proven(self, revision: Revision) -> Pinned | None:
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
        if pinned.revision not in self._proven and digest_copy(pinned.directory) == pinned.revision:
            self._proven.add(pinned.revision)
        return pinned.revision in self._proven

    def _copy(self, source: Source, permit: Permit) -> Pinned:
        with store_errors_as_failed(), self._incoming.workspace() as workspace:
            if self._incoming.free_bytes() < source.size_bytes <= self._max_bytes:
                self._evict(coming_bytes=source.size_bytes)
            copy = self._copy_published(source, workspace, permit)
            sync_directory(workspace)
            pinned = self._publish(workspace, copy.revision) or self._adopt(workspace, copy)
        if pinned is None:
            raise Failed("evicted", "The copy was evicted at once: --lora-cache-size is too small.")
        _log.info("revision copied revision=%s bytes=%d", short(copy.revision), copy.size_bytes)
        self._evict()
        return pinned

    def _copy_published(self, source: Source, workspace: Path, permit: Permit) -> Copy:
        """Copy what the catalog says is there; if something else is, that says nothing about those bytes."""
        try:
            copy = copy_adapter(source, workspace, permit, allow_symlinks_to=self._allow_symlinks_to)
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
        assert pinned is not None  # nobody else touches the workspace
        try:
            note_use(workspace)
            workspace.rename(target)
            sync_directory(self._revisions)
        except OSError:
            pinned.release()
            if not target.is_dir():
                raise
            return None
        pinned.directory = target
        self._proven.add(revision)
        return pinned

    def _adopt(self, workspace: Path, copy: Copy) -> Pinned | None:
        """Pin what was there first, mended from `workspace` where it is damaged; None where it is gone."""
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

    def _evict(self, *, coming_bytes: int = 0) -> None:
        """Let the least recently used go until the store has its size, and its disk room for what comes."""
        published = [path for path in self._revisions.iterdir() if path.is_dir()]
        entries = [(last_used(path), size_bytes(path), path) for path in published]
        excess = sum(size for _, size, _ in entries) - self._max_bytes
        if coming_bytes:
            excess = max(excess, coming_bytes - self._incoming.free_bytes())
        now = time.time()
        for used, size, path in sorted(entries):
            if excess <= 0:
                return
            if not 0 <= now - used < _YOUNG_SECONDS and self._remove(path):
                _log.info("revision evicted revision=%s bytes=%d", short(path.name), size)
                excess -= size
        if excess > 0:
            _log.warning("store over its size, all is young or in use excess_bytes=%d", excess)

    def _remove(self, path: Path) -> bool:
        with exclusively(path / PIN) as ours:
            if not ours:
                return False
            self._proven.discard(Revision(path.name))
            return self._incoming.discard(path)


def _release(pinned: Pinned | None) -> None:
    """Let go of what nobody waits for any more."""
    if pinned is not None:
        pinned.release()
