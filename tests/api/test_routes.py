"""The routes over a fleet: what they answer, in the words and fields of the contract."""

import asyncio
from datetime import datetime

import httpx
from redis.asyncio import Redis

from loradrop.api.settings import Settings
from loradrop.catalog.adapter import AdapterState, Reason
from loradrop.catalog.store.refreshes import MAX_PER_MINUTE
from tests.api.conftest import api_client
from tests.catalog.fleet import fleet
from tests.catalog.values import TRUNCATED, an_adapter, revision

REFRESH = "/v1/refresh_lora_discovery"
GOOD = an_adapter("good")
BAD = an_adapter("bad", revision=None, state=AdapterState.REJECTED, reason=TRUNCATED, size_bytes=0)


async def test_a_refresh_answers_in_the_seeds_words_and_fields(
    api: httpx.AsyncClient, redis_url: str
) -> None:
    async with fleet(redis_url) as (watcher, _):
        watcher.disk = {"good": GOOD, "bad": BAD}
        answer = await api.post(REFRESH, json={})
    assert answer.status_code == 200
    body = answer.json()
    refresh_id = body.pop("refresh_id")
    assert refresh_id
    assert body == {
        "message": "Successfully refreshed LoRA discovery. Found 1 total adapters, 1 newly discovered.",
        "discovered_adapters": ["good"],
        "total_adapters": 1,
        "updated_adapters": [],
        "removed_adapters": [],
        "rejected_adapters": [
            {"id": "bad", "reason": {"code": TRUNCATED.code, "message": TRUNCATED.message}}
        ],
        "omitted": {},
        "status": "converged",
        "workers": {"total": 2, "converged": 2, "pending": []},
    }


async def test_a_refresh_needs_no_body(api: httpx.AsyncClient, redis_url: str) -> None:
    async with fleet(redis_url, workers=0):
        assert (await api.post(REFRESH)).json()["status"] == "converged"


async def test_a_refresh_tells_what_was_updated_and_removed(api: httpx.AsyncClient, redis_url: str) -> None:
    async with fleet(redis_url, disk={"good": GOOD, "old": an_adapter("old")}) as (watcher, _):
        watcher.disk = {"good": an_adapter("good", revision=revision("b"))}
        body = (await api.post(REFRESH, json={"names": ["good", "old"]})).json()
    assert (body["updated_adapters"], body["removed_adapters"]) == (["good"], ["old"])


async def test_a_dry_run_changes_nothing(api: httpx.AsyncClient, redis_url: str) -> None:
    async with fleet(redis_url) as (watcher, _):
        watcher.disk = {"good": GOOD}
        body = (await api.post(REFRESH, json={"dry_run": True})).json()
        assert body["discovered_adapters"] == ["good"]
        assert (await api.get("/v1/lora_adapters")).json() == {"object": "list", "data": []}


async def test_a_refresh_that_runs_out_of_time_says_who_does_not_know(
    api: httpx.AsyncClient, redis_url: str
) -> None:
    async with fleet(redis_url) as (watcher, [_, slow]):
        slow.paused = True
        watcher.disk = {"good": GOOD}
        answer = await api.post(REFRESH, json={"timeout": 2})
        assert answer.status_code == 200
        assert (answer.json()["status"], answer.json()["workers"]["pending"]) == ("partial", [slow.id])
        watcher.deaf = True
        assert (await api.post(REFRESH, json={"timeout": 0.1})).json()["status"] == "timeout"


async def test_a_refresh_can_be_asked_for_without_waiting(api: httpx.AsyncClient, redis_url: str) -> None:
    async with fleet(redis_url) as (watcher, _):
        watcher.deaf = True
        answer = await api.post(REFRESH, json={}, headers={"Prefer": "wait=1, respond-async"})
        assert answer.status_code == 202
        assert answer.headers["preference-applied"] == "respond-async"
        location = answer.headers["location"]
        assert location == f"{REFRESH}/{answer.json()['refresh_id']}"
        assert answer.json()["status"] == "pending"
        assert (await api.get(location)).json() == answer.json()


