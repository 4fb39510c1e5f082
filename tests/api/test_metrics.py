"""What Prometheus sees."""

import httpx
from prometheus_client.parser import text_string_to_metric_families

from loradrop.api.settings import Settings
from loradrop.catalog.adapter import AdapterState, Reason
from testkit.servers import free_port
from tests.api.conftest import api_client
from tests.catalog.fleet import fleet
from tests.catalog.values import TRUNCATED, an_adapter


async def scrape(client: httpx.AsyncClient) -> dict[tuple[str, ...], float]:
    """Return (name, label values in the order of their labels...) -> value."""
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_the_catalog_the_workers_and_the_watcher_are_measured(
    api: httpx.AsyncClient, redis_url: str
) -> None:
    bad = an_adapter("bad", revision=None, state=AdapterState.REJECTED, reason=TRUNCATED)
    async with fleet(redis_url, disk={"good": an_adapter("good"), "bad": bad}) as (watcher, [first, _]):
        watcher.degraded = Reason("inotify_limit", "Raise it.")
        await watcher.report()
        measured = await scrape(api)
    assert measured["loradrop_redis_up",] == 1
    assert measured["loradrop_adapters", "ready"] == 1
    assert measured["loradrop_adapters", "rejected"] == 1
    assert measured["loradrop_adapters", "settling"] == 0
    assert measured["loradrop_adapters_served",] == 1
    assert measured["loradrop_catalog_seq",] == 2
    assert measured["loradrop_workers",] == 2
    assert measured["loradrop_worker_lag", first.id] == 0
    assert measured["loradrop_worker_adapters", "listed", first.id] == 1
    assert measured["loradrop_watcher_up",] == 1
    assert measured["loradrop_watcher_degraded", "inotify_limit"] == 1
    assert measured["loradrop_watcher_last_scan_age_seconds",] >= 0


async def test_requests_and_refreshes_are_counted_by_route_and_outcome(
    api: httpx.AsyncClient, redis_url: str
) -> None:
    await api.get("/v1/nope")
    await api.get("/v1/lora_adapters/one")
    async with fleet(redis_url) as (watcher, _):
        await api.get("/v1/lora_adapters/two")
        await api.post("/v1/refresh_lora_discovery")
        await api.post("/v1/refresh_lora_discovery", headers={"Prefer": "respond-async"})
        watcher.unreadable = Reason("prefix_unreadable", "Mount it.")
        await api.post("/v1/refresh_lora_discovery")
        measured = await scrape(api)
    requests = "loradrop_http_requests_total"
    assert measured[requests, "GET", "none", "404"] == 1
    assert measured[requests, "GET", "/v1/lora_adapters/{name}", "503"] == 1
    assert measured[requests, "GET", "/v1/lora_adapters/{name}", "404"] == 1
    assert measured[requests, "POST", "/v1/refresh_lora_discovery", "200"] == 1
    assert measured["loradrop_refreshes_total", "converged"] == 1
    assert measured["loradrop_refreshes_total", "pending"] == 1
    assert measured["loradrop_refreshes_total", "failed"] == 1
    assert measured["loradrop_event_streams",] == 0


async def test_what_a_client_calls_its_method_is_no_label(api: httpx.AsyncClient) -> None:
    for number in range(50):
        await api.request(f"WORD{number}", "/v1/lora_adapters")
    measured = await scrape(api)
    requests = [labels for name, *labels in measured if name == "loradrop_http_requests_total"]
    assert [labels[0] for labels in requests] == ["other"]


async def test_only_states_that_workers_can_report_are_labels(api: httpx.AsyncClient, redis_url: str) -> None:
    async with fleet(redis_url, workers=1) as (_, [worker]):
        worker.counts = {"loaded": 3, "word": 4}
        await worker.report()
        measured = await scrape(api)
    assert measured["loradrop_worker_adapters", "loaded", worker.id] == 3
    assert not any("word" in labels for labels in measured)


async def test_a_redis_without_a_catalog_is_up(api: httpx.AsyncClient) -> None:
    measured = await scrape(api)
    assert measured["loradrop_redis_up",] == 1
    assert measured["loradrop_watcher_up",] == 0
    assert measured["loradrop_adapters_served",] == 0


async def test_a_redis_that_is_away_is_down_and_the_scrape_succeeds() -> None:
    async with api_client(Settings(redis_url=f"redis://127.0.0.1:{free_port()}/0")) as client:
        measured = await scrape(client)
    assert measured["loradrop_redis_up",] == 0
    assert ("loradrop_workers",) not in measured
