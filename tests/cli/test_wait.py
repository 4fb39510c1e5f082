"""`loradrop wait`: scripts that deploy go on when an adapter is served, or know why it never will be."""

import asyncio
import json

import httpx
import pytest

from loradrop.catalog.adapter import Adapter, AdapterState
from loradrop.catalog.status import WorkerAdapter, WorkerState
from testkit.servers import free_port
from testkit.waiting import wait_until
from tests.api.processes import ApiProcess
from tests.catalog.fleet import FakeWorker, fleet
from tests.catalog.values import TRUNCATED, an_adapter, revision
from tests.cli.conftest import Loradrop

GOOD = an_adapter("good")
UPDATED = an_adapter("good", revision=revision("b"))
BAD = an_adapter("bad", revision=None, state=AdapterState.REJECTED, reason=TRUNCATED)
BAD_UPDATE = an_adapter("good", state=AdapterState.REJECTED, reason=TRUNCATED)
COPYING = an_adapter("good", state=AdapterState.INCOMPLETE, reason=TRUNCATED)


@pytest.mark.parametrize("target", ["good", f"good@{revision('a')}", "good@aaaaaaaaaaaa"])
async def test_what_every_worker_serves_is_a_yes(loradrop: Loradrop, redis_url: str, target: str) -> None:
    async with fleet(redis_url, disk={"good": GOOD}):
        result = await loradrop("wait", target)
    assert (result.exit_code, result.output) == (
        0,
        "good is served in aaaaaaaaaaaa by 2 of 2 workers.\n",
    )


async def test_it_goes_on_as_soon_as_what_was_dropped_is_served(loradrop: Loradrop, redis_url: str) -> None:
    async with fleet(redis_url) as (watcher, [_, slow]):
        waiting = asyncio.create_task(loradrop("wait", "good", "--json"))
        watcher.disk = {"good": GOOD}
        slow.paused = True
        await watcher.scan()
        slow.paused = False
        result = await waiting
    assert result.exit_code == 0
    body = json.loads(result.stdout)
    assert (body["outcome"], body["adapter"]["id"], body["workers"]["pending"]) == ("served", "good", [])
    assert len(body["workers"]["serving"]) == 2


async def test_some_workers_may_be_enough(loradrop: Loradrop, redis_url: str) -> None:
    async with fleet(redis_url) as (watcher, [first, slow]):
        slow.paused = True
        watcher.disk = {"good": GOOD}
        await watcher.scan()
        enough = await loradrop("wait", "good", "--workers", "1", "--json")
        all_of_them = await loradrop("wait", "good", "--timeout", "0.3")
    assert enough.exit_code == 0
    assert json.loads(enough.stdout)["workers"] == {"serving": [first.id], "pending": [slow.id]}
    assert all_of_them.exit_code == 4
    assert f"by 1 of 2 workers, and not by {slow.id}." in all_of_them.stderr


@pytest.mark.parametrize(
    ("disk", "target", "said"),
    [
        (None, "good", "good is not under the prefix."),
        (COPYING, "good", "good is incomplete on disk"),
        (GOOD, "good@bbbb", "aaaaaaaaaaaa is to be served"),
    ],
)
async def test_what_may_still_come_is_waited_for_until_the_time_is_up(
    loradrop: Loradrop, redis_url: str, disk: Adapter | None, target: str, said: str
) -> None:
    async with fleet(redis_url, disk={"good": disk} if disk else {}):
        result = await loradrop("wait", target, "--timeout", "0.1", "--json")
    assert result.exit_code == 4
    assert json.loads(result.stdout)["outcome"] == "pending"
    assert "Not within 0.1 s." in result.stderr
    assert said in result.stderr


async def test_without_workers_it_is_not_served(loradrop: Loradrop, redis_url: str) -> None:
    async with fleet(redis_url, disk={"good": GOOD}, workers=0):
        result = await loradrop("wait", "good", "--timeout", "0.1")
    assert result.exit_code == 4
    assert "by 0 of 1 workers" in result.stderr


