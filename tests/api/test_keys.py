"""API keys guard everything under `/v1`, and nothing else; a read key changes nothing."""

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Route

from loradrop.api.app import create_app
from loradrop.api.settings import Settings
from loradrop.catalog.errors import KeysInvalid
from loradrop.catalog.http.auth import MAX_REFRESH_BYTES, REFRESH_PATH
from tests.api.conftest import api_client

KEYS = ("first", "zweiter-schlüssel", "third read dashboard")
OPEN = {"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def operations(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Every method and path the application answers, its documents among them."""
    for route in app.routes:
        assert isinstance(route, Route | APIRoute), f"{route} is neither guarded nor known to be open"
        for method in route.methods or ():
            yield method, route.path.replace("{", "").replace("}", "")


@pytest.fixture
async def guarded(redis_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with api_client(Settings(redis_url=redis_url, api_keys=KEYS)) as client:
        yield client


def guarded_operations() -> list[tuple[str, str]]:
    every = set(operations(create_app(Settings())))
    unheard_of = {("GET", "/v1/nope"), ("OPTIONS", "/v1/lora_adapters"), ("GET", "/v1"), ("POST", "/v1/")}
    return sorted({(method, path) for method, path in every if path not in OPEN} | unheard_of)


@pytest.mark.parametrize(("method", "path"), guarded_operations())
async def test_without_a_valid_key_everything_but_probes_and_documents_is_a_401(
    guarded: httpx.AsyncClient, method: str, path: str
) -> None:
    for authorization in (None, "Bearer wrong", "Bearer", "Basic first", "first", "Bearer first,third"):
        headers = {} if authorization is None else {"Authorization": authorization}
        answer = await guarded.request(method, path, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert answer.headers["content-type"] == "application/problem+json"
        if method != "HEAD":
            assert answer.json()["code"] == "invalid_api_key"
            assert "LORADROP_API_KEY" in answer.json()["detail"]


@pytest.mark.parametrize("path", sorted(OPEN - {"/readyz"}))
async def test_probes_metrics_and_documents_are_open(guarded: httpx.AsyncClient, path: str) -> None:
    assert (await guarded.get(path)).status_code == 200


async def test_readiness_is_open(guarded: httpx.AsyncClient) -> None:
    assert (await guarded.get("/readyz")).status_code == 503


@pytest.mark.parametrize("key", ["first", "zweiter-schlüssel", "third"])
async def test_any_of_the_keys_reads(guarded: httpx.AsyncClient, key: str) -> None:
    answer = await guarded.get("/v1/lora_adapters", headers={"Authorization": f"Bearer {key}".encode()})
    assert answer.json()["code"] == "catalog_unavailable"


async def test_only_an_admins_key_asks_for_a_refresh(guarded: httpx.AsyncClient) -> None:
    refused = await guarded.post(REFRESH_PATH, headers=bearer("third"))
    assert (refused.status_code, refused.json()["code"]) == (403, "admin_key_needed")
    assert "admin" in refused.json()["detail"]
    assert (await guarded.post(REFRESH_PATH, headers=bearer("first"))).json()["code"] == "no_watcher"


async def test_keys_of_a_file_come_and_go_while_it_runs(redis_url: str, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("old\n")
    async with api_client(Settings(redis_url=redis_url, api_key_file=path)) as client:
        assert (await client.get("/v1/lora_workers")).status_code == 401
        assert (await client.get("/v1/lora_workers", headers=bearer("old"))).status_code == 503
        (tmp_path / "aside").write_text("new\n")
        (tmp_path / "aside").rename(path)
        assert (await client.get("/v1/lora_workers", headers=bearer("old"))).status_code == 401
        assert (await client.get("/v1/lora_workers", headers=bearer("new"))).status_code == 503


def test_keys_that_cannot_be_meant_end_the_start(tmp_path: Path) -> None:
    for settings in (Settings(api_keys=("key write",)), Settings(api_key_file=tmp_path / "nothing")):
        with pytest.raises(KeysInvalid):
            create_app(settings)


async def test_a_body_that_is_too_large_is_a_413_and_is_not_read_to_its_end(
    guarded: httpx.AsyncClient,
) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1 << 16
            yield b" " * (1 << 16)

    answer = await guarded.post(REFRESH_PATH, content=endless(), headers=bearer("first"))
    assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")
    assert str(MAX_REFRESH_BYTES) in answer.json()["detail"]
    assert sent <= MAX_REFRESH_BYTES + (2 << 16)


async def test_the_document_says_that_keys_are_wanted(guarded: httpx.AsyncClient) -> None:
    document = (await guarded.get("/openapi.json")).json()
    assert document["paths"]["/v1/lora_adapters"]["get"]["security"] == [{"ApiKey": []}]
    assert "security" not in document["paths"]["/healthz"]["get"]


@pytest.mark.parametrize(
    ("host", "keys", "warned"),
    [
        ("127.0.0.1", (), False),
        ("localhost", (), False),
        ("::1", (), False),
        ("0.0.0.0", (), True),  # that is the point
        ("api.internal", (), True),
        ("0.0.0.0", ("key",), False),  # that is the point
    ],
)
def test_public_without_a_key_is_said_loudly(
    caplog: pytest.LogCaptureFixture, host: str, keys: tuple[str, ...], warned: bool
) -> None:
    with caplog.at_level(logging.WARNING):
        create_app(Settings(host=host, api_keys=keys))
    assert [("LORADROP_API_KEY" in record.message) for record in caplog.records] == [True] * warned


def test_settings_do_not_show_secrets() -> None:
    assert "secret" not in repr(Settings(redis_url="redis://:secret@h/0", api_keys=("secret",)))
