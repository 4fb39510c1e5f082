"""Keys on vLLM's port: every route of its own application and of ours asks for the key that it should.

The routes are those of the application that vLLM puts together. Each is named here with the key it needs, so
one that a newer vLLM adds fails a test until it is decided on.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient, WebSocketDenialResponse

from loradrop.catalog.errors import TooManyRefreshes
from loradrop.catalog.http.auth import MAX_REFRESH_BYTES, REFRESH_PATH
from loradrop.catalog.http.queries import Queries
from loradrop.catalog.http.shared_routes import Backend, put_backend
from loradrop.catalog.store import Connection
from loradrop.worker.server.routes import refusal
from tests.api.test_keys import bearer
from tests.catalog.fleet import fleet
from tests.worker.vllm_app import VARIABLES, routes_of, vllm_app

OPEN = """
    GET /docs           GET /docs/oauth2-redirect   GET /health         GET /load       GET /metrics
    GET /openapi.json   HEAD /openapi.json          GET /ping           POST /ping      GET /static/file
    GET /version
"""
READ = """
    POST /classify                  POST /detokenize                    GET /fault_tolerance/status
    POST /generative_scoring        GET /get_world_size                 POST /inference/v1/abort_requests
    POST /inference/v1/generate     POST /invocations                   GET /is_paused
    GET /is_sleeping                GET /kv_event_sources               GET /metrics/file
    POST /pooling                   POST /rerank                        POST /score
    GET /server_info                POST /tokenize                      GET /tokenizer_info
    POST /v1/audio/transcriptions   POST /v1/audio/translations         POST /v1/chat/completions
    POST /v1/chat/completions/batch POST /v1/chat/completions/derender  POST /v1/chat/completions/render
    POST /v1/completions            POST /v1/completions/derender       POST /v1/completions/render
    POST /v1/embeddings             GET /v1/lora_adapters               GET /v1/lora_adapters/{name}
    POST /v1/messages               POST /v1/messages/count_tokens      POST /v1/messages/render
    GET /v1/models                  GET /v1/realtime                    POST /v1/rerank
    GET /v1/refresh_lora_discovery/{refresh_id}                         POST /v1/responses
    POST /v1/responses/render       GET /v1/models/{name:path}
    GET /v1/responses/{response_id} POST /v1/responses/{response_id}/cancel
    POST /v1/score                  POST /v1/systemone                  POST /v2/embed
    POST /v2/rerank                 GET /weight_info
"""
ADMIN = """
    POST /abort_requests        POST /adapters                          DELETE /adapters/{adapter_name}
    POST /collective_rpc        POST /fault_tolerance/apply             POST /finish_weight_update
    POST /pause                 POST /init_weight_transfer_engine       POST /is_scaling_elastic_ep
    POST /reset_mm_cache        POST /release_kv_cache_memory           POST /reset_encoder_cache
    POST /reset_prefix_cache    POST /resume                            POST /scale_elastic_ep
    POST /sleep                 POST /shutdown_weight_transfer_engine   POST /start_draft_weight_update
    POST /start_profile         POST /start_weight_update               POST /stop_profile
    POST /update_weights        POST /update_weight_version             POST /v1/load_lora_adapter
    POST /wake_up               POST /v1/refresh_lora_discovery         POST /v1/unload_lora_adapter
    POST /weight_checker
"""
UNKNOWN_READ = "GET /v1 GET /v1/unknown GET /unknown HEAD /v1/models OPTIONS /v1/models"
UNKNOWN_ADMIN = "POST /unknown DELETE /v1/models PUT /v3/chat POST /v1/ POST /healthy DELETE /v1/responses/x"


def named(routes: str) -> list[tuple[str, str]]:
    words = routes.split()
    return sorted(zip(words[::2], words[1::2], strict=True))


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("filed\nfiled-reader read\n")
    return path


@pytest.fixture
def vllm(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    """vLLM's application, with a key of vLLM's own and keys of ours."""
    keys = {
        "VLLM_API_KEY": "vllms-own",
        "LORADROP_API_KEY": "first, third read dashboard",
        "LORADROP_API_KEY_FILE": str(key_file),
    }
    for name, value in (VARIABLES | keys).items():
        monkeypatch.setenv(name, value)
    return vllm_app("--lora-dir-prefix", "/loras")


def asking(app: FastAPI) -> httpx.AsyncClient:
    """Return a client of `app`, whose handlers fail where they look for an engine."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://vllm")