@pytest.mark.parametrize(("name", "disk"), [("bad", BAD), ("good", BAD_UPDATE)])
async def test_rejected_bytes_are_a_no_at_once_with_the_reason(
    loradrop: Loradrop, redis_url: str, name: str, disk: Adapter
) -> None:
    async with fleet(redis_url, disk={name: disk}):
        result = await loradrop("wait", name, "--json")
    assert (result.exit_code, json.loads(result.stdout)["outcome"]) == (1, "rejected")
    assert str(TRUNCATED) in result.stderr


async def test_a_bad_update_does_not_matter_to_who_waits_for_the_revision_before(
    loradrop: Loradrop, redis_url: str
) -> None:
    async with fleet(redis_url, disk={"good": BAD_UPDATE}):
        assert (await loradrop("wait", "good@aaaa")).exit_code == 0
        assert (await loradrop("wait", "good@bbbb")).exit_code == 1


async def test_an_update_is_served_when_no_worker_has_the_revision_before(
    loradrop: Loradrop, redis_url: str
) -> None:
    async with fleet(redis_url, disk={"good": UPDATED}, workers=1) as (_, [worker]):
        await worker_says(worker, WorkerState.LOADED, "a")
        old = await loradrop("wait", "good", "--timeout", "0.1")
        await worker_says(worker, WorkerState.LOADED, "b")
        new = await loradrop("wait", "good")
    assert (old.exit_code, new.exit_code) == (4, 0)


async def test_what_too_many_workers_reject_is_a_no_with_their_reasons(
    loradrop: Loradrop, redis_url: str
) -> None:
    async with fleet(redis_url, disk={"good": GOOD}) as (_, [first, _second]):
        await worker_says(first, WorkerState.REJECTED, "a")
        every = await loradrop("wait", "good")
        one = await loradrop("wait", "good", "--workers", "1")
    assert (every.exit_code, one.exit_code) == (1, 0)
    assert f"{first.id}: {TRUNCATED}" in every.stderr


async def test_what_is_removed_meanwhile_is_a_no(loradrop: Loradrop, redis_url: str, api: ApiProcess) -> None:
    async with fleet(redis_url, disk={"good": COPYING}) as (watcher, _):
        looks = await looks_answered(api)
        waiting = asyncio.create_task(loradrop("wait", "good"))

        async def has_looked() -> bool:
            return await looks_answered(api) > looks

        await wait_until(has_looked, timeout=10, description="it has seen the adapter")
        watcher.disk = {}
        await watcher.scan()
        result = await waiting
    assert result.exit_code == 1
    assert "was removed" in result.stderr


@pytest.mark.parametrize("target", ["@aaaa", "good@", "good@abc", "good@xyzw", ""])
async def test_what_is_no_name_and_revision_is_a_usage_error(loradrop: Loradrop, target: str) -> None:
    result = await loradrop("wait", target)
    assert result.exit_code == 2
    assert "NAME@REVISION" in result.stderr


async def test_without_an_answer_it_does_not_wait(loradrop: Loradrop, api: ApiProcess) -> None:
    assert (await loradrop("wait", "good", "--api-url", f"http://127.0.0.1:{free_port()}")).exit_code == 3
    without_catalog = await loradrop("wait", "good")
    assert without_catalog.exit_code == 3
    assert "loradrop watch" in without_catalog.stderr


async def looks_answered(api: ApiProcess) -> float:
    """Return how often the API has shown one adapter."""
    async with httpx.AsyncClient() as client:
        metrics = (await client.get(f"{api.url}/metrics")).text
    shown = 'loradrop_http_requests_total{method="GET",route="/v1/lora_adapters/{name}",status="200"} '
    return sum(float(line.removeprefix(shown)) for line in metrics.splitlines() if line.startswith(shown))


async def worker_says(worker: FakeWorker, state: WorkerState, digit: str) -> None:
    """Have a worker report a state of `good`, and wait until it has."""
    reason = TRUNCATED if state is WorkerState.REJECTED else None
    worker.adapters = {"good": WorkerAdapter(state=state, revision=revision(digit), reason=reason)}
    await worker.report()
