"""The same keys on vLLM's port: its own guard in front, ours behind it, put together as its server does."""

import argparse
import warnings
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from loradrop.catalog.errors import TooManyRefreshes
from loradrop.catalog.http.auth import MAX_REFRESH_BYTES, REFRESH_PATH
from loradrop.catalog.http.queries import Queries
from loradrop.catalog.http.shared_routes import Backend, put_backend
from loradrop.catalog.store import Connection
from tests.api.test_keys import bearer, operations
from tests.catalog.fleet import fleet

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what vLLM's imports are warned of is not ours to mend
    from vllm.entrypoints.serve.exception_handling.register import init_exception_handler
    from vllm.entrypoints.serve.lora.api_router import attach_router as attach_lora_router
    from vllm.entrypoints.serve.middleware.register import init_entrypoints_middleware

    from loradrop.worker.server.plugin import LoradropPlugin
    from loradrop.worker.server.routes import refusal

CHANGING = (REFRESH_PATH, "/v1/load_lora_adapter", "/v1/unload_lora_adapter")


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("filed\nfiled-reader read\n")
    return path


@pytest.fixture
async def keyless(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the same server without any key."""
    for variable in ("VLLM_API_KEY", "LORADROP_API_KEY", "LORADROP_API_KEY_FILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "1")
    monkeypatch.setenv("LORADROP_LORA_DIR_PREFIX", "/loras")
    app = an_app()
    put_backend(app.state, Backend(queries=Queries(connection)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://vllm") as client:
        yield client


@pytest.fixture
def vllm(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    """An app with the plugin's routes and vLLM's own, and its middleware."""
    monkeypatch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "1")
    monkeypatch.setenv("VLLM_API_KEY", "vllms-own")
    monkeypatch.setenv("LORADROP_API_KEY", "first, third read dashboard")
    monkeypatch.setenv("LORADROP_API_KEY_FILE", str(key_file))
    monkeypatch.setenv("LORADROP_LORA_DIR_PREFIX", "/loras")
    return an_app()


def an_app() -> FastAPI:
    """Return an app put together as vLLM's server does."""
    cors = {name: ["*"] for name in ("allowed_origins", "allowed_methods", "allowed_headers")}
    app = FastAPI(openapi_url=None)
    app.state.args = argparse.Namespace(
        host=None,
        api_key=None,
        allow_credentials=False,
        enable_request_id_headers=False,
        middleware=[],
        log_error_stack=False,
        **cors,
    )
    attach_lora_router(app)
    LoradropPlugin().attach_router(app)
    init_exception_handler(app)
    init_entrypoints_middleware(app.state.args, app, ())

    @app.post("/v1/chat/completions")
    async def infer() -> str:
        return "a completion"

    return app


@pytest.fixture
async def client(vllm: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(vllm), base_url="http://vllm") as client:
        yield client


async def test_without_a_valid_key_every_route_is_a_401(vllm: FastAPI, client: httpx.AsyncClient) -> None:
    every = set(operations(vllm))
    assert {("POST", path) for path in CHANGING} <= every
    for method, path in sorted(every):
        for headers in ({}, bearer("wrong"), bearer("third read")):
            answer = await client.request(method, path, headers=headers)
            assert answer.status_code == 401, (method, path, headers)
            assert answer.headers["www-authenticate"] == "Bearer", (method, path, headers)


@pytest.mark.parametrize("key", ["first", "filed", "vllms-own"])
async def test_an_admins_key_is_refused_nothing(client: httpx.AsyncClient, key: str) -> None:
    for path in (*CHANGING, "/v1/chat/completions"):
        answer = await client.post(path, headers=bearer(key))
        assert answer.status_code not in {401, 403}, (path, answer.text)


@pytest.mark.parametrize("key", ["third", "filed-reader"])
async def test_a_read_key_infers_and_reads_and_changes_nothing(client: httpx.AsyncClient, key: str) -> None:
    for path in CHANGING:
        answer = await client.post(path, headers=bearer(key))
        assert (answer.status_code, answer.json()["error"]["type"]) == (403, "admin_key_needed")
    assert (await client.post("/v1/chat/completions", headers=bearer(key))).json() == "a completion"
    assert (await client.get("/v1/lora_adapters", headers=bearer(key))).status_code == 400


async def test_a_key_that_leaves_the_file_opens_nothing_any_more(
    client: httpx.AsyncClient, key_file: Path
) -> None:
    (key_file.parent / "aside").write_text("filed-reader read\n")
    (key_file.parent / "aside").rename(key_file)
    answer = await client.post("/v1/chat/completions", headers=bearer("filed"))
    assert (answer.status_code, answer.json()["error"]["type"]) == (401, "invalid_api_key")


async def test_a_body_larger_than_needed_is_a_413(client: httpx.AsyncClient) -> None:
    body = b" " * (MAX_REFRESH_BYTES + 1)
    answer = await client.post(REFRESH_PATH, content=body, headers=bearer("first"))
    assert (answer.status_code, answer.json()["error"]["type"]) == (413, "request_too_large")


async def test_a_refresh_is_known_by_the_label_of_the_key(
    vllm: FastAPI, client: httpx.AsyncClient, connection: Connection, redis_url: str
) -> None:
    queries = Queries(connection)
    put_backend(vllm.state, Backend(queries=queries))
    async with fleet(redis_url, workers=0):
        for key in ("first", "filed", "vllms-own"):
            assert (await client.post(REFRESH_PATH, headers=bearer(key))).status_code == 200
    assert [asked.asked_by for asked in await queries.refreshes(limit=9)] == ["vllm", "line-1", "key-1"]


async def test_a_page_of_another_site_changes_nothing_on_a_server_without_keys(
    redis_url: str, connection: Connection, keyless: httpx.AsyncClient
) -> None:
    async with fleet(redis_url, workers=0):
        for path in CHANGING:
            answer = await keyless.post(path, headers={"Origin": "http://evil.example"})
            assert (answer.status_code, answer.json()["error"]["type"]) == (403, "foreign_origin"), path
            rebound = {"Origin": "http://evil.example:8000", "Host": "evil.example:8000"}
            answer = await keyless.post(path, headers=rebound)
            assert (answer.status_code, answer.json()["error"]["type"]) == (421, "host_not_allowed"), path
        assert (await keyless.post(REFRESH_PATH)).status_code == 200
        infer = await keyless.post("/v1/chat/completions", headers={"Origin": "http://page.example"})
        assert infer.status_code == 200, "vLLM's own routes are its own affair"


async def test_text_that_utf_8_cannot_hold_is_no_500(keyless: httpx.AsyncClient) -> None:
    for body in (b'{"names": ["\\ud800"]}', b'{"\\ud800": 1}'):
        answer = await keyless.post(REFRESH_PATH, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400, answer.text


def test_too_many_refreshes_are_told_when_to_ask_again() -> None:
    answer = refusal(TooManyRefreshes(per_minute=1, retry_after_seconds=7))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
