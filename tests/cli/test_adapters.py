"""`loradrop ls`: at a glance, and for programs."""

import json

import pytest

from loradrop.catalog.adapter import AdapterState, Reason
from loradrop.catalog.status import WorkerAdapter, WorkerState
from loradrop.catalog.store import Connection, Reports
from testkit.waiting import wait_until
from tests.catalog.fleet import fleet
from tests.catalog.values import TRUNCATED, an_adapter, revision
from tests.cli.conftest import Loradrop

GOOD = an_adapter("good")
BAD = an_adapter("bad", revision=None, state=AdapterState.REJECTED, reason=TRUNCATED, size_bytes=0, rank=None)


def row(output: str, name: str) -> list[str]:
    """Return the words of the row that begins with `name`."""
    [line] = [line for line in output.splitlines() if line.startswith(name)]
    return line.split()


async def test_a_row_says_what_is_served_by_whom_and_why_not(
    loradrop: Loradrop, redis_url: str, connection: Connection
) -> None:
    async with fleet(redis_url, disk={"good": GOOD, "bad": BAD}) as (_, [first, _second]):
        first.adapters = {"good": WorkerAdapter(state=WorkerState.LOADED, revision=revision("a"))}

        async def loaded() -> bool:
            return bool((await Reports(connection).tables([first.id]))[first.id])

        await wait_until(loaded, timeout=10, description="the worker says it has loaded the adapter")
        result = await loradrop("ls")
    assert result.exit_code == 0
    assert row(result.output, "good") == [
        "good",
        "ready",
        "aaaaaaaaaaaa",
        "8",
        "1.2",
        "MB",
        "2/2",
        "loaded",
        "1",
    ]
    assert row(result.output, "bad")[:7] == ["bad", "rejected", "-", "-", "-", "0/2", "weights_truncated:"]
    assert TRUNCATED.message in result.output
    assert "2 adapters, 1 served, 2 workers" in result.output


async def test_what_a_worker_cannot_serve_shows_its_reason(
    loradrop: Loradrop, redis_url: str, connection: Connection
) -> None:
    async with fleet(redis_url, disk={"good": GOOD}, workers=1) as (_, [worker]):
        worker.adapters = {"good": WorkerAdapter(state=WorkerState.REJECTED, reason=TRUNCATED)}

        async def rejected() -> bool:
            return bool((await Reports(connection).tables([worker.id]))[worker.id])

        await wait_until(rejected, timeout=10, description="the worker says it rejects the adapter")
        result = await loradrop("ls")
    assert "0/1 rejected 1" in result.output
    assert f"{worker.id}: weights_truncated: " in result.output


async def test_programs_get_the_answer_of_the_api(loradrop: Loradrop, redis_url: str) -> None:
    async with fleet(redis_url, disk={"good": GOOD, "bad": BAD}):
        every = json.loads((await loradrop("ls", "--json")).stdout)
        one = json.loads((await loradrop("ls", "good", "--json")).stdout)
    assert [adapter["id"] for adapter in every["data"]] == ["bad", "good"]
    assert one == {"object": "list", "data": [every["data"][1]]}


async def test_an_unknown_name_is_a_no(loradrop: Loradrop, redis_url: str) -> None:
    async with fleet(redis_url, disk={"good": GOOD}):
        result = await loradrop("ls", "good", "a/b")
    assert result.exit_code == 1
    assert "a/b" in result.stderr
    assert "Traceback" not in result.stderr


async def test_an_empty_catalog_says_what_to_do(loradrop: Loradrop, redis_url: str) -> None:
    async with fleet(redis_url, workers=0):
        result = await loradrop("ls")
    assert result.exit_code == 0
    assert "Copy one into the prefix" in result.output


async def test_without_workers_there_is_none_to_count(loradrop: Loradrop, redis_url: str) -> None:
    async with fleet(redis_url, disk={"good": GOOD}, workers=0):
        result = await loradrop("ls")
    assert row(result.output, "good")[-1] == "-"


async def test_control_characters_from_the_disk_do_not_reach_the_terminal(
    loradrop: Loradrop, redis_url: str
) -> None:
    odd = an_adapter("[red]odd\x1b[2J", state=AdapterState.REJECTED, reason=TRUNCATED)
    async with fleet(redis_url, disk={odd.name: odd}):
        result = await loradrop("ls")
    assert "\x1b[2J" not in result.output
    assert "[red]odd\\x1b[2J" in result.output


@pytest.mark.parametrize(
    "command",
    [
        ("ls",),
        ("ls", "--json"),
        ("status",),
        ("status", "--json"),
        ("refresh", "odd"),
        ("refresh", "odd", "--json"),
        ("wait", "odd"),
        ("wait", "odd", "--json"),
    ],
)
async def test_what_a_terminal_would_obey_reaches_it_from_no_reason(
    loradrop: Loradrop, redis_url: str, command: tuple[str, ...]
) -> None:
    evil = Reason("weights_truncated", "\x1b]0;title\x07 \x1b[2J \x9b2J \x7f \u202e \r over.")
    odd = an_adapter("odd", revision=None, state=AdapterState.REJECTED, reason=evil)
    async with fleet(redis_url, disk={"odd": odd}) as (watcher, [worker, _]):
        watcher.degraded = worker.degraded = evil
        await watcher.report()
        await worker.report()
        result = await loradrop(*command)
    shown = result.output.replace("\x1b[31m", "").replace("\x1b[0m", "").replace("\n", "")
    assert "over." in shown
    assert shown.isprintable()


async def test_where_no_catalog_is_yet_it_says_what_to_start(loradrop: Loradrop) -> None:
    result = await loradrop("ls")
    assert result.exit_code == 3
    assert "loradrop watch" in result.stderr
