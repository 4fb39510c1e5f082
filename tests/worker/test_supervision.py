"""Tasks that are kept running: after growing pauses, which begin anew once a task has lasted."""

import asyncio
import re
from itertools import pairwise

import pytest

from loradrop.catalog.backoff import Backoff
from loradrop.worker.supervision import supervised
from testkit.waiting import wait_until


async def pauses_of_a_task_that_breaks(
    caplog: pytest.LogCaptureFixture, backoff: Backoff, *, times: int
) -> list[str]:
    """Run a task that breaks `times` times; return the pauses that were logged."""
    runs: list[int] = []

    async def breaks() -> None:
        runs.append(1)
        if len(runs) > times:
            await asyncio.Event().wait()
        raise RuntimeError("our own fault")

    async with supervised({"breaks": breaks}, lambda: backoff):
        await wait_until(lambda: len(runs) > times, timeout=10, description="it runs once more")
    assert caplog.text.count("RuntimeError: our own fault") == times
    return re.findall(r"task broke, starting it again task=breaks pause=([0-9.]+)", caplog.text)


async def test_a_task_that_breaks_is_logged_and_runs_again_after_growing_pauses(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pauses = await pauses_of_a_task_that_breaks(caplog, Backoff(0.1, 60.0), times=3)
    assert pauses == ["0.1", "0.2", "0.4"]


async def test_a_task_that_had_lasted_is_started_again_as_soon_as_at_first(
    caplog: pytest.LogCaptureFixture,
) -> None:
    every_run_lasts = Backoff(0.1, 60.0, healthy_seconds=0.0)
    pauses = await pauses_of_a_task_that_breaks(caplog, every_run_lasts, times=3)
    assert all(one == other for one, other in pairwise(pauses))


async def test_a_task_that_breaks_disturbs_no_other_and_all_end_with_the_block() -> None:
    ended: list[str] = []

    async def breaks() -> None:
        raise RuntimeError("our own fault")

    async def goes_on() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("goes on")

    before = asyncio.all_tasks()
    async with supervised({"breaks": breaks, "goes on": goes_on}, lambda: Backoff(0.0, 0.0)):
        for _ in range(20):
            await asyncio.sleep(0)
        assert ended == []
    assert ended == ["goes on"]
    assert asyncio.all_tasks() == before
