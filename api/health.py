"""Is this API ready, and if not, what is missing? Asked of Redis each time, within a bounded time."""

from loradrop.api.schemas import Check, Readiness, WatcherView
from loradrop.catalog.adapter import Reason
from loradrop.catalog.errors import NO_CATALOG, LoradropError
from loradrop.catalog.http.deadlines import in_time
from loradrop.catalog.status import WatcherStatus
from loradrop.catalog.store import Reports
from loradrop.catalog.store.reports import Meta

_NO_WATCHER = Reason(
    "no_watcher", "No watcher is alive: changes on disk go unnoticed. Start one with `loradrop watch`."
)
_NO_CATALOG = Reason("no_catalog", NO_CATALOG)


async def readiness(reports: Reports, *, redis_seconds: float) -> Readiness:
    """Return whether the API is ready. Never raises for what Redis does."""
    try:
        async with in_time(redis_seconds):
            meta, watcher = await reports.meta(), await reports.watcher()
    except LoradropError as error:
        return _readiness(None, None, _check("redis", error.reason))
    return _readiness(meta, watcher, _check("redis", None))


def _readiness(meta: Meta | None, watcher: WatcherStatus | None, redis: Check) -> Readiness:
    checks = [redis]
    if redis.ok:
        checks.append(_check("catalog", None if meta else _NO_CATALOG))
        checks.append(_check("watcher", None if watcher else _NO_WATCHER))
    return Readiness(
        ready=all(check.ok for check in checks),
        checks=checks,
        watcher=WatcherView.of(watcher) if watcher else None,
        epoch=meta.epoch if meta else None,
        seq=meta.seq if meta else None,
    )


def _check(name: str, problem: Reason | None) -> Check:
    return Check(name=name, ok=problem is None, reason=problem)
