"""API keys guard everything under `/v1`, and nothing else."""

import logging
from collections.abc import AsyncIterator

import httpx
import pytest

from api.app import create_app
from api.settings import Settings, api_keys_in
from tests.api.conftest import api_client

ROUTES = [
    ("POST", "/v1/refresh_lora_discovery"),
    ("GET", "/v1/refresh_lora_discovery/x"),
    ("GET", "/v1/lora_adapters"),
    ("GET", "/v1/lora_adapters/x"),
    ("GET", "/v1/lora_workers"),
    ("GET", "/v1/lora_events"),
    ("GET", "/v1/nope"),
    ("OPTIONS", "/v1/lora_adapters"),
    ("GET", "/v1"),
]


@pytest.fixture
async def guarded(redis_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with api_client(Settings(redis_url=redis_url, api_keys=("first", "zweiter-schlüssel"))) as client:
        yield client


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "authorization", [None, "Bearer wrong", "Bearer", "Basic first", "first", "Bearer first,second"]
)
async def test_without_a_valid_key_everything_under_v1_is_a_401(
    guarded: httpx.AsyncClient, method: str, path: str, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = await guarded.request(method, path, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_api_key")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "LORADROP_API_KEY" in answer.json()["detail"]


@pytest.mark.parametrize("authorization", ["Bearer first", "bearer first", "Bearer  first "])
async def test_any_of_the_keys_opens(guarded: httpx.AsyncClient, authorization: str) -> None:
    answer = await guarded.get("/v1/lora_adapters", headers={"Authorization": authorization})
    assert answer.json()["code"] == "catalog_unavailable"


async def test_a_key_may_hold_any_character(guarded: httpx.AsyncClient) -> None:
    answer = await guarded.get(
        "/v1/lora_adapters", headers={"Authorization": "Bearer zweiter-schlüssel".encode()}
    )
    assert answer.json()["code"] == "catalog_unavailable"


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/openapi.json"])
async def test_probes_metrics_and_documents_are_open(guarded: httpx.AsyncClient, path: str) -> None:
    assert (await guarded.get(path)).status_code == 200


async def test_the_document_says_that_keys_are_wanted(guarded: httpx.AsyncClient) -> None:
    document = (await guarded.get("/openapi.json")).json()
    assert document["paths"]["/v1/lora_adapters"]["get"]["security"] == [{"ApiKey": []}]
    assert "security" not in document["paths"]["/healthz"]["get"]


def test_keys_come_from_the_environment_separated_by_commas() -> None:
    assert api_keys_in({"LORADROP_API_KEY": " one, two,,"}) == ("one", "two")
    assert api_keys_in({}) == ()


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
