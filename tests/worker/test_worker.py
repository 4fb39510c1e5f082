"""One API process's worker, whole: real Redis, real files, vLLM's own table of models."""

import dataclasses
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.status import WorkerState
from loradrop.catalog.store import Connection, Publisher, Reports
from loradrop.worker.engine.engine import Engine
from loradrop.worker.engine.model_table import ModelTable
from loradrop.worker.fleet.embedded import StackOptions
from loradrop.worker.settings import WorkerSettings
from loradrop.worker.worker import Worker, WorkerOptions, running_worker
from testkit.servers import free_port, valkey
from testkit.tiny_model import write_tiny_adapter
from testkit.waiting import wait_until
from tests.catalog.values import an_adapter
from tests.worker.sources import digest_of
from tests.worker.vllm_parts import (
    ErrorResponse,
    FakeClient,
    LoRARequest,
    OpenAIServingModels,
    serving_models,
)


@pytest.fixture(autouse=True)
def _runtime_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "0")


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> WorkerSettings:
    (tmp_path / "loras").mkdir()
    return WorkerSettings(
        redis_url=redis_url, lora_dir_prefix=tmp_path / "loras", lora_cache_dir=tmp_path / "cache"
    )


OPTIONS = WorkerOptions(warm_start_seconds=0.05)
IMPATIENT = dataclasses.replace(OPTIONS, catch_up_seconds=0.2)
"""Where there is no catalog to be waited for."""


class _Server:
    """A running worker and what is around it."""

    def __init__(self, client: FakeClient, models: OpenAIServingModels, worker: Worker) -> None:
        self.client = client
        self.models = models
        self.worker = worker


@asynccontextmanager
async def serving(
    settings: WorkerSettings, tmp_path: Path, options: WorkerOptions = OPTIONS
) -> AsyncIterator[_Server]:
    client = FakeClient(model=str(tmp_path / "no-model"))
    models = serving_models(client)
    table = ModelTable(models)
    engine = Engine(client, static_count=table.static_count)
    async with running_worker(
        engine, table, settings, url="http://me:8000", identity="me:8000", options=options
    ) as worker:
        yield _Server(client, models, worker)


@pytest.fixture
async def publisher(connection: Connection) -> Publisher:
    publisher = Publisher(connection, owner="watcher-1")
    await publisher.lead()
    return publisher


async def publish(publisher: Publisher, directory: Path) -> None:
    adapter = an_adapter(
        directory.name, revision=digest_of(directory), prefix=str(directory.parent), path=directory.name
    )
    await publisher.publish([adapter], catalog_size=10)


async def test_a_published_adapter_is_resolved_by_vllms_table_from_a_private_copy(
    settings: WorkerSettings, tmp_path: Path, publisher: Publisher
) -> None:
    await publish(publisher, write_tiny_adapter(tmp_path / "loras" / "sql", seed=1))
    async with serving(settings, tmp_path) as server:
        request = await server.models.resolve_lora("sql")
        assert isinstance(request, LoRARequest)
        assert Path(request.lora_path).is_relative_to(tmp_path / "cache")
        assert request.lora_int_id in server.client.loaded
        assert server.models.model_name(request) == "sql"


async def test_a_bad_adapter_never_reaches_the_engine_and_its_reason_is_reported(
    settings: WorkerSettings, tmp_path: Path, publisher: Publisher, connection: Connection
) -> None:
    await publish(publisher, write_tiny_adapter(tmp_path / "loras" / "wide", seed=1, rank=16))
    async with serving(settings, tmp_path) as server:
        answer = await server.models.resolve_lora("wide")
        assert isinstance(answer, ErrorResponse)
        assert "rank_too_high" in answer.error.message
        assert server.client.loaded == {}

        async def reported() -> bool:
            said = (await Reports(connection).tables(["me:8000"]))["me:8000"].get("wide")
            return said is not None and said.state is WorkerState.REJECTED

        await wait_until(reported, timeout=5, description="the rejection is reported")


