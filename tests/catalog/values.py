"""Values of the catalog for tests: one of each, and any of each."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from loradrop.catalog.adapter import Adapter, AdapterState, Reason, Revision, WeightsFormat
from loradrop.catalog.status import WatcherMode, WatcherStatus, WorkerStatus

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
TRUNCATED = Reason("weights_truncated", "adapter_model.safetensors is 3 bytes short; copy it again.")
GONE = Reason("removed", "The directory is gone from the prefix.")


def revision(digit: str) -> Revision:
    return Revision(digit * 64)


def an_adapter(name: str = "sql_adapter", **changes: Any) -> Adapter:
    """Return a ready adapter, but for `changes`."""
    values: dict[str, Any] = {
        "name": name,
        "prefix": "/srv/loras",
        "path": name,
        "revision": revision("a"),
        "state": AdapterState.READY,
        "discovered_at": NOON,
        "updated_at": NOON,
        "size_bytes": 1_234_567,
        "format": WeightsFormat.SAFETENSORS,
        "rank": 8,
        "base_model": "tiny-llama",
    }
    return Adapter(**(values | changes))


def a_worker(worker_id: str = "gpu-1:8000", **changes: Any) -> WorkerStatus:
    """Return the heartbeat of a worker that has seen nothing, but for `changes`."""
    values: dict[str, Any] = {
        "id": worker_id,
        "base_model": "tiny-llama",
        "url": f"http://{worker_id}",
        "started_at": NOON,
        "last_heartbeat": datetime.now(UTC),
    }
    return WorkerStatus(**(values | changes))


def a_watcher(owner: str = "watcher-1", **changes: Any) -> WatcherStatus:
    """Return the heartbeat of a watcher that has nothing to complain about, but for `changes`."""
    values: dict[str, Any] = {
        "owner": owner,
        "prefix": "/srv/loras",
        "mode": WatcherMode.INOTIFY,
        "heartbeat_at": NOON,
        "last_scan_at": NOON,
        "last_scan_seconds": 0.125,
        "interval_seconds": 30.0,
        "counts": {AdapterState.READY: 2},
    }
    return WatcherStatus(**(values | changes))


any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
any_time = st.datetimes(
    min_value=datetime(1971, 1, 1),
    max_value=datetime(2999, 1, 1),
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]),
)
any_revision = st.text("0123456789abcdef", min_size=64, max_size=64).map(Revision)
any_reason = st.builds(Reason, any_text.filter(bool), any_text)
