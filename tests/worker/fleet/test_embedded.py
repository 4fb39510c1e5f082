"""Everything at once: a Valkey, a watcher and the API that live and die with their server."""

import contextlib
import dataclasses
import os
import signal
import socket
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
    Commands,
    StackOptions,
    embedded_stack,
    joined_stack,
)
from loradrop.worker.fleet.state_directory import StateDirectory
from loradrop.worker.settings import WorkerSettings
from testkit.adapters import write_adapter
from testkit.servers import accepts_connections, free_port
from testkit.waiting import wait_until, wait_until_sync

pytestmark = pytest.mark.faults

SLEEP = ["sleep", "300"]


class IdleCommands(Commands):
    """Children that do nothing stand for watcher and API."""

    def watcher(self, settings: WorkerSettings, redis_url: str) -> list[str]:
        return SLEEP

    def api(self, settings: WorkerSettings, redis_url: str, port: int) -> list[str]:
        return SLEEP


class DeadCommands(IdleCommands):
    """A Valkey that never answers."""

    def valkey(self, state: Path, port: int) -> list[str]:
        return SLEEP


@pytest.fixture
def options() -> StackOptions:
    """The real children, on a port that no other test uses."""
    return StackOptions(redis_port=free_port(), first_restart_seconds=0.05)


@pytest.fixture
def idle(options: StackOptions) -> StackOptions:
    """A real Valkey, and nothing else."""
    return dataclasses.replace(options, commands=IdleCommands())


@pytest.fixture
def settings(tmp_path: Path) -> WorkerSettings:
    """Settings of a server that keeps everything under `tmp_path`."""
    (tmp_path / "loras").mkdir()
    return WorkerSettings(
        lora_dir_prefix=tmp_path / "loras",
        lora_state_dir=tmp_path / "state",
        lora_discovery_interval=0.2,
        lora_settle=0.1,
        api_port=free_port(),
    )


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


async def until_api_lists(settings: WorkerSettings, *names: str) -> None:
    """Wait until the API that belongs to the prefix lists exactly these adapters."""
    async with httpx.AsyncClient() as client:

        async def lists() -> bool:
            try:
                answer = await client.get(f"{StateDirectory(settings).url_of('api')}/v1/lora_adapters")
            except httpx.TransportError:
                return False
            return answer.is_success and [each["id"] for each in answer.json()["data"]] == list(names)

        await wait_until(lists, timeout=30, description=f"the API lists {names}")


def on_another_prefix(settings: WorkerSettings, directory: Path) -> WorkerSettings:
    directory.mkdir()
    return dataclasses.replace(settings, lora_dir_prefix=directory)


async def test_two_servers_on_two_prefixes_with_the_same_defaults_keep_them_apart(
    settings: WorkerSettings, options: StackOptions, tmp_path: Path
) -> None:
    other = on_another_prefix(settings, tmp_path / "others")
    write_adapter(tmp_path / "loras" / "sql")
    write_adapter(tmp_path / "others" / "poet")
    defaults = dataclasses.replace(options, default_api_port=settings.api_port)
    async with embedded_stack(settings, defaults) as one, embedded_stack(other, defaults) as two:
        assert one != two
        await until_api_lists(settings, "sql")
        await until_api_lists(other, "poet")


async def test_a_server_on_another_prefix_neither_shows_nor_removes_what_the_first_one_published(
    settings: WorkerSettings, options: StackOptions, idle: StackOptions, tmp_path: Path
) -> None:
    other = on_another_prefix(settings, tmp_path / "others")
    write_adapter(tmp_path / "loras" / "sql")
    async with embedded_stack(settings, options):
        await until_api_lists(settings, "sql")
    write_adapter(tmp_path / "others" / "poet")
    async with embedded_stack(other, options):
        await until_api_lists(other, "poet")
    async with embedded_stack(settings, idle) as url, Redis.from_url(url, decode_responses=True) as raw:
        assert await raw.hkeys("loradrop:{default}:adapters") == ["sql"]


async def test_an_api_port_that_an_operator_chose_is_kept_though_it_is_taken(
    settings: WorkerSettings, idle: StackOptions
) -> None:
    with socket.create_server(("127.0.0.1", settings.api_port)):
        async with embedded_stack(settings, idle):
            assert StateDirectory(settings).url_of("api") == f"http://127.0.0.1:{settings.api_port}"
        defaults = dataclasses.replace(idle, default_api_port=settings.api_port)
        async with embedded_stack(settings, defaults):
            assert StateDirectory(settings).url_of("api") != f"http://127.0.0.1:{settings.api_port}"


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


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
