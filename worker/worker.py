"""One API process's worker: its parts, wired together and kept running.

A task that ends with an error is logged and started again (`supervision`), while requests go on being
answered from what is loaded.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from prometheus_client import REGISTRY, CollectorRegistry

from loradrop.catalog.backoff import Backoff
from loradrop.catalog.errors import LoradropError
from loradrop.catalog.http.queries import Queries
from loradrop.catalog.status import WorkerStatus
from loradrop.catalog.store import Connection, Reader, Reports
from loradrop.catalog.store.address import without_password
from loradrop.worker.admission.base_model import read_base_model
from loradrop.worker.admission.preparation import Preparation
from loradrop.worker.engine.engine import Engine
from loradrop.worker.engine.model_table import ModelTable
from loradrop.worker.engine.nan_monitor import NanMonitor
from loradrop.worker.fleet.catalog_follower import CatalogFollower
from loradrop.worker.fleet.embedded import STACK, StackOptions, embedded_stack, joined_stack
from loradrop.worker.fleet.reporter import Reporter
from loradrop.worker.residency_metrics import ResidencyCollector, registered
from loradrop.worker.serving.model_cards import ModelCards
from loradrop.worker.serving.reconciler import Reconciler
from loradrop.worker.settings import WorkerSettings
from loradrop.worker.store.copying import copy_adapter
from loradrop.worker.store.revision_store import RevisionStore
from loradrop.worker.store.warm_start import WarmStart
from loradrop.worker.supervision import supervised

_log = logging.getLogger(__name__)

_GIB = 1 << 30
_MB = 1e6


@dataclass(frozen=True, slots=True)
class Worker:
    """What the routes need: the table and the reconciler for names, the queries for everything else."""

    table: ModelTable
    reconciler: Reconciler
    queries: Queries
    cards: ModelCards


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker does not take from the settings."""

    catch_up_seconds: float = 15.0
    """How long the server's start waits for the catalog."""
    poll_seconds: float = 0.02
    warm_start_seconds: float = 5.0
    """Between two writes of what is offered: a worker that is killed loses no more than this."""
    stack: StackOptions = STACK
    registry: CollectorRegistry = REGISTRY
    """What the server's `GET /metrics` shows."""


_OPTIONS = WorkerOptions()


@asynccontextmanager
async def running_worker(
    engine: Engine,
    table: ModelTable,
    settings: WorkerSettings,
    *,
    url: str,
    identity: str,
    options: WorkerOptions = _OPTIONS,
) -> AsyncIterator[Worker]:
    """Run a worker for the length of the block. `url` is where its server can be asked.

    Yields once what is under the prefix now is listed, or after fifteen seconds without: the server then
    starts with what it has. Raises SettingsInvalid, RuntimeError and OSError for what cannot work.
    """
    base = read_base_model(engine.checkpoint_directory(), renamed=engine.renames_modules)
    store = RevisionStore(
        settings.lora_cache_dir,
        max_bytes=int(settings.lora_cache_size * _GIB),
        bytes_per_second=settings.lora_copy_bandwidth * _MB,
        copy=partial(copy_adapter, allow_symlinks_to=settings.allow_symlinks_to),
    )
    preparation = Preparation(store, base=base, limits=engine.limits, allow_pickle=settings.allow_pickle)
    async with AsyncExitStack() as stack:
        redis_url = settings.redis_url
        if redis_url is None and engine.process_rank == 0:
            redis_url = await stack.enter_async_context(embedded_stack(settings, options.stack))
        elif redis_url is None:
            redis_url = await joined_stack(settings, options.stack)
        connection = await stack.enter_async_context(Connection(redis_url, pool=settings.pool))
        reconciler = Reconciler(
            engine, table, preparation.prepare, prefix=settings.lora_dir_prefix, capacity=engine.capacity
        )
        stack.push_async_callback(reconciler.aclose)
        residents = ResidencyCollector(
            lambda: reconciler.status.residents(sorted(table.static_names), engine.max_loras)
        )
        stack.callback(registered(residents, options.registry))
        warm_start = WarmStart(
            settings.lora_cache_dir / "last-known",
            store,
            catalog=_catalog(settings),
            interval_seconds=options.warm_start_seconds,
        )
        follower = CatalogFollower(
            Reader(connection), reconciler, moved=reconciler.status.wakeup, warm_start=warm_start.read()
        )
        reports, nans = Reports(connection), NanMonitor(is_counted=engine.counts_nans)
        reporter = Reporter(
            reports,
            _identity(engine, table, identity, url),
            adapters=reconciler.status,
            position=lambda: follower.position,
            degraded=lambda: nans.reason() or store.directory.reason(),
        )
        manual_loads = reconciler.manual_loads
        table.install(
            resolve=reconciler.resolve,
            load=manual_loads.load,
            unload=manual_loads.unload,
            is_there=reconciler.is_there,
            is_loaded=reconciler.is_loaded,
        )
        tasks = {
            "catalog follower": follower.run,
            "reconciler": lambda: reconciler.run(preload=settings.lora_preload),
            "reporter": reporter.run,
            "private store": store.directory.keep,
            "warm start": lambda: warm_start.keep(
                lambda: reconciler.listed() if follower.position.epoch is not None else None
            ),
        }
        await stack.enter_async_context(supervised(tasks, _restarts))
        await _catch_up(follower, reports, options, own_watcher=settings.redis_url is None)
        yield Worker(table, reconciler, Queries(connection), ModelCards(table.base_model))


def _restarts() -> Backoff:
    return Backoff(0.5, 30.0, healthy_seconds=30.0)


def _catalog(settings: WorkerSettings) -> str:
    """Return what identifies the catalog: an embedded stack's port may be another after each start."""
    address = without_password(settings.redis_url) if settings.redis_url is not None else "embedded"
    return f"{address}\n{settings.pool}\n{settings.lora_dir_prefix}"


def _identity(engine: Engine, table: ModelTable, identity: str, url: str) -> WorkerStatus:
    now = datetime.now(UTC)
    return WorkerStatus(
        id=identity,
        base_model=table.base_model,
        url=url,
        started_at=now,
        last_heartbeat=now,
        vllm_version=engine.vllm_version,
        max_loras=engine.max_loras,
        max_lora_rank=engine.limits.max_lora_rank,
    )


async def _catch_up(
    follower: CatalogFollower, reports: Reports, options: WorkerOptions, *, own_watcher: bool
) -> None:
    """Wait until the catalog is listed; with a watcher of our own, until its first scan is too."""
    try:
        async with asyncio.timeout(options.catch_up_seconds):
            while not await _is_caught_up(follower, reports, own_watcher=own_watcher):  # noqa: ASYNC110 - in Redis
                await asyncio.sleep(options.poll_seconds)
    except TimeoutError:
        why = follower.position.stale or "the first scan of the prefix takes long"
        _log.warning("starting before the catalog is known, adapters follow reason=%s", why)


async def _is_caught_up(follower: CatalogFollower, reports: Reports, *, own_watcher: bool) -> bool:
    if follower.position.epoch is None:
        return False
    try:
        watcher, meta = await reports.watcher(), await reports.meta()
    except LoradropError:
        return False
    if own_watcher and (watcher is None or (watcher.last_scan_at is None and watcher.degraded is None)):
        return False
    return meta is not None and follower.position.seq >= meta.seq
