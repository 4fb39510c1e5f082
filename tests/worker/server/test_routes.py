"""Our routes on vLLM's port: real FastAPI, a real Redis, and vLLM's error bodies."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.errors import LoradropError
from loradrop.catalog.http.queries import Queries
from loradrop.catalog.http.shared_routes import Backend, put_backend, router
from loradrop.catalog.store import Connection
from loradrop.worker.server.routes import answer_error, models_router
from loradrop.worker.serving.model_cards import ModelCards
from loradrop.worker.serving.reconciler import Reconciler
from loradrop.worker.worker import Worker
from tests.catalog.fleet import FakeWatcher, fleet
from tests.catalog.values import TRUNCATED, an_adapter, revision
from tests.worker.vllm_parts import model_table  # noqa: F401 - before anything else that imports vLLM

ADAPTERS = {
    "sql": an_adapter("sql", revision=revision("a")),
    "bad": an_adapter("bad", revision=None, state=AdapterState.REJECTED, reason=TRUNCATED),
}


class _Table:
    base_model = "tiny"

    async def stock_cards(self) -> list[dict[str, Any]]:
        return [{"id": "tiny", "object": "model"}]


def an_app(worker: Worker | None) -> FastAPI:
    app = FastAPI()
    app.include_router(router)
    app.exception_handler(LoradropError)(answer_error)
    app.include_router(models_router)
    app.state.loradrop = worker
    if worker is not None:
        put_backend(app.state, Backend(queries=worker.queries))
    return app


def asking(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://vllm")


@pytest.fixture
async def watcher(redis_url: str) -> AsyncIterator[FakeWatcher]:
    async with fleet(redis_url, disk=ADAPTERS, workers=1) as (watcher, _):
        yield watcher


@pytest.fixture
async def client(connection: Connection, reconciler: Reconciler) -> AsyncIterator[httpx.AsyncClient]:
    reconciler.replace(ADAPTERS)
    worker = Worker(_Table(), reconciler, Queries(connection), ModelCards("tiny"))  # type: ignore[arg-type]  # a table
    async with asking(an_app(worker)) as client:
        yield client


async def test_models_are_the_servers_own_and_every_adapter_that_can_be_served(
    client: httpx.AsyncClient,
) -> None:
    answer = (await client.get("/v1/models")).json()
    assert answer["object"] == "list"
    assert [card["id"] for card in answer["data"]] == ["tiny", "sql"]
    card = answer["data"][1]
    assert (card["object"], card["parent"], card["root"], card["owned_by"]) == (
        "model",
        "tiny",
        "sql",
        "loradrop",
    )


async def test_models_are_those_of_this_moment(client: httpx.AsyncClient, reconciler: Reconciler) -> None:
    async def names() -> list[str]:
        return [card["id"] for card in (await client.get("/v1/models")).json()["data"]]

    assert await names() == ["tiny", "sql"]
    reconciler.apply({"code": an_adapter("code", revision=revision("b"))})
    assert await names() == ["tiny", "code", "sql"]
    reconciler.apply({"sql": None, "code": None})
    assert await names() == ["tiny"]


async def test_one_model_is_shown_as_it_is_listed(client: httpx.AsyncClient, reconciler: Reconciler) -> None:
    reconciler.apply({"acme/sql": an_adapter("acme/sql", revision=revision("b"))})
    for card in (await client.get("/v1/models")).json()["data"]:
        assert (await client.get(f"/v1/models/{card['id']}")).json() == card
    assert (await client.get("/v1/models/acme%2Fsql")).json()["id"] == "acme/sql"


async def test_a_slash_behind_the_list_of_models_is_no_name(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/models/")).json() == (await client.get("/v1/models")).json()


@pytest.mark.parametrize("name", ["absent", "bad", "sql/"])
async def test_a_model_that_is_not_listed_is_a_404(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.get(f"/v1/models/{name}")
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "NotFoundError")


async def test_adapters_are_listed_with_their_reasons(
    client: httpx.AsyncClient, watcher: FakeWatcher
) -> None:
    answer = (await client.get("/v1/lora_adapters")).json()
    assert [adapter["id"] for adapter in answer["data"]] == ["bad", "sql"]
    assert answer["data"][0]["reason"]["code"] == TRUNCATED.code
    assert answer["data"][1]["workers"]["gpu-1:8000"]["state"] == "listed"


async def test_one_adapter_is_shown(client: httpx.AsyncClient, watcher: FakeWatcher) -> None:
    answer = await client.get("/v1/lora_adapters/sql")
    assert (answer.status_code, answer.json()["revision"]) == (200, revision("a"))


async def test_an_unknown_adapter_is_a_404_in_vllms_shape(
    client: httpx.AsyncClient, watcher: FakeWatcher
) -> None:
    answer = await client.get("/v1/lora_adapters/unknown")
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("unknown_adapter", None, 404)
    assert "unknown" in error["message"]


@pytest.mark.parametrize("sent", [{"json": {}}, {}, {"json": {"names": ["sql"], "timeout": 5}}])
async def test_a_refresh_waits_until_the_workers_have_observed_it(
    client: httpx.AsyncClient, watcher: FakeWatcher, sent: dict[str, Any]
) -> None:
    watcher.disk["code"] = an_adapter("code", revision=revision("b"))
    answer = await client.post("/v1/refresh_lora_discovery", **sent)
    view = answer.json()
    assert (answer.status_code, view["status"]) == (200, "converged")
    assert view["discovered_adapters"] == ["code"]
    assert (
        view["message"]
        == "Successfully refreshed LoRA discovery. Found 2 total adapters, 1 newly discovered."
    )


@pytest.mark.parametrize("prefer", ["respond-async", "Respond-Async, wait=10", "wait=10, respond-async;x=1"])
async def test_a_refresh_need_not_be_waited_for(
    client: httpx.AsyncClient, watcher: FakeWatcher, prefer: str
) -> None:
    watcher.deaf = True
    answer = await client.post("/v1/refresh_lora_discovery", json={}, headers={"Prefer": prefer})
    assert (answer.status_code, answer.headers["Preference-Applied"]) == (202, "respond-async")
    later = await client.get(answer.headers["Location"])
    assert later.status_code == 200
    assert later.json()["refresh_id"] == answer.json()["refresh_id"]


async def test_an_unknown_refresh_is_a_404(client: httpx.AsyncClient, watcher: FakeWatcher) -> None:
    answer = await client.get("/v1/refresh_lora_discovery/never")
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "unknown_refresh")


async def test_without_a_watcher_a_refresh_is_worth_trying_again(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/refresh_lora_discovery", json={})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert answer.json()["error"]["type"] == "no_watcher"


async def test_a_prefix_that_cannot_be_read_is_worth_trying_again(
    client: httpx.AsyncClient, watcher: FakeWatcher
) -> None:
    watcher.unreadable = TRUNCATED
    answer = await client.post("/v1/refresh_lora_discovery", json={})
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "prefix_unreadable")


async def test_without_a_prefix_every_route_of_ours_says_how_to_get_one() -> None:
    async with asking(an_app(None)) as client:
        answers = [
            await client.post("/v1/refresh_lora_discovery", json={}),
            await client.get("/v1/refresh_lora_discovery/1"),
            await client.get("/v1/lora_adapters"),
            await client.get("/v1/lora_adapters/sql"),
        ]
    assert [answer.status_code for answer in answers] == [400] * 4
    assert all("--lora-dir-prefix" in answer.json()["error"]["message"] for answer in answers)


async def test_redis_away_is_worth_trying_again(reconciler: Reconciler) -> None:
    async with Connection("redis://127.0.0.1:1/0") as nowhere:
        worker = SimpleNamespace(queries=Queries(nowhere))
        async with asking(an_app(worker)) as client:  # type: ignore[arg-type]  # all a query needs
            answer = await client.get("/v1/lora_adapters")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