async def test_an_adapter_loads_by_hand_through_vllms_route(settings: WorkerSettings, tmp_path: Path) -> None:
    from tests.worker.vllm_parts import LoadLoRAAdapterRequest

    path = write_tiny_adapter(tmp_path / "loras" / "draft", seed=1)
    async with Connection(str(settings.redis_url)) as connection:
        await Publisher(connection, owner="watcher-1").lead()
    async with serving(settings, tmp_path) as server:
        request = LoadLoRAAdapterRequest(lora_name="draft", lora_path=str(path))
        assert "added successfully" in str(await server.models.load_lora_adapter(request))
        assert "draft" in server.models.lora_requests


async def test_a_worker_says_who_it_is(
    settings: WorkerSettings, tmp_path: Path, publisher: Publisher, connection: Connection
) -> None:
    async with serving(settings, tmp_path):

        async def reported() -> bool:
            return "me:8000" in await Reports(connection).workers()

        await wait_until(reported, timeout=5, description="the worker shows")
        status = (await Reports(connection).workers())["me:8000"]
        assert (status.base_model, status.url) == ("tiny", "http://me:8000")
        assert (status.max_loras, status.max_lora_rank) == (2, 8)
        assert status.vllm_version


async def test_a_redis_that_is_away_delays_the_start_and_does_not_prevent_it(
    settings: WorkerSettings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    away = dataclasses.replace(settings, redis_url=f"redis://127.0.0.1:{free_port()}/0")
    async with serving(away, tmp_path, IMPATIENT) as server:
        assert server.worker.reconciler.listed() == []
        assert "adapters follow" in caplog.text


async def test_started_while_redis_is_away_it_serves_what_it_served_before_and_then_catches_up(
    settings: WorkerSettings, tmp_path: Path
) -> None:
    (tmp_path / "valkey").mkdir()
    with valkey(tmp_path / "valkey", "--appendfsync", "always") as redis_server:
        settings = dataclasses.replace(settings, redis_url=redis_server.url)
        async with Connection(redis_server.url) as connection:
            publisher = Publisher(connection, owner="watcher-1")
            await publisher.lead()
            await publish(publisher, write_tiny_adapter(tmp_path / "loras" / "sql", seed=1))
            await publish(publisher, write_tiny_adapter(tmp_path / "loras" / "poet", seed=2))
            await publisher.complete()
            async with serving(settings, tmp_path) as server:
                assert isinstance(await server.models.resolve_lora("sql"), LoRARequest)
                kept = settings.lora_cache_dir / "last-known"
                await wait_until(
                    lambda: any('"sql"' in path.read_text() for path in kept.glob("*.jsonl")),
                    timeout=10,
                    description="what is served is kept",
                )
            redis_server.kill()
            shutil.rmtree(tmp_path / "loras")
            async with serving(settings, tmp_path, IMPATIENT) as server:
                reconciler = server.worker.reconciler
                await wait_until(
                    lambda: [adapter.name for adapter in reconciler.listed()] == ["sql"],
                    timeout=20,
                    description="what was served is listed",
                )
                assert isinstance(await server.models.resolve_lora("sql"), LoRARequest)
                assert len(server.client.loaded) == 1
                redis_server.start()
                await wait_until(
                    lambda: [adapter.name for adapter in reconciler.listed()] == ["poet", "sql"],
                    timeout=20,
                    description="the catalog is listed",
                )
                assert len(server.client.loaded) == 1


async def test_without_a_redis_everything_is_started_and_what_is_there_is_listed_at_once(
    settings: WorkerSettings, tmp_path: Path
) -> None:
    alone = dataclasses.replace(
        settings, redis_url=None, lora_state_dir=tmp_path / "state", api_port=free_port(), lora_settle=0.1
    )
    write_tiny_adapter(tmp_path / "loras" / "sql", seed=1)
    async with serving(alone, tmp_path, WorkerOptions(stack=StackOptions(redis_port=free_port()))) as server:
        (adapter,) = server.worker.reconciler.listed()
        assert (adapter.name, adapter.state) == ("sql", AdapterState.READY)


async def test_an_emptied_redis_leaves_loaded_adapters_served(
    settings: WorkerSettings, tmp_path: Path, publisher: Publisher
) -> None:
    await publish(publisher, write_tiny_adapter(tmp_path / "loras" / "sql", seed=1))
    async with serving(settings, tmp_path) as server:
        await server.models.resolve_lora("sql")
        with redis.Redis.from_url(str(settings.redis_url)) as raw:
            raw.flushall()
        assert "sql" in server.models.lora_requests
