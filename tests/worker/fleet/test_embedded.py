"""Everything at once: a Valkey, a watcher and the API that live and die with their server."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import psutil
import pytest
from redis.asyncio import Redis

from loradrop.catalog.backoff import Backoff
from loradrop.catalog.errors import CatalogUnavailable
from loradrop.catalog.settings import SettingsInvalid
from loradrop.worker.fleet.children import kept_running
from loradrop.worker.fleet.embedded import (
    StackOptions,
    embedded_stack,
    joined_stack,
)
from loradrop.worker.fleet.state_directory import StateDirectory
from loradrop.worker.settings import WorkerSettings
from testkit.adapters import write_adapter
from testkit.servers import accepts_connections
from testkit.waiting import wait_until, wait_until_sync
from tests.worker.fleet.stacks import DeadCommands, alive, children_of, until_running

pytestmark = pytest.mark.faults


async def test_a_dropped_adapter_is_in_the_catalog_and_the_api_and_nothing_is_left_afterwards(
    settings: WorkerSettings, options: StackOptions
) -> None:
    assert settings.lora_dir_prefix is not None
    async with embedded_stack(settings, options) as url:
        children = await until_running("valkey-server", "-m loradrop.watcher", "-m loradrop.api")
        write_adapter(settings.lora_dir_prefix / "sql")
        async with Redis.from_url(url, decode_responses=True) as raw, httpx.AsyncClient() as client:

            async def published() -> bool:
                return await raw.hexists("loradrop:{default}:adapters", "sql")

            async def answered() -> bool:
                try:
                    answer = await client.get(f"http://127.0.0.1:{settings.api_port}/v1/lora_adapters")
                except httpx.TransportError:
                    return False
                return [adapter["id"] for adapter in answer.json()["data"]] == ["sql"]

            await wait_until(published, timeout=20, description="the adapter is in the catalog")
            await wait_until(answered, timeout=20, description="the API lists it")
    assert not any(child.is_running() for child in children.values())
    assert not list(StateDirectory(settings).path.glob("*.url"))


async def test_where_redis_and_api_are_stands_in_the_state_directory_while_they_run(
    settings: WorkerSettings, idle: StackOptions
) -> None:
    async with embedded_stack(settings, idle) as url:
        state = StateDirectory(settings).path
        assert (state / "redis.url").read_text() == f"{url}\n"
        assert (state / "api.url").read_text() == f"http://127.0.0.1:{settings.api_port}\n"
        assert url == f"redis://127.0.0.1:{idle.redis_port}/0"
        assert await joined_stack(settings, idle) == url
    assert not accepts_connections(idle.redis_port)


async def test_a_second_server_of_the_same_state_is_refused_with_a_sentence(
    settings: WorkerSettings, idle: StackOptions
) -> None:
    async with embedded_stack(settings, idle) as first:
        with pytest.raises(SettingsInvalid, match="--redis-url"):
            async with embedded_stack(settings, idle):
                pytest.fail("two servers own one state directory")
        assert await joined_stack(settings, idle) == first, "the refused one took nothing away"
        other_pool = dataclasses.replace(settings, pool="other")
        async with embedded_stack(other_pool, idle) as url:
            assert url != first, "the usual port was taken"
    async with embedded_stack(settings, idle) as url:
        assert url == first


def test_a_look_by_another_process_never_costs_the_owner_its_start(settings: WorkerSettings) -> None:
    state = StateDirectory(settings)
    state.path.mkdir(parents=True)
    (state.path / "lock").touch()
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            state.is_owned()

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for _ in range(50):
            with state.owned():
                pass
    finally:
        stop.set()
        looker.join()


async def test_a_restart_finds_its_data(settings: WorkerSettings, idle: StackOptions) -> None:
    async with embedded_stack(settings, idle) as url, Redis.from_url(url) as raw:
        await raw.set("kept", "yes")
    async with embedded_stack(settings, idle) as url, Redis.from_url(url) as raw:
        assert await raw.get("kept") == b"yes"


async def test_a_child_that_dies_is_started_again(
    settings: WorkerSettings, idle: StackOptions, caplog: pytest.LogCaptureFixture
) -> None:
    async with embedded_stack(settings, idle) as url:
        before = (await until_running("valkey-server"))["valkey-server"]
        async with Redis.from_url(url) as raw:
            await raw.set("kept", "yes")
        before.kill()

        async def back() -> bool:
            now = children_of().get("valkey-server")
            if now is None or now.pid == before.pid or not accepts_connections(idle.redis_port):
                return False
            async with Redis.from_url(url) as raw:
                return bool(await raw.get("kept") == b"yes")

        await wait_until(back, timeout=20, description="Valkey is back with its data")
    assert "child ended" in caplog.text


async def test_a_child_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    command = ["sh", "-c", f"trap '' TERM; touch {ready}; while true; do sleep 0.05; done"]
    async with kept_running("deaf", command, Backoff(60.0, 60.0), stop_seconds=0.2):
        await wait_until(ready.exists, timeout=10, description="the child runs")
        (child,) = [c for c in psutil.Process().children() if c.name() == "sh"]
    assert not child.is_running()


async def test_joining_a_server_that_never_starts_ends_with_a_sentence(
    settings: WorkerSettings, options: StackOptions
) -> None:
    with pytest.raises(CatalogUnavailable, match="first API process"):
        await joined_stack(settings, dataclasses.replace(options, start_seconds=0.1))


async def test_a_valkey_that_does_not_start_ends_the_start(
    settings: WorkerSettings, options: StackOptions
) -> None:
    dead = dataclasses.replace(options, start_seconds=0.1, commands=DeadCommands())
    with pytest.raises(CatalogUnavailable):
        async with embedded_stack(settings, dead):
            pytest.fail("there is no Valkey")
    assert children_of() == {}


def test_a_server_that_is_killed_takes_all_of_it_with_it(settings: WorkerSettings) -> None:
    script = f"""
import asyncio, json
from pathlib import Path
from loradrop.worker.fleet.embedded import embedded_stack
from loradrop.worker.settings import WorkerSettings

async def main():
    settings = WorkerSettings(lora_dir_prefix=Path({str(settings.lora_dir_prefix)!r}),
        lora_state_dir=Path({str(settings.lora_state_dir)!r}), api_port={settings.api_port})
    async with embedded_stack(settings):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        wait_until_sync(
            lambda: (
                {"valkey-server", "-m loradrop.watcher", "-m loradrop.api"} <= set(children_of(server.pid))
            ),
            timeout=20,
            description="all children run",
        )
        children = children_of(server.pid)
        os.kill(server.pid, signal.SIGKILL)
    wait_until_sync(
        lambda: not any(alive(child) for child in children.values()),
        timeout=10,
        description="no process is left",
    )
    assert not StateDirectory(settings).is_owned()
