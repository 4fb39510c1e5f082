"""Every error is a problem (RFC 9457) that says what to do."""

import asyncio
import json
import logging
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from loradrop.api.app import create_app
from loradrop.api.problems import add_problem_handlers
from loradrop.api.settings import Settings
from loradrop.catalog.errors import (
    CatalogRefused,
    CatalogUnavailable,
    LeaseLost,
    LoradropError,
    PrefixNotConfigured,
)
from loradrop.catalog.http.deadlines import in_time
from loradrop.catalog.store import Connection, Publisher
from testkit.servers import free_port, valkey
from tests.api.conftest import api_client
from tests.catalog.values import an_adapter

REFRESH = "/v1/refresh_lora_discovery"


def assert_problem(answer: httpx.Response, status: int, code: str) -> str:
    """Check the shape, and return the detail."""
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert set(body) == {"type", "title", "status", "detail", "code"}
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code)
    assert body["title"]
    assert answer.headers.get("retry-after", "") == ("2" if status == 503 else "")
    return str(body["detail"])


@pytest.fixture
async def nowhere() -> httpx.AsyncClient:
    """An API whose Redis is not there."""
    app = create_app(Settings(redis_url=f"redis://127.0.0.1:{free_port()}/0"))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8001")


async def test_without_a_watcher_a_refresh_is_a_503(api: httpx.AsyncClient) -> None:
    assert "loradrop watch" in assert_problem(await api.post(REFRESH), 503, "no_watcher")


@pytest.mark.parametrize("path", ["/v1/lora_adapters", "/v1/lora_adapters/x", "/v1/lora_workers"])
async def test_where_no_catalog_is_yet_a_list_is_a_503(api: httpx.AsyncClient, path: str) -> None:
    assert "Start a watcher" in assert_problem(await api.get(path), 503, "catalog_unavailable")


@pytest.mark.parametrize(
    "path",
    ["/v1/lora_adapters", "/v1/lora_adapters/x", "/v1/lora_workers", "/v1/lora_events", f"{REFRESH}/x"],
)
async def test_with_redis_away_the_catalog_is_a_503(nowhere: httpx.AsyncClient, path: str) -> None:
    async with nowhere:
        detail = assert_problem(await nowhere.get(path), 503, "catalog_unavailable")
        assert "Nothing is lost" in detail
        assert_problem(await nowhere.post(REFRESH), 503, "catalog_unavailable")


async def test_with_redis_away_it_is_alive_and_not_ready(nowhere: httpx.AsyncClient) -> None:
    async with nowhere:
        assert (await nowhere.get("/healthz")).status_code == 200
        answer = await nowhere.get("/readyz")
    assert answer.status_code == 503
    [check] = answer.json()["checks"]
    assert (check["name"], check["reason"]["code"]) == ("redis", "catalog_unavailable")


async def test_unknown_names_and_refreshes_are_404(api: httpx.AsyncClient, connection: Connection) -> None:
    await Publisher(connection, owner="watcher-1").lead()
    assert "'x'" in assert_problem(await api.get("/v1/lora_adapters/x"), 404, "unknown_adapter")
    assert "'x'" in assert_problem(await api.get(f"{REFRESH}/x"), 404, "unknown_refresh")


async def test_a_route_that_is_not_there_is_a_404_and_a_wrong_method_a_405(api: httpx.AsyncClient) -> None:
    assert "/v1/nope" in assert_problem(await api.get("/v1/nope"), 404, "not_found")
    answer = await api.delete("/v1/lora_adapters")
    assert "DELETE" in assert_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET"


@pytest.mark.parametrize(
    ("body", "mistake"),
    [
        ({"names": 3}, "body.names"),
        ({"timeout": 0}, "body.timeout"),
        ({"timeout": 601}, "body.timeout"),
        ({"nmaes": []}, "body.nmaes"),
        ([], "body"),
        ({"names": ["\ud800"]}, "body.names.0"),
        ({"\ud800": 1}, "body: "),
        ({"\x1b[2J": 1}, "body.\\x1b[2J"),
        ({"names": ["x" * 256]}, "body.names.0"),
        ({"names": ["ü" * 128]}, "at most 255 bytes"),
        ({"names": ["x"] * 1001}, "body.names"),
        ({"a": 1, "b": 1, "c": 1, "d": 1, "e": 1}, "and 2 more"),
    ],
)
async def test_a_request_that_does_not_fit_is_a_400_that_names_the_mistake(
    api: httpx.AsyncClient, body: object, mistake: str
) -> None:
    headers = {"Content-Type": "application/json"}  # httpx itself sends no lone surrogate
    answer = await api.post(REFRESH, content=json.dumps(body), headers=headers)
    assert mistake in assert_problem(answer, 400, "invalid_request")


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded"])
async def test_a_body_that_is_not_json_is_a_400_that_says_how_to_send_it(
    api: httpx.AsyncClient, content_type: str
) -> None:
    answer = await api.post(REFRESH, content=b"{", headers={"Content-Type": content_type})
    assert "Content-Type: application/json" in assert_problem(answer, 400, "invalid_request")


