"""Is this API ready, and if not, what is missing? Asked of Redis each time, within a bounded time."""

from loradrop.api.schemas import Check, Readiness, WatcherView
from loradrop.catalog.adapter import Reason
from loradrop.catalog.errors import NO_CATALOG, LoradropError
from loradrop.catalog.http.deadlines import in_time
from loradrop.catalog.store import Reports

_NO_WATCHER = Reason(
    "no_watcher", "No watcher is alive: changes on disk go unnoticed. Start one with `loradrop watch`."
)
_NO_CATALOG = Reason("no_catalog", NO_CATALOG)


async def readiness(reports: Reports, *, redis_seconds: float) -> Readiness:
    """Return whether the API is ready. Never raises for what Redis does."""
    meta, watcher = None, None
    try:
        async with in_time(redis_seconds):
            meta, watcher = await reports.meta(), await reports.watcher()
        missing = {
            "redis": None,
            "catalog": None if meta else _NO_CATALOG,
            "watcher": None if watcher else _NO_WATCHER,
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
