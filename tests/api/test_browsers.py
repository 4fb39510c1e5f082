"""The API against web pages: without keys it answers to its own names, and acts for no other site's page."""

import re

import httpx
import pytest

from loradrop.api.settings import Settings
from tests.api.conftest import api_client
from tests.catalog.fleet import fleet

REFRESH = "/v1/refresh_lora_discovery"
EVIL = {"Host": "evil.example:8001"}


@pytest.mark.parametrize(
    "path", ["/v1/lora_adapters", "/v1/lora_events", "/readyz", "/metrics", "/docs", "/x"]
)
async def test_without_keys_nothing_is_answered_under_a_strangers_name(
    api: httpx.AsyncClient, path: str
) -> None:
    answer = await api.get(path, headers=EVIL)
    assert (answer.status_code, answer.json()["code"]) == (421, "host_not_allowed")
    assert "'evil.example:8001'" in answer.json()["detail"]


async def test_a_refresh_under_another_name_is_refused(api: httpx.AsyncClient, redis_url: str) -> None:
    async with fleet(redis_url, workers=0):
        answer = await api.post(REFRESH, json={"confirm_removals": True}, headers=EVIL)
        assert (answer.status_code, answer.json()["code"]) == (421, "host_not_allowed")
        assert (await api.get("/v1/lora_refreshes")).json()["data"] == []


async def test_names_that_were_allowed_and_the_one_it_is_bound_to_are_its_own(redis_url: str) -> None:
    settings = Settings(redis_url=redis_url, host="api.internal", allowed_hosts=("loras.example",))
    async with api_client(settings) as client:
        for host in ("api.internal:8001", "loras.example"):
            assert (await client.get("/healthz", headers={"Host": host})).status_code == 200
        assert (await client.get("/healthz", headers=EVIL)).status_code == 421


async def test_with_keys_any_name_will_do(redis_url: str) -> None:
    async with api_client(Settings(redis_url=redis_url, api_keys=("key",))) as client:
        assert (await client.get("/healthz", headers=EVIL)).status_code == 200


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/json"]
)
@pytest.mark.parametrize("body", [b"", b"{}"])
async def test_a_page_of_another_site_asks_for_no_refresh(
    api: httpx.AsyncClient, redis_url: str, content_type: str, body: bytes
) -> None:
    headers = {"Origin": "http://evil.example", "Content-Type": content_type}
    async with fleet(redis_url, workers=0):
        answer = await api.post(REFRESH, content=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")
        assert (await api.get("/v1/lora_refreshes")).json()["data"] == []


async def test_with_a_key_a_page_may_come_from_anywhere(redis_url: str) -> None:
    headers = {"Origin": "http://dashboard.example", "Authorization": "Bearer key"}
    async with (
        fleet(redis_url, workers=0),
        api_client(Settings(redis_url=redis_url, api_keys=("key",))) as api,
    ):
        assert (await api.post(REFRESH, json={}, headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"", {}),
        (b"", {"Content-Type": "application/x-www-form-urlencoded"}),
        (b"{}", {"Content-Type": "application/json"}),
        (b"{}", {"Content-Type": "application/json", "Origin": "http://127.0.0.1:8001"}),
    ],
    ids=["curl -X POST", "curl -d ''", "curl --json '{}'", "a page of this API"],
)
async def test_what_curl_and_the_apis_own_pages_send_is_a_refresh(
    api: httpx.AsyncClient, redis_url: str, content: bytes, headers: dict[str, str]
) -> None:
    async with fleet(redis_url, workers=0):
        assert (await api.post(REFRESH, content=content, headers=headers)).status_code == 200


async def test_the_documentation_loads_nothing_and_runs_nothing(api: httpx.AsyncClient) -> None:
    answer = await api.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "<script" not in answer.text
    assert not re.search(r"(src|href)=['\"]?(https?:)?//", answer.text)


async def test_the_documentation_names_every_route(api: httpx.AsyncClient) -> None:
    page = (await api.get("/docs")).text
    for path, operations in (await api.get("/openapi.json")).json()["paths"].items():
        for method, operation in operations.items():
            assert f"{method.upper()} {path}</code>" in page
            assert operation["summary"] in page


@pytest.mark.parametrize("path", ["/docs/", "/v1/lora_adapters/", "/healthz/", "/openapi.json/"])
async def test_it_redirects_nowhere(api: httpx.AsyncClient, path: str) -> None:
    answer = await api.get(path)
    assert (answer.status_code, "location" in answer.headers) == (404, False)