@pytest.fixture
async def client(vllm: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with asking(vllm) as client:
        yield client


@pytest.fixture
async def keyless(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the same server without any key."""
    for variable in ("VLLM_API_KEY", "LORADROP_API_KEY", "LORADROP_API_KEY_FILE"):
        monkeypatch.delenv(variable, raising=False)
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    app = vllm_app("--lora-dir-prefix", "/loras")
    put_backend(app.state, Backend(queries=Queries(connection)))
    async with asking(app) as client:
        yield client


async def statuses(client: httpx.AsyncClient, key: str | None, routes: str) -> dict[int, list[str]]:
    """Return which of `routes` answer with which status, to a request without a body."""
    headers = {} if key is None else bearer(key)
    found: dict[int, list[str]] = {}
    for method, path in named(routes):
        answer = await client.request(method, path, headers=headers)
        found.setdefault(answer.status_code, []).append(f"{method} {path}")
        if answer.status_code == 401:
            assert answer.headers["www-authenticate"] == "Bearer", (method, path)
    return found


def test_every_route_is_known_with_the_key_it_needs(vllm: FastAPI) -> None:
    decided = [*named(OPEN), *named(READ), *named(ADMIN)]
    assert len(set(decided)) == len(decided)
    assert set(routes_of(vllm)) == set(decided)


@pytest.mark.parametrize("key", [None, "wrong", "third read"])
async def test_without_a_valid_key_every_route_but_the_open_ones_is_a_401(
    client: httpx.AsyncClient, key: str | None
) -> None:
    guarded = " ".join((READ, ADMIN, UNKNOWN_READ, UNKNOWN_ADMIN))
    assert set(await statuses(client, key, guarded)) == {401}


async def test_an_open_route_asks_for_no_key_and_minds_none(client: httpx.AsyncClient) -> None:
    assert not {401, 403} & set(await statuses(client, None, OPEN))
    for key in ("wrong", "third", "first"):
        assert not {401, 403} & set(await statuses(client, key, "GET /health POST /ping GET /metrics")), key


@pytest.mark.parametrize("key", ["first", "filed", "vllms-own"])
async def test_an_admins_key_is_refused_nothing(client: httpx.AsyncClient, key: str) -> None:
    every = " ".join((READ, ADMIN, UNKNOWN_READ, UNKNOWN_ADMIN))
    assert not {401, 403} & set(await statuses(client, key, every))


@pytest.mark.parametrize("key", ["third", "filed-reader"])
async def test_a_read_key_infers_and_reads_and_changes_nothing(client: httpx.AsyncClient, key: str) -> None:
    assert set(await statuses(client, key, f"{ADMIN} {UNKNOWN_ADMIN}")) == {403}
    assert not {401, 403} & set(await statuses(client, key, f"{READ} {UNKNOWN_READ}"))
    answer = await client.post("/adapters", headers=bearer(key))
    assert answer.json()["error"]["type"] == "admin_key_needed"


async def test_a_key_that_leaves_the_file_opens_nothing_any_more(
    client: httpx.AsyncClient, key_file: Path
) -> None:
    (key_file.parent / "aside").write_text("filed-reader read\n")
    (key_file.parent / "aside").rename(key_file)
    every = " ".join((READ, ADMIN, UNKNOWN_READ, UNKNOWN_ADMIN))
    assert set(await statuses(client, "filed", every)) == {401}
    answer = await client.post("/inference/v1/generate", headers=bearer("filed"))
    assert answer.json()["error"]["type"] == "invalid_api_key"


def test_a_websocket_asks_for_a_key_too(vllm: FastAPI, key_file: Path) -> None:
    client = TestClient(vllm)
    (key_file.parent / "aside").write_text("filed-reader read\n")
    (key_file.parent / "aside").rename(key_file)
    for headers in ({}, bearer("wrong"), bearer("filed")):
        with (
            pytest.raises(WebSocketDenialResponse) as denied,
            client.websocket_connect("/v1/realtime", headers=headers),
        ):
            pass
        assert denied.value.status_code == 401


@pytest.mark.parametrize("root_path", ["", "/behind/a/proxy"])
async def test_no_spelling_of_a_path_leads_around_the_keys(vllm: FastAPI, root_path: str) -> None:
    transport = httpx.ASGITransport(vllm, raise_app_exceptions=False, root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://vllm") as client:

        async def status(method: str, path: str) -> int:
            url = httpx.URL("http://vllm").copy_with(raw_path=f"{root_path}{path}".encode())
            return (await client.request(method, url)).status_code

        for path in ("/adapters", "/adapters/", "//adapters", "/%61dapters", "/healthy", "/x"):
            assert await status("POST", path) == 401, path
        assert await status("GET", "/health") != 401


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
    redis_url: str, keyless: httpx.AsyncClient
) -> None:
    async with fleet(redis_url, workers=0):
        for method, path in named(ADMIN):
            answer = await keyless.request(method, path, headers={"Origin": "http://evil.example"})
            assert (answer.status_code, answer.json()["error"]["type"]) == (403, "foreign_origin"), path
            rebound = {"Origin": "http://evil.example:8000", "Host": "evil.example:8000"}
            answer = await keyless.request(method, path, headers=rebound)
            assert (answer.status_code, answer.json()["error"]["type"]) == (421, "host_not_allowed"), path
        assert (await keyless.post(REFRESH_PATH)).status_code == 200
        infer = await keyless.post("/v1/chat/completions", headers={"Origin": "http://page.example"})
        assert infer.status_code not in {401, 403}, "who may infer is vLLM's own affair"


async def test_text_that_utf_8_cannot_hold_is_no_500(keyless: httpx.AsyncClient) -> None:
    for body in (b'{"names": ["\\ud800"]}', b'{"\\ud800": 1}'):
        answer = await keyless.post(REFRESH_PATH, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400, answer.text


def test_too_many_refreshes_are_told_when_to_ask_again() -> None:
    answer = refusal(TooManyRefreshes(per_minute=1, retry_after_seconds=7))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
