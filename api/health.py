"""Is this API ready, and if not, what is missing? Asked of Redis each time, within a bounded time."""

from loradrop.api.schemas import Check, Readiness, WatcherView
from loradrop.catalog.adapter import Reason
from loradrop.catalog.errors import NO_CATALOG, LoradropError
from loradrop.catalog.http.deadlines import in_time
from loradrop.catalog.status import WorkerStatus
from loradrop.catalog.store import Reports

_NO_WATCHER = Reason(
    "no_watcher", "No watcher is alive: changes on disk go unnoticed. Start one with `loradrop watch`."
)
_NO_CATALOG = Reason("no_catalog", NO_CATALOG)


async def readiness(reports: Reports, *, redis_seconds: float) -> Readiness:
    """Return whether the API is ready. Never raises for what Redis does."""
    meta, watcher, workers = None, None, {}
    try:
        async with in_time(redis_seconds):
            meta, watcher = await reports.meta(), await reports.watcher()
            workers = await reports.workers()
        missing = {
            "redis": None,
            "catalog": None if meta else _NO_CATALOG,
            "watcher": None if watcher else _NO_WATCHER,
            "workers": next((found for worker in workers.values() if (found := _of_store(worker))), None),
        }
    except LoradropError as error:
        missing = {"redis": error.reason}
    checks = [Check(name=name, ok=reason is None, reason=reason) for name, reason in missing.items()]
    return Readiness(
        ready=all(check.ok for check in checks),
        checks=checks,
        watcher=WatcherView.of(watcher) if watcher else None,
        epoch=meta.epoch if meta else None,
        seq=meta.seq if meta else None,
    )


def _of_store(worker: WorkerStatus) -> Reason | None:
    """Return why `worker` can copy nothing, or None."""
    if worker.degraded is None or worker.degraded.code != "store_gone":
        return None
    return Reason(worker.degraded.code, f"{worker.id}: {worker.degraded.message}")