@pytest.mark.parametrize("seq", ["", "-1", "1e3", "²", "9" * 30 + "x"])
async def test_a_catalog_whose_seq_is_no_number_is_a_503(
    seq: str, api: httpx.AsyncClient, connection: Connection
) -> None:
    await Publisher(connection, owner="watcher-1").lead()
    await connection.commands.hset("loradrop:{default}:meta", "seq", seq)
    assert "damaged" in assert_problem(await api.get("/v1/lora_adapters"), 503, "catalog_unavailable")


async def test_a_refused_user_is_a_502_with_advice(redis_url: str) -> None:
    async with api_client(Settings(redis_url=redis_url.replace("://", "://unknown:wrong@"))) as client:
        answer = await client.get("/v1/lora_adapters")
    detail = assert_problem(answer, 502, "catalog_denied")
    assert "--redis-url" in detail
    assert "wrong@" not in detail


async def test_a_catalog_of_another_version_is_a_502(api: httpx.AsyncClient, connection: Connection) -> None:
    await Publisher(connection, owner="watcher-1").lead()
    await connection.commands.hset("loradrop:{default}:meta", "schema", "2")
    assert_problem(await api.get("/v1/lora_adapters"), 502, "catalog_refused")


async def test_a_broken_record_is_a_503_until_it_is_mended(
    api: httpx.AsyncClient, connection: Connection, redis_url: str
) -> None:
    publisher = Publisher(connection, owner="watcher-1")
    await publisher.lead()
    await publisher.publish([an_adapter("good"), an_adapter("broken")], catalog_size=2)
    async with Redis.from_url(redis_url) as raw:
        await raw.hset("loradrop:{default}:adapters", "broken", "{")
    assert_problem(await api.get("/v1/lora_adapters/broken"), 503, "record_invalid")
    assert [adapter["id"] for adapter in (await api.get("/v1/lora_adapters")).json()["data"]] == ["good"]


async def test_a_redis_url_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(CatalogRefused):
        create_app(Settings(redis_url="http://127.0.0.1"))


async def test_a_last_event_id_that_is_not_ours_is_a_400(
    api: httpx.AsyncClient, connection: Connection
) -> None:
    await Publisher(connection, owner="watcher-1").lead()
    answer = await api.get("/v1/lora_events", headers={"Last-Event-ID": "mine"})
    assert "Last-Event-ID" in assert_problem(answer, 400, "invalid_last_event_id")


@pytest.mark.faults
async def test_a_frozen_redis_is_a_503_within_bounded_time(tmp_path: Path) -> None:
    with valkey(tmp_path) as server:
        async with api_client(Settings(redis_url=server.url, redis_seconds=0.2)) as client:
            server.freeze()
            async with asyncio.timeout(5):
                listed, refreshed = await client.get("/v1/lora_adapters"), await client.post(REFRESH)
                ready, measured = await client.get("/readyz"), await client.get("/metrics")
            server.thaw()
    for answer in (listed, refreshed):
        assert "did not answer within 0.2 s" in assert_problem(answer, 503, "catalog_unavailable")
    assert (ready.status_code, measured.status_code) == (503, 200)
    assert "loradrop_redis_up 0.0" in measured.text


async def test_what_takes_too_long_is_unavailable() -> None:
    with pytest.raises(CatalogUnavailable, match=r"within 0\.01 s"):
        async with in_time(0.01):
            await asyncio.Event().wait()


def failing_app(error: Exception) -> FastAPI:
    app = FastAPI()
    add_problem_handlers(app)

    @app.get("/")
    async def fail() -> None:
        raise error

    return app


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (PrefixNotConfigured(), 400, "prefix_not_configured"),
        (LeaseLost("gone"), 500, "lease_lost"),
        (LoradropError("odd"), 500, "error"),
        (RuntimeError("bug with a secret in it"), 500, "internal_error"),
    ],
)
async def test_every_error_is_a_problem_even_an_unforeseen_one(
    error: Exception, status: int, code: str
) -> None:
    transport = httpx.ASGITransport(failing_app(error), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8001") as client:
        assert "secret" not in assert_problem(await client.get("/"), status, code)


async def test_the_same_failure_again_is_logged_quietly(
    api: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "loradrop.api"):
        for _ in range(3):
            await api.post(REFRESH)
        await api.get("/v1/lora_workers")
    levels = [
        (record.levelname, record.args) for record in caplog.records if record.name == "loradrop.api.problems"
    ]
    assert [level for level, _ in levels] == ["WARNING", "DEBUG", "DEBUG", "WARNING"]
