"""`loradrop status`: is everything there and in step?"""

import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import closing, suppress

import pytest

from loradrop.catalog.adapter import Reason
from testkit.servers import free_port
from testkit.waiting import wait_until
from tests.api.processes import ApiProcess
from tests.catalog.fleet import fleet
from tests.catalog.values import an_adapter
from tests.cli.conftest import Loradrop


async def test_a_fleet_in_step_is_a_yes(loradrop: Loradrop, redis_url: str) -> None:
    async with fleet(redis_url, disk={"good": an_adapter("good")}) as (watcher, [first, second]):
        result = await loradrop("status")
    assert result.exit_code == 0
    assert result.output.startswith("ready\n")
    assert f"epoch {watcher.publisher.lease.epoch}  seq 1" in result.output
    assert "watcher-1  inotify  /srv/loras" in result.output
    for worker in (first, second):
        [line] = [line for line in result.output.splitlines() if line.startswith(worker.id)]
        words = f"{worker.id} tiny-llama http://{worker.id} 1 0 listed 1".split()
        assert line.split()[: len(words)] == words


async def test_a_worker_that_is_behind_is_a_no_and_named(loradrop: Loradrop, redis_url: str) -> None:
    async with fleet(redis_url) as (watcher, [_, slow]):
        slow.paused = True
        watcher.disk = {"good": an_adapter("good")}
        await watcher.scan()
        result = await loradrop("status")
    assert result.exit_code == 1
    assert "Behind the catalog:" in result.output
    assert slow.id in result.output.splitlines()[-1]


async def test_a_degraded_watcher_is_a_no_that_says_why(loradrop: Loradrop, redis_url: str) -> None:
    async with fleet(redis_url) as (watcher, _):
        watcher.degraded = Reason("inotify_limit", "Raise fs.inotify.max_user_watches.")
        await watcher.report()
        result = await loradrop("status")
    assert result.exit_code == 1
    assert result.output.startswith("ready\n")
    assert "Raise fs.inotify.max_user_watches." in result.output


async def test_a_degraded_worker_is_a_no_that_names_it(loradrop: Loradrop, redis_url: str) -> None:
    async with fleet(redis_url) as (_, [_, poisoned]):
        poisoned.degraded = Reason("nan_logits", "Restart it.")
        await poisoned.report()
        result = await loradrop("status")
    assert result.exit_code == 1
    assert f"The worker {poisoned.id} is degraded: Restart it." in result.output


async def test_without_a_watcher_it_is_a_no_that_says_what_to_start(loradrop: Loradrop) -> None:
    result = await loradrop("status")
    assert result.exit_code == 1
    assert result.output.startswith("not ready\n")
    assert "loradrop watch" in result.output
    assert "workers  none" in result.output


async def test_programs_get_one_document(loradrop: Loradrop, redis_url: str) -> None:
    async with fleet(redis_url) as (_, [first, second]):
        result = await loradrop("status", "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["ready"]
    assert document["watcher"]["id"] == "watcher-1"
    assert [worker["id"] for worker in document["workers"]] == [first.id, second.id]


async def test_a_status_asked_of_another_server_says_so(loradrop: Loradrop, any_server: str) -> None:
    result = await loradrop("status", "--api-url", f"{any_server}|200|{{}}|")
    assert result.exit_code == 3
    assert "is not a loradrop API" in result.stderr


class Watching:
    """`loradrop status --watch` in a terminal of its own; what it shows is in `output`."""

    def __init__(self, url: str, *arguments: str) -> None:
        self._terminal, inside = pty.openpty()
        os.set_blocking(self._terminal, False)
        self.output = ""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "loradrop.cli", "status", "--watch", *arguments],
            env=os.environ | {"LORADROP_API_URL": url, "COLUMNS": "200", "LINES": "50", "TERM": "xterm"},
            stdin=subprocess.DEVNULL,
            stdout=inside,
            stderr=inside,
        )
        os.close(inside)

    def shows(self, text: str, *, times: int = 1) -> bool:
        with suppress(OSError):  # nothing more for now, or for ever
            self.output += os.read(self._terminal, 1 << 20).decode(errors="replace")
        return self.output.count(text) >= times

    def interrupt(self) -> int:
        """Press Ctrl-C, and return the exit code."""
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(10)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._terminal)


@pytest.mark.parametrize("arguments", [(), ("--json",)])
async def test_a_watch_shows_what_changes_until_it_is_interrupted(
    api: ApiProcess, redis_url: str, arguments: tuple[str, ...]
) -> None:
    async with fleet(redis_url) as (watcher, _):
        with closing(Watching(api.url, *arguments)) as watching:
            await wait_until(
                lambda: watching.shows("gpu-2:8000"), timeout=20, description="it shows the workers"
            )
            watcher.degraded = Reason("inotify_limit", "Raise it.")
            await watcher.report()
            await wait_until(
                lambda: watching.shows("Raise it."), timeout=20, description="it shows what changed"
            )
            assert watching.interrupt() == 0
            assert not watching.shows("Traceback")


@pytest.mark.parametrize("arguments", [(), ("--json",)])
async def test_a_watch_outlives_the_api_it_watches(arguments: tuple[str, ...]) -> None:
    with closing(Watching(f"http://127.0.0.1:{free_port()}", *arguments)) as watching:
        await wait_until(
            lambda: watching.shows("No answer from an API", times=2), timeout=20, description="it asks again"
        )
        assert watching.interrupt() == 0
