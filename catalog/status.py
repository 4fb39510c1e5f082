"""Heartbeats of watchers and workers, and the progress of a refresh."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from loradrop.catalog.adapter import AdapterState, Reason, Revision, Seconds, Timestamp


class WorkerState(StrEnum):
    """The state of an adapter on one worker."""

    LISTED = "listed"
    """Known and offered in `/v1/models`; the first request loads it."""
    LOADING = "loading"
    """Being copied, admitted or loaded into the engine."""
    LOADED = "loaded"
    """The engine has it."""
    REJECTED = "rejected"
    """Will not work on this worker until its bytes change."""
    FAILED = "failed"
    """Will be tried again at `retry_at`."""
    DRAINING = "draining"
    """Gone from the catalog; requests in flight are finishing on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRevision:
    """One revision of an adapter that a worker has loaded, is loading or has in its store.

    `state` is loading, loaded or draining; `load_seconds` what its copy, admission and load took together.
    """

    revision: Revision
    state: WorkerState
    resident: bool = False
    """The engine has it in memory."""
    pinned: bool = False
    """The worker's private store may not evict it."""
    load_seconds: Seconds | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerAdapter:
    """One adapter as one worker has it.

    `revision` is the one loaded, or the one that was rejected or failed; `revisions` are all of which the
    worker has bytes. A name without a report is `listed` once the worker has observed the record's seq.
    """

    state: WorkerState
    revision: Revision | None = None
    reason: Reason | None = None
    loads: int = 0
    load_seconds: Seconds | None = None
    last_used: Timestamp | None = None
    retry_at: Timestamp | None = None
    revisions: tuple[WorkerRevision, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """One worker's heartbeat. `observed_seq` is the last seq of `epoch` it has applied.

    `degraded` is why its answers cannot be trusted, or None.
    """

    id: str
    base_model: str
    url: str
    started_at: Timestamp
    last_heartbeat: Timestamp
    epoch: str | None = None
    observed_seq: int = 0
    vllm_version: str = ""
    max_loras: int = 0
    max_lora_rank: int = 0
    degraded: Reason | None = None
    counts: Mapping[str, int] = field(default_factory=dict)


class WatcherMode(StrEnum):
    """How a watcher learns of changes."""

    INOTIFY = "inotify"
    WATCHDOG = "watchdog"
    RESCAN = "rescan"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatcherStatus:
    """The publishing watcher's heartbeat.

    `degraded` is why notifications or the prefix cannot be trusted at the moment, or None.
    """

    owner: str
    prefix: str
    mode: WatcherMode
    heartbeat_at: Timestamp
    degraded: Reason | None = None
    last_scan_at: Timestamp | None = None
    last_scan_seconds: Seconds | None = None
    interval_seconds: Seconds = 0.0
    counts: Mapping[AdapterState, int] = field(default_factory=dict)


class RefreshStatus(StrEnum):
    """How far a refresh has come."""

    PENDING = "pending"
    """Requested; the watcher has not answered yet."""
    SCANNED = "scanned"
    """The disk was read and the catalog says what is there."""
    CONVERGED = "converged"
    """And every live worker has observed it."""
    PARTIAL = "partial"
    """Time ran out before some workers had observed it; `pending` names them."""
    TIMEOUT = "timeout"
    """Time ran out before the watcher answered."""
    FAILED = "failed"
    """The disk could not be read; `error` says why. Nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshResult:
    """What the watcher found for one refresh. `seq` is the catalog's when it was done.

    Lists are bounded: `omitted` is how many names a list lost, by its field.
    """

    id: str
    status: RefreshStatus
    at: Timestamp
    dry_run: bool = False
    discovered: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    rejected: Mapping[str, Reason] = field(default_factory=dict)
    total: int = 0
    error: Reason | None = None
    seq: int = 0
    omitted: Mapping[str, int] = field(default_factory=dict)

    @property
    def newly_discovered(self) -> int:
        """How many adapters are served for the first time, listed or not."""
        return len(self.discovered) + self.omitted.get("discovered", 0)
