"""Everything at once: a Valkey, a watcher and the API that live and die with their server."""

import contextlib
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

from loradrop.catalog.errors import CatalogUnavailable
from loradrop.catalog.settings import SettingsInvalid
from loradrop.worker.fleet import embedded
from loradrop.worker.fleet.embedded import embedded_stack, joined_stack, state_directory
from loradrop.worker.settings import WorkerSettings
from tests.adapters import write_adapter
from tests.servers import accepts_connections, free_port
from tests.waiting import wait_until, wait_until_sync

pytestmark = pytest.mark.faults

SLEEP = ["sleep", "300"]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkerSettings:
    """Settings of a server that keeps everything under `tmp_path`."""
    monkeypatch.setattr(embedded, "USUAL_PORT", free_port())
    monkeypatch.setattr(embedded, "_FIRST_PAUSE_SECONDS", 0.05)
    (tmp_path / "loras").mkdir()
    return WorkerSettings(
        lora_dir_prefix=tmp_path / "loras",
        lora_state_dir=tmp_path / "state",
        lora_discovery_interval=0.2,
        lora_settle=0.1,
        api_port=free_port(),
    )


@pytest.fixture
def _idle_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children that do nothing stand for watcher and API."""
    monkeypatch.setattr(embedded, "_watcher_command", lambda *_: SLEEP)
    monkeypatch.setattr(embedded, "_api_command", lambda *_: SLEEP)


def children_of(pid: int | None = None) -> dict[str, psutil.Process]:
    """Return the living children a stack has started for a process, by what they are."""
    found = {}
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            command = " ".join(child.cmdline())
            if os.getsid(child.pid) != child.pid:
                continue  # another test's: a stack gives its children sessions of their own
            for name in ("valkey-server", "-m loradrop.watcher", "-m loradrop.api", "sleep"):
                if name in command and child.status() != psutil.STATUS_ZOMBIE:
                    found[name] = child
    return found


async def until_running(*names: str) -> dict[str, psutil.Process]:
    await wait_until(lambda: set(names) <= set(children_of()), timeout=20, description=f"{names} run")
    return children_of()


async def test_a_dropped_adapter_is_in_the_catalog_and_the_api_and_nothing_is_left_afterwards(
    settings: WorkerSettings,
) -> None:
    assert settings.lora_dir_prefix is not None
    async with embedded_stack(settings) as url:
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
    assert not (state_directory(settings) / "redis.url").exists()


@pytest.mark.usefixtures("_idle_children")
async def test_where_redis_is_stands_in_the_state_directory_while_it_runs(settings: WorkerSettings) -> None:
    async with embedded_stack(settings) as url:
        assert (state_directory(settings) / "redis.url").read_text() == f"{url}\n"
        assert url == f"redis://127.0.0.1:{embedded.USUAL_PORT}/0"
        assert await joined_stack(settings) == url
    assert not accepts_connections(embedded.USUAL_PORT)


@pytest.mark.usefixtures("_idle_children")
async def test_a_second_server_of_the_same_state_is_refused_with_a_sentence(settings: WorkerSettings) -> None:
    async with embedded_stack(settings):
        with pytest.raises(SettingsInvalid, match="--redis-url"):
            async with embedded_stack(settings):
                pytest.fail("two servers own one state directory")
        other_pool = dataclasses.replace(settings, pool="other")
        async with embedded_stack(other_pool) as url:
            assert not url.endswith(f":{embedded.USUAL_PORT}/0"), "the usual port was taken"
    async with embedded_stack(settings):
        pass


@pytest.mark.usefixtures("_idle_children")
async def test_a_look_by_another_process_never_costs_the_owner_its_start(settings: WorkerSettings) -> None:
    state = state_directory(settings)
    state.mkdir(parents=True)
    (state / "lock").touch()
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            embedded._is_owned(state)

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for _ in range(50):
            with embedded._owned(state):
                pass
    finally:
        stop.set()
        looker.join()


@pytest.mark.usefixtures("_idle_children")
async def test_a_restart_finds_its_data(settings: WorkerSettings) -> None:
    async with embedded_stack(settings) as url, Redis.from_url(url) as raw:
        await raw.set("kept", "yes")
    async with embedded_stack(settings) as url, Redis.from_url(url) as raw:
        assert await raw.get("kept") == b"yes"


@pytest.mark.usefixtures("_idle_children")
async def test_a_child_that_dies_is_started_again(
    settings: WorkerSettings, caplog: pytest.LogCaptureFixture
) -> None:
    async with embedded_stack(settings) as url:
        before = (await until_running("valkey-server"))["valkey-server"]
        async with Redis.from_url(url) as raw:
            await raw.set("kept", "yes")
        before.kill()

        async def back() -> bool:
            now = children_of().get("valkey-server")
            if now is None or now.pid == before.pid or not accepts_connections(embedded.USUAL_PORT):
                return False
            async with Redis.from_url(url) as raw:
                return bool(await raw.get("kept") == b"yes")

        await wait_until(back, timeout=20, description="Valkey is back with its data")
    assert "child ended" in caplog.text


async def test_a_child_that_does_not_stop_is_killed(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(embedded, "_STOP_SECONDS", 0.2)
    ready = tmp_path / "ready"
    command = ["sh", "-c", f"trap '' TERM; touch {ready}; while true; do sleep 0.05; done"]
    async with embedded._supervised("deaf", command):
        await wait_until(ready.exists, timeout=10, description="the child runs")
        (child,) = [c for c in psutil.Process().children() if c.name() == "sh"]
    assert not child.is_running()


async def test_joining_a_server_that_never_starts_ends_with_a_sentence(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_START_SECONDS", 0.1)
    with pytest.raises(CatalogUnavailable, match="first API process"):
        await joined_stack(settings)


async def test_a_valkey_that_does_not_start_ends_the_start(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_START_SECONDS", 0.1)
    monkeypatch.setattr(embedded, "_valkey_command", lambda *_: SLEEP)
    with pytest.raises(CatalogUnavailable):
        async with embedded_stack(settings):
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
    assert not embedded._is_owned(state_directory(settings))


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
