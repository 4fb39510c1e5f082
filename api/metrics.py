"""Prometheus metrics: counters of this process, and the catalog as Redis holds it at the scrape."""

import collections
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.errors import LoradropError
from loradrop.catalog.http.deadlines import in_time
from loradrop.catalog.http.views import WorkerView, worker_view
from loradrop.catalog.status import WatcherStatus, WorkerState
from loradrop.catalog.store import Connection, Reader, Reports

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
"""A client may send any word as a method: a label must not hold it."""
_STATES = frozenset(WorkerState)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What Redis said at one scrape; where it did not answer, `redis_up` is false and the rest empty."""

    redis_up: bool = False
    seq: int = 0
    states: dict[AdapterState, int] = field(default_factory=dict)
    served: int = 0
    workers: Sequence[WorkerView] = ()
    watcher: WatcherStatus | None = None


class Metrics:
    """Counts what this process does, and renders it with the catalog. Has its own registry."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "loradrop_http_requests",
            "HTTP requests answered by this API.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self.refreshes = Counter(
            "loradrop_refreshes",
            "Manual refreshes asked of this API, by the status they were answered with.",
            ["status"],
            registry=self._registry,
        )
        self.event_streams = Gauge(
            "loradrop_event_streams", "Clients that follow the events now.", registry=self._registry
        )

    def render(self, snapshot: Snapshot) -> bytes:
        """Return everything in Prometheus' text format."""
        catalog = CollectorRegistry()
        catalog.register(_CatalogCollector(snapshot))
        return generate_latest(self._registry) + generate_latest(catalog)


class CountRequests:
    """ASGI middleware that counts requests by method, route and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and count its answer as soon as it begins."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "none")  # a route, so that names do not pile up
                method = scope["method"] if scope["method"] in _METHODS else "other"
                self._metrics.requests.labels(method, route, message["status"]).inc()
            await send(message)

        await self._app(scope, receive, counting)


async def take_snapshot(connection: Connection, *, seconds: float) -> Snapshot:
    """Return what Redis says within `seconds`. Never raises for what Redis does."""
    try:
        async with in_time(seconds):
            return await _snapshot(Reader(connection), Reports(connection))
    except LoradropError:
        return Snapshot()


async def _snapshot(reader: Reader, reports: Reports) -> Snapshot:
    watcher = await reports.watcher()
    if await reports.meta() is None:
        return Snapshot(redis_up=True, watcher=watcher)
    listing = await reader.listing()
    workers = (await reports.workers()).values()
    return Snapshot(
        redis_up=True,
        seq=listing.seq,
        states=collections.Counter(adapter.state for adapter in listing.adapters.values()),
        served=sum(adapter.revision is not None for adapter in listing.adapters.values()),
        workers=[worker_view(worker, epoch=listing.epoch, seq=listing.seq) for worker in workers],
        watcher=watcher,
    )


class _CatalogCollector(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        now = self._snapshot
        yield GaugeMetricFamily("loradrop_redis_up", "Whether Redis answered this scrape.", now.redis_up)
        if not now.redis_up:
            return
        adapters = GaugeMetricFamily("loradrop_adapters", "Adapters by what the disk says.", labels=["state"])
        for state in AdapterState:
            adapters.add_metric([state], now.states.get(state, 0))
        yield adapters
        yield GaugeMetricFamily("loradrop_adapters_served", "Adapters with a revision to serve.", now.served)
        yield GaugeMetricFamily("loradrop_catalog_seq", "How far the catalog has come.", now.seq)
        yield from self._workers()
        yield from self._watcher()

    def _workers(self) -> Iterator[Metric]:
        workers = self._snapshot.workers
        yield GaugeMetricFamily("loradrop_workers", "Living workers.", len(workers))
        lag = GaugeMetricFamily(
            "loradrop_worker_lag", "Changes a worker has not observed yet.", labels=["worker"]
        )
        counts = GaugeMetricFamily(
            "loradrop_worker_adapters", "Adapters by what a worker made of them.", labels=["worker", "state"]
        )
        for worker in workers:
            lag.add_metric([worker.id], worker.lag)
            for state in sorted(_STATES & worker.adapters.keys()):
                counts.add_metric([worker.id, state], worker.adapters[state])
        yield lag
        yield counts

    def _watcher(self) -> Iterator[Metric]:
        watcher = self._snapshot.watcher
        yield GaugeMetricFamily("loradrop_watcher_up", "Whether a watcher is alive.", watcher is not None)
        if watcher is None:
            return
        degraded = GaugeMetricFamily(
            "loradrop_watcher_degraded", "1 where changes may be noticed late.", labels=["code"]
        )
        reason = watcher.degraded
        degraded.add_metric([reason.code if reason else ""], reason is not None)
        yield degraded
        if watcher.last_scan_at is not None:
            age = max(0.0, time.time() - watcher.last_scan_at.timestamp())
            yield GaugeMetricFamily(
                "loradrop_watcher_last_scan_age_seconds", "Since the last whole look at the disk.", age
            )
