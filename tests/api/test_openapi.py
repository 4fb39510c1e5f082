"""The API keeps to its OpenAPI document, whatever it is asked: no 500, and no answer it does not describe."""

import asyncio
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from loradrop.catalog.adapter import AdapterState
from testkit.servers import ValkeyServer
from tests.api.processes import ApiProcess, api_process
from tests.catalog.fleet import fleet
from tests.catalog.values import TRUNCATED, an_adapter

KEY = "admin-key"
ENDLESS = "/v1/lora_events"
DISK = {
    "sql_adapter": an_adapter(),
    "bad": an_adapter("bad", revision=None, state=AdapterState.REJECTED, reason=TRUNCATED),
}
CHECKS = [
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]
_bounded = settings(
    max_examples=40,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def guarded(valkey_server: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    """An API that wants a key."""
    log: Path = tmp_path_factory.mktemp("guarded") / "api.log"
    arguments = ("--redis-url", valkey_server.url)
    with api_process(log, *arguments, environment={"LORADROP_API_KEY": KEY}) as api:
        yield api


def document(api: ApiProcess) -> dict[str, Any]:
    """Return the document without what would excuse any answer, and without what never ends."""
    described: dict[str, Any] = httpx.get(f"{api.url}/openapi.json").json()
    del described["paths"][ENDLESS]
    for operations in described["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("default", None)
    return described


def ask_for_everything(api: ApiProcess) -> dict[str, set[int]]:
    """Ask what each operation may be asked, and more; return which statuses came back."""
    operations = schemathesis.openapi.from_dict(document(api)).get_all_operations()
    return {made.ok().label: statuses_of(made.ok(), api) for made in operations}


def statuses_of(operation: APIOperation, api: ApiProcess) -> set[int]:
    statuses = set()

    @_bounded
    @given(
        case=operation.as_strategy(GenerationMode.POSITIVE) | operation.as_strategy(GenerationMode.NEGATIVE)
    )
    def ask(case: Case) -> None:
        answer = case.call(base_url=api.url, headers={"Authorization": f"Bearer {KEY}"})
        assert answer.status_code != HTTPStatus.INTERNAL_SERVER_ERROR, answer.text
        case.validate_response(answer, checks=CHECKS)
        statuses.add(answer.status_code)

    ask()
    return statuses


async def test_with_a_fleet_every_answer_is_as_described(guarded: ApiProcess, redis_url: str) -> None:
    async with fleet(redis_url, disk=DISK):
        answered = await asyncio.to_thread(ask_for_everything, guarded)
    assert answered["POST /v1/refresh_lora_discovery"] >= {200, 400, 401}
    assert answered["GET /v1/lora_adapters"] >= {200, 401}
    assert 404 in answered["GET /v1/lora_adapters/{name}"]
    assert "Traceback" not in guarded.log


async def test_without_a_fleet_every_answer_is_as_described(guarded: ApiProcess, redis_url: str) -> None:
    answered = await asyncio.to_thread(ask_for_everything, guarded)
    assert 503 in answered["POST /v1/refresh_lora_discovery"]
    assert answered["GET /v1/lora_adapters"] == {401, 503}
    assert "Traceback" not in guarded.log


async def test_any_last_event_id_opens_the_stream_or_is_a_400(guarded: ApiProcess, redis_url: str) -> None:
    printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)

    @_bounded
    @example("18446744073709551616")
    @example("1-18446744073709551616")
    @given(printable | st.from_regex(r"[0-9]{1,22}(-[0-9]{1,22})?", fullmatch=True))
    def follow(last_event_id: str) -> None:
        headers = {"Authorization": f"Bearer {KEY}", "Last-Event-ID": last_event_id}
        with httpx.stream("GET", f"{guarded.url}{ENDLESS}", headers=headers) as answer:
            assert answer.status_code in {HTTPStatus.OK, HTTPStatus.BAD_REQUEST}

    async with fleet(redis_url, disk=DISK, workers=0):
        await asyncio.to_thread(follow)
