"""One API process's worker: the parts, put together and kept running.

Our code may fail; vLLM must not notice. Each task that ends with an error is logged and started again,
with growing pauses, while requests go on being answered from what is loaded.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from loradrop.catalog.errors import LoradropError
from loradrop.catalog.http.queries import Queries
from loradrop.catalog.status import WorkerStatus
from loradrop.catalog.store import Connection, Reader, Reports
from loradrop.catalog.store.address import without_password
from loradrop.worker.admission.base_model import read_base_model
from loradrop.worker.admission.preparation import Preparation
from loradrop.worker.engine.engine import Engine
from loradrop.worker.engine.model_table import ModelTable
from loradrop.worker.engine.nan_monitor import NanAlarm
from loradrop.worker.fleet.catalog_follower import Consumer
from loradrop.worker.fleet.embedded import embedded_stack, joined_stack
from loradrop.worker.fleet.reporter import Reporter
from loradrop.worker.serving.model_cards import ModelCards
from loradrop.worker.serving.reconciler import Reconciler
from loradrop.worker.settings import WorkerSettings
from loradrop.worker.store.revision_store import RevisionStore
from loradrop.worker.store.warm_start import LastKnown

_log = logging.getLogger(__name__)

_GIB = 1 << 30
_MB = 1e6
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_PATIENCE_SECONDS = 15.0
_LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Worker:
    """What the routes need: the table and the reconciler for names, the queries for everything else."""

    settings: WorkerSettings
    table: ModelTable
    reconciler: Reconciler
    queries: Queries
    cards: ModelCards


@asynccontextmanager
async def running_worker(
    engine: Engine, table: ModelTable, settings: WorkerSettings, *, url: str, identity: str
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
    )
    preparation = Preparation(store, base=base, limits=engine.limits, allow_pickle=settings.allow_pickle)
    async with AsyncExitStack() as stack:
        redis_url = settings.redis_url
        if redis_url is None:
            first = engine.process_rank == 0
            redis_url = await (
                stack.enter_async_context(embedded_stack(settings)) if first else joined_stack(settings)
            )
        connection = await stack.enter_async_context(Connection(redis_url, pool=settings.pool))
        reconciler = Reconciler(
            engine, table, preparation.prepare, prefix=settings.lora_dir_prefix, capacity=engine.capacity
        )
        stack.push_async_callback(reconciler.aclose)
        last_known = LastKnown(
            settings.lora_cache_dir / "last-known",
            store,
            of=f"{without_password(redis_url)}\n{settings.pool}\n{settings.lora_dir_prefix}",
        )
        consumer = Consumer(
            Reader(connection), reconciler, moved=reconciler.standing.bell, last_known=last_known.read()
        )
        reports = Reports(connection)
        status = _identity(engine, table, identity, url)
        reporter = Reporter(
            reports,
            status,
            standing=reconciler.standing,
            consumer=consumer,
            alarm=NanAlarm(is_counted=engine.counts_nans),
        )
        table.install(
            resolve=reconciler.resolve, load=reconciler.by_hand.load, unload=reconciler.by_hand.unload
        )
        await stack.enter_async_context(
            _kept_running(
                {
                    "consumer": consumer.run,
                    "reconciler": lambda: reconciler.run(preload=settings.lora_preload),
                    "reporter": reporter.run,
                    "last known": lambda: last_known.keep(
                        lambda: reconciler.listed() if consumer.position.epoch is not None else None
                    ),
                }
            )
        )
        await _caught_up(consumer, reports, own_watcher=settings.redis_url is None)
        yield Worker(settings, table, reconciler, Queries(connection), ModelCards(table.base_model))


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


@asynccontextmanager
async def _kept_running(tasks: dict[str, Callable[[], Awaitable[None]]]) -> AsyncIterator[None]:
    running = [asyncio.create_task(_again_and_again(name, run), name=name) for name, run in tasks.items()]
    try:
        yield
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _again_and_again(name: str, run: Callable[[], Awaitable[None]]) -> None:
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            await run()
        except Exception:  # noqa: BLE001 - vLLM must not notice
            _log.exception("task broke, starting it again task=%s pause=%.1f", name, pause)
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


async def _caught_up(consumer: Consumer, reports: Reports, *, own_watcher: bool) -> None:
    """Wait until the catalog is listed; with a watcher of our own, until its first scan is too."""
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while not await _is_caught_up(consumer, reports, own_watcher=own_watcher):  # noqa: ASYNC110 - in Redis
                await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError:
        why = consumer.position.stale or "the first scan of the prefix takes long"
        _log.warning("starting before the catalog is known, adapters follow reason=%s", why)


async def _is_caught_up(consumer: Consumer, reports: Reports, *, own_watcher: bool) -> bool:
    if consumer.position.epoch is None:
        return False
    try:
        watcher, meta = await reports.watcher(), await reports.meta()
    except LoradropError:
        return False
    if own_watcher and (watcher is None or (watcher.last_scan_at is None and watcher.degraded is None)):
        return False
    return meta is not None and consumer.position.seq >= meta.seq
