"""`loradrop refresh`: ask for a look, and know when every worker knows."""

import json
import shutil
from pathlib import Path

import httpx

from loradrop.catalog.adapter import AdapterState, Reason
from loradrop.catalog.store import Connection
from loradrop.watcher.state.removal import RemovalRule
from loradrop.watcher.state.settle import SettleRule
from testkit.adapters import write_adapter
from tests.catalog.fleet import fleet
from tests.catalog.values import TRUNCATED, an_adapter, revision
from tests.cli.conftest import Loradrop
from tests.watcher.running import watching

GOOD = an_adapter("good")
BAD = an_adapter("bad", revision=None, state=AdapterState.REJECTED, reason=TRUNCATED)


async def test_it_says_what_was_found_and_that_every_worker_knows(loradrop: Loradrop, redis_url: str) -> None:
    before = {"changed": an_adapter("changed"), "old": an_adapter("old")}
    async with fleet(redis_url, disk=before) as (watcher, _):
        watcher.disk = {"good": GOOD, "bad": BAD, "changed": an_adapter("changed", revision=revision("b"))}
        result = await loradrop("refresh")
    assert result.exit_code == 0
    assert result.output.startswith(
        "Successfully refreshed LoRA discovery. Found 2 total adapters, 1 newly discovered.\n"
    )
    rows = [line.split()[:3] for line in result.output.splitlines()]
    assert ["good", "discovered"] in rows
    assert ["changed", "updated"] in rows
    assert ["old", "removed"] in rows
    assert ["bad", "rejected", "weights_truncated:"] in rows
    assert result.output.endswith("converged: 2 of 2 workers know\n")


async def test_a_mass_removal_that_is_held_back_is_made_when_the_operator_confirms_it(
    loradrop: Loradrop, connection: Connection, tmp_path: Path
) -> None:
    for name in ("a", "b", "c", "d", "e", "kept"):
        write_adapter(tmp_path / name)
    rules = {"removal": RemovalRule(grace_seconds=0.1, mass_grace_seconds=600)}
    async with watching(connection, tmp_path, settle=SettleRule(settle_seconds=0), **rules) as catalog:
        await catalog.until_served({"a", "b", "c", "d", "e", "kept"})
        for name in ("a", "b", "c", "d", "e"):
            shutil.rmtree(tmp_path / name)
        await catalog.until_degraded("mass_removal")
        assert "removed" not in (await loradrop("refresh")).output
        result = await loradrop("refresh", "--confirm-removals")
        await catalog.until_served({"kept"})
    assert result.exit_code == 0
    assert [line.split()[:2] for line in result.output.splitlines() if " removed " in line] == [
        [name, "removed"] for name in ("a", "b", "c", "d", "e")
    ]


async def test_a_name_asked_for_that_is_not_ready_is_a_no(loradrop: Loradrop, redis_url: str) -> None:
    async with fleet(redis_url, disk={"good": GOOD, "bad": BAD}):
        assert (await loradrop("refresh", "good")).exit_code == 0
        result = await loradrop("refresh", "good", "bad", "a/b")
    assert result.exit_code == 1
    assert f"bad: rejected, {TRUNCATED}" in result.stderr
    assert "a/b: not under the prefix" in result.stderr
    assert "good" not in result.stderr


async def test_a_name_asked_for_that_was_removed_is_a_yes(loradrop: Loradrop, redis_url: str) -> None:
    async with fleet(redis_url, disk={"old": an_adapter("old")}) as (watcher, _):
        watcher.disk = {}
        result = await loradrop("refresh", "old")
    assert result.exit_code == 0
    assert ["old", "removed"] in [line.split() for line in result.output.splitlines()]


async def test_when_time_runs_out_it_says_who_does_not_know(loradrop: Loradrop, redis_url: str) -> None:
    async with fleet(redis_url) as (watcher, [_, slow]):
        slow.paused = True
        watcher.disk = {"good": GOOD}
        result = await loradrop("refresh", "--timeout", "0.3")
        assert result.exit_code == 1
        assert slow.id in result.stderr
        watcher.deaf = True
        result = await loradrop("refresh", "--timeout", "0.1")
    assert result.exit_code == 1
    assert "before the watcher answered" in result.stderr


async def test_a_dry_run_says_so_and_changes_nothing(loradrop: Loradrop, redis_url: str) -> None:
    async with fleet(redis_url) as (watcher, _):
        watcher.disk = {"good": GOOD}
        result = await loradrop("refresh", "--dry-run", "--json")
        body = json.loads(result.stdout)
        assert (body["discovered_adapters"], result.exit_code) == (["good"], 0)
        assert "nothing was changed" in body["message"]
        assert json.loads((await loradrop("ls", "--json")).stdout)["data"] == []


async def test_names_that_are_too_many_to_list_are_counted(loradrop: Loradrop, redis_url: str) -> None:
    names = [f"{'long' * 50}-{number:03}" for number in range(400)]  # 80 KiB, and a list has 64
    async with fleet(redis_url) as (watcher, _):
        watcher.disk = {name: an_adapter(name) for name in names}
        answer = json.loads((await loradrop("refresh", "--dry-run", "--json")).stdout)
        listed, omitted = answer["discovered_adapters"], answer["omitted"]["discovered_adapters"]
        assert len(listed) + omitted == len(names)
        assert f"… and {omitted} more" in (await loradrop("refresh", "--dry-run")).stdout


async def test_without_waiting_it_says_where_to_look(loradrop: Loradrop, redis_url: str) -> None:
    async with fleet(redis_url) as (watcher, _):
        watcher.deaf = True
        result = await loradrop("refresh", "--no-wait")
        assert result.exit_code == 0
        async with httpx.AsyncClient() as client:
            answer = await client.get(result.output.split()[-1])
    assert answer.json()["status"] == "pending"


async def test_a_prefix_that_cannot_be_read_is_a_no(loradrop: Loradrop, redis_url: str) -> None:
    async with fleet(redis_url) as (watcher, _):
        watcher.unreadable = Reason("prefix_unreadable", "/srv/loras is not there; mount it.")
        result = await loradrop("refresh")
    assert result.exit_code == 1
    assert result.stderr == "/srv/loras is not there; mount it.\n"


async def test_without_a_watcher_there_is_no_answer(loradrop: Loradrop) -> None:
    result = await loradrop("refresh")
    assert result.exit_code == 3
    assert "loradrop watch" in result.stderr


async def test_a_time_that_cannot_be_is_a_usage_error(loradrop: Loradrop) -> None:
    assert (await loradrop("refresh", "--timeout", "-1")).exit_code == 2
