"""The API as a process: starts without Redis, streams events, stops with streams and requests open."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, closing
from pathlib import Path

import httpx
import pytest

from loradrop.api.__main__ import main
from loradrop.catalog.store import Connection, Publisher
from testkit.servers import free_port, valkey
from testkit.waiting import wait_until
from tests.api.processes import ApiProcess, api_process
from tests.catalog.fleet import fleet
from tests.catalog.values import an_adapter


@pytest.fixture
def api(redis_url: str, tmp_path: Path) -> Iterator[ApiProcess]:
    with api_process(tmp_path / "api.log", "--redis-url", redis_url) as api:
        yield api


@pytest.fixture
async def publisher(connection: Connection) -> Publisher:
    publisher = Publisher(connection, owner="watcher-1")
    await publisher.lead()
    return publisher


@asynccontextmanager
async def event_stream(api: ApiProcess, **headers: str) -> AsyncIterator[AsyncIterator[str]]:
    """The lines of an open event stream."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        httpx.AsyncClient(timeout=10) as client,
        client.stream("GET", f"{api.url}/v1/lora_events", headers=named) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        async with aclosing(response.aiter_lines()) as lines:
            yield lines


async def one_event(lines: AsyncIterator[str]) -> dict[str, str]:
    """Return the fields of the next event."""
    fields: dict[str, str] = {}
    async for line in lines:
        if not line and fields:
            return fields
        name, _, value = line.partition(": ")
        if name:
            fields[name] = value
    raise AssertionError("The stream ended.")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_events_arrive_can_be_resumed_and_do_not_keep_it_from_stopping(
    api: ApiProcess, publisher: Publisher, number: signal.Signals
) -> None:
    async with event_stream(api) as lines:
        await publisher.publish([an_adapter("one"), an_adapter("two")], catalog_size=2)
        first = await one_event(lines)
    assert first["event"] == "added"
    assert '"name":"one"' in first["data"]
    async with event_stream(api, Last_Event_ID=first["id"]) as lines:
        assert '"name":"two"' in (await one_event(lines))["data"]
        assert api.stop(number) == 0
    assert "Traceback" not in api.log


async def test_it_stops_although_a_refresh_waits_for_thirty_seconds(
    api: ApiProcess, publisher: Publisher, connection: Connection
) -> None:
    async with httpx.AsyncClient() as client, asyncio.TaskGroup() as group:
        waiting = group.create_task(client.post(f"{api.url}/v1/refresh_lora_discovery", json={}))

        async def asked() -> bool:
            return bool(await connection.commands.exists("loradrop:{default}:refreshes"))

        await wait_until(asked, timeout=10, description="the refresh was asked for")
        assert api.stop() == 0
    assert (waiting.result().status_code, waiting.result().json()["code"]) == (503, "stopping")
    assert "Traceback" not in api.log


@pytest.mark.faults
async def test_it_starts_without_redis_and_serves_as_soon_as_it_is_there(tmp_path: Path) -> None:
    with valkey(tmp_path) as server:
        server.kill()
        with api_process(tmp_path / "api.log", "--redis-url", server.url) as api:
            async with httpx.AsyncClient(base_url=api.url) as client, Connection(server.url) as connection:
                assert (await client.get("/v1/lora_adapters")).json()["code"] == "catalog_unavailable"
                server.start()
                publisher = Publisher(connection, owner="watcher-1")
                await publisher.lead()
                await publisher.publish([an_adapter()], catalog_size=1)

                async def lists_it() -> bool:
                    return "sql_adapter" in (await client.get("/v1/lora_adapters")).text

                await wait_until(lists_it, timeout=10, description="the API lists the adapter")


def test_settings_come_from_the_environment_and_flags_win(redis_url: str, tmp_path: Path) -> None:
    environment = {
        "LORADROP_API_KEY": "one,two",
        "LORADROP_REDIS_URL": redis_url,
        "LORADROP_POOL": "blue",
        "LORADROP_API_PORT": str(free_port()),
    }
    with api_process(tmp_path / "api.log", environment=environment) as api:
        url = f"{api.url}/v1/lora_adapters"
        assert httpx.get(url).status_code == 401
        answer = httpx.get(url, headers={"Authorization": "Bearer two"})
        assert answer.json()["code"] == "catalog_unavailable"


async def test_a_stream_ends_with_the_key_that_opened_it(
    redis_url: str, publisher: Publisher, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("old\n")
    with api_process(tmp_path / "api.log", "--redis-url", redis_url, "--api-key-file", str(keys)) as api:
        async with event_stream(api, Authorization="Bearer old") as lines:
            await publisher.publish([an_adapter("one")], catalog_size=1)
            assert '"name":"one"' in (await one_event(lines))["data"]
            (tmp_path / "aside").write_text("new\n")
            (tmp_path / "aside").rename(keys)
            await publisher.publish([an_adapter("two")], catalog_size=2)
            assert not [line async for line in lines if line.startswith("data")]


@pytest.mark.parametrize(("told", "caller"), [({}, "127.0.0.1"), ({"FORWARDED_ALLOW_IPS": "*"}, "6.6.6.6")])
async def test_who_asks_is_taken_from_a_header_only_when_told(
    redis_url: str, tmp_path: Path, told: dict[str, str], caller: str
) -> None:
    with api_process(tmp_path / "api.log", "--redis-url", redis_url, environment=told) as api:
        async with fleet(redis_url, workers=0), httpx.AsyncClient(base_url=api.url) as client:
            await client.post("/v1/refresh_lora_discovery", headers={"X-Forwarded-For": "6.6.6.6"})
            [asked] = (await client.get("/v1/lora_refreshes")).json()["data"]
    assert asked["asked_by"] == caller


def test_a_port_that_is_taken_ends_it_with_an_error(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        api = ApiProcess(tmp_path / "api.log", "--port", str(taken.getsockname()[1]))
        assert api.process.wait(20) != 0
    assert "address already in use" in api.log
    assert "Traceback" not in api.log


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--redis-url", "http://:secret@127.0.0.1"], "redis://HOST:6379/0"),
        (["--port", "65536"], "--port"),
        (["--api-key-file", "/nowhere"], "/nowhere cannot be read"),
        (["--log-level", "loud"], "--log-level"),
        (["--hots", "x"], "--hots"),
    ],
)
def test_what_cannot_work_is_a_usage_error(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    output = capsys.readouterr().err
    assert (ended.value.code, said in output, "secret" in output) == (2, True, False)