async def test_a_prefix_that_cannot_be_read_is_a_503_and_the_refresh_says_why(
    api: httpx.AsyncClient, redis_url: str
) -> None:
    async with fleet(redis_url, disk={"good": GOOD}) as (watcher, _):
        watcher.unreadable = Reason("prefix_unreadable", "/srv/loras is not there; mount it.")
        answer = await api.post(REFRESH)
        assert (answer.status_code, answer.json()["code"]) == (503, "prefix_unreadable")
        assert answer.json()["detail"] == "/srv/loras is not there; mount it."
        assert [adapter["id"] for adapter in (await api.get("/v1/lora_adapters")).json()["data"]] == ["good"]


async def test_adapters_are_listed_with_their_state_on_every_worker(
    api: httpx.AsyncClient, redis_url: str
) -> None:
    async with fleet(redis_url, disk={"good": GOOD, "bad": BAD}) as (_, [first, second]):
        bad, good = (await api.get("/v1/lora_adapters")).json()["data"]
        assert (await api.get("/v1/lora_adapters/good")).json() == good
    assert bad["reason"] == {"code": TRUNCATED.code, "message": TRUNCATED.message}
    assert bad["workers"] == {}
    on_worker = {
        "state": "listed",
        "revision": revision("a"),
        "reason": None,
        "loads": 0,
        "load_seconds": None,
        "last_used": None,
        "retry_at": None,
        "revisions": [],
    }
    assert good == {
        "id": "good",
        "object": "lora_adapter",
        "revision": revision("a"),
        "state": "ready",
        "reason": None,
        "path": "good",
        "prefix": "/srv/loras",
        "format": "safetensors",
        "size_bytes": 1_234_567,
        "rank": 8,
        "base_model": "tiny-llama",
        "discovered_at": "2026-11-23T12:00:00Z",
        "updated_at": "2026-11-23T12:00:00Z",
        "workers": {first.id: on_worker, second.id: on_worker},
    }


async def test_workers_are_listed_with_their_lag(api: httpx.AsyncClient, redis_url: str) -> None:
    async with fleet(redis_url, disk={"good": GOOD}, workers=1) as (_, [worker]):
        body = (await api.get("/v1/lora_workers")).json()
    [shown] = body["data"]
    assert body["object"] == "list"
    assert shown.pop("last_heartbeat").endswith("Z")
    assert shown == {
        "id": worker.id,
        "object": "lora_worker",
        "base_model": "tiny-llama",
        "url": f"http://{worker.id}",
        "observed_seq": 1,
        "lag": 0,
        "adapters": {"listed": 1},
        "degraded": None,
    }


async def test_a_burst_of_requests_is_answered(redis_url: str) -> None:
    # A slow machine is not what is asked about.
    patient = Settings(redis_url=f"{redis_url}?socket_connect_timeout=60", redis_seconds=60)
    async with fleet(redis_url, disk={"good": GOOD}), api_client(patient) as api:
        answers = await asyncio.gather(*(api.get("/v1/lora_adapters") for _ in range(200)))
    assert {answer.status_code for answer in answers} == {200}


async def test_the_api_is_alive_whatever_redis_does(api: httpx.AsyncClient) -> None:
    assert (await api.get("/healthz")).json() == {"status": "ok"}


async def test_it_is_ready_with_redis_a_catalog_and_a_watcher(api: httpx.AsyncClient, redis_url: str) -> None:
    async with fleet(redis_url, disk={"good": GOOD}) as (watcher, _):
        watcher.degraded = Reason("inotify_limit", "Raise fs.inotify.max_user_watches.")
        await watcher.report()
        answer = await api.get("/readyz")
    assert answer.status_code == 200
    body = answer.json()
    assert body["ready"]
    assert [(check["name"], check["ok"]) for check in body["checks"]] == [
        ("redis", True),
        ("catalog", True),
        ("watcher", True),
        ("workers", True),
    ]
    assert (body["epoch"], body["seq"]) == (watcher.publisher.lease.epoch, 1)
    assert body["watcher"]["id"] == "watcher-1"
    assert body["watcher"]["degraded"]["code"] == "inotify_limit"
    assert body["watcher"]["adapters"] == {"ready": 1}


