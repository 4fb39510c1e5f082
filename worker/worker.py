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

from catalog.errors import CatalogUnavailable
from catalog.queries import Queries
from catalog.status import WorkerStatus
from catalog.store import Connection, Reader, Reports
from worker.base_model import read_base_model
from worker.consumer import Consumer
from worker.embedded import embedded_stack, joined_stack
from worker.engine import Engine
from worker.model_table import ModelTable
from worker.preparation import Preparation
from worker.reconciler import Reconciler
from worker.reporter import Reporter
from worker.revisions import RevisionStore
from worker.settings import WorkerSettings

_log = logging.getLogger("loradrop.worker")

_GIB = 1 << 30
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_FIRST_LIST_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Worker:
    """What the routes need: the table and the reconciler for names, the queries for everything else."""

    settings: WorkerSettings
    table: ModelTable
    reconciler: Reconciler
    queries: Queries


@asynccontextmanager
async def running_worker(
    engine: Engine, table: ModelTable, settings: WorkerSettings, *, url: str, identity: str
) -> AsyncIterator[Worker]:
    """Run a worker for the length of the block. `url` is where its server can be asked.

    Returns once the catalog has been listed, or after ten seconds without one: the server then starts with
    what it has, and catches up. Raises SettingsError, RuntimeError and OSError for what cannot work.
    """
    base = read_base_model(engine.checkpoint_directory(), renamed=engine.renames_modules)
    store = RevisionStore(settings.lora_cache_dir, max_bytes=int(settings.lora_cache_size * _GIB))
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
        consumer = Consumer(Reader(connection), reconciler, moved=reconciler.bell)
        reporter = Reporter(
            Reports(connection),
            _identity(engine, table, identity, url),
            reconciler=reconciler,
            consumer=consumer,
        )
        table.install(
            resolve=reconciler.resolve, load=reconciler.load_by_hand, unload=reconciler.unload_by_hand
        )
        await stack.enter_async_context(
            _kept_running(
                {
                    "consumer": consumer.run,
                    "reconciler": lambda: reconciler.run(preload=settings.lora_preload),
                    "reporter": reporter.run,
                }
            )
        )
        await _first_listing(consumer)
        yield Worker(settings, table, reconciler, Queries(connection))


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


async def _first_listing(consumer: Consumer) -> None:
    deadline = asyncio.get_running_loop().time() + _FIRST_LIST_SECONDS
    while consumer.position.epoch is None:
        if asyncio.get_running_loop().time() > deadline:
            error = consumer.position.stale or CatalogUnavailable("Redis does not answer.")
            _log.warning("starting without a catalog, adapters follow when it can be read error=%s", error)
            return
        await asyncio.sleep(0.02)