async def test_without_a_watcher_it_is_not_ready_and_says_what_to_start(api: httpx.AsyncClient) -> None:
    answer = await api.get("/readyz")
    assert answer.status_code == 503
    assert "retry-after" in answer.headers
    body = answer.json()
    assert [check["name"] for check in body["checks"] if not check["ok"]] == ["catalog", "watcher"]
    assert all("loradrop watch" in check["reason"]["message"] for check in body["checks"] if not check["ok"])
    assert body["watcher"] is None


async def test_every_route_is_documented_with_its_errors(api: httpx.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()
    routes = {(method, path) for path, operations in document["paths"].items() for method in operations}
    assert routes == {
        ("post", REFRESH),
        ("get", f"{REFRESH}/{{refresh_id}}"),
        ("get", "/v1/lora_refreshes"),
        ("get", "/v1/lora_adapters"),
        ("get", "/v1/lora_adapters/{name}"),
        ("get", "/v1/lora_workers"),
        ("get", "/v1/lora_events"),
        ("get", "/healthz"),
        ("get", "/readyz"),
        ("get", "/metrics"),
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["description"]
            assert "422" not in operation["responses"]
            if path.startswith("/v1"):
                problem = operation["responses"]["503"]["content"]["application/problem+json"]
                assert problem["schema"]["$ref"] == "#/components/schemas/Problem"
    assert "Problem" in document["components"]["schemas"]
    assert "security" not in document["paths"]["/v1/lora_adapters"]["get"]
    assert (await api.get("/docs")).status_code == 200


async def test_who_asked_for_which_refresh_is_kept(redis_url: str) -> None:
    keys = ("first", "second admin deploy")
    async with (
        fleet(redis_url, disk={"good": GOOD}),
        api_client(Settings(redis_url=redis_url, api_keys=keys)) as api,
    ):
        for key, body in (("first", {"dry_run": True}), ("second", {"names": ["good"]})):
            await api.post(REFRESH, json=body, headers={"Authorization": f"Bearer {key}"})
        headers = {"Authorization": "Bearer first"}
        deploy, before = (await api.get("/v1/lora_refreshes", headers=headers)).json()["data"]
        [last] = (await api.get("/v1/lora_refreshes?limit=1", headers=headers)).json()["data"]
    assert last == deploy
    assert datetime.fromisoformat(deploy.pop("asked_at")) >= datetime.fromisoformat(before.pop("asked_at"))
    assert len({deploy.pop("id"), before.pop("id")}) == 2
    common = {"object": "lora_refresh", "status": "scanned", "confirm_removals": False}
    assert before == common | {"asked_by": "key-1", "names": [], "dry_run": True}
    assert deploy == common | {"asked_by": "deploy", "names": ["good"], "dry_run": False}


async def test_who_needs_no_key_is_known_by_their_address(api: httpx.AsyncClient, redis_url: str) -> None:
    async with fleet(redis_url, workers=0):
        await api.post(REFRESH)
        [asked] = (await api.get("/v1/lora_refreshes")).json()["data"]
    assert asked["asked_by"] == "127.0.0.1"


async def test_too_many_refreshes_are_told_when_to_ask_again(api: httpx.AsyncClient, redis_url: str) -> None:
    async with fleet(redis_url, workers=0), Redis.from_url(redis_url) as raw:
        async with raw.pipeline() as pipeline:
            for number in range(1, MAX_PER_MINUTE + 1):
                pipeline.xadd("loradrop:{default}:refreshes", {"number": number})
            await pipeline.execute()
        answer = await api.post(REFRESH)
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_refreshes")
    assert 1 <= int(answer.headers["retry-after"]) <= 60
