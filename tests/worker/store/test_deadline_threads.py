"""Work on storage that may never answer: no caller waits for ever, and what comes late is given back."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from loradrop.worker.outcomes import Failed
from loradrop.worker.store.deadline_threads import DeadlineThreads
from testkit.waiting import wait_until


class _Storage:
    """Storage that answers once it is thawed."""

    def __init__(self) -> None:
        self.waiting = 0
        self.told_to_stop: list[bool] = []
        self._thawed = threading.Event()

    def read(self, given_up: threading.Event) -> str:
        self.waiting += 1
        self._thawed.wait(30)
        self.told_to_stop.append(given_up.is_set())
        return "late"

    def thaw(self) -> None:
        self._thawed.set()


@pytest.fixture
def storage() -> Iterator[_Storage]:
    storage = _Storage()
    yield storage
    storage.thaw()


@pytest.fixture
def threads() -> DeadlineThreads:
    return DeadlineThreads("Reading", late="read_timed_out", at_once=1)


async def until_answered(threads: DeadlineThreads, about: str) -> None:
    """Wait until work `about` something that hung is done again."""

    async def is_answered() -> bool:
        try:
            return await threads.run(lambda _: True, about=about, seconds=5, discard=print)
        except Failed:
            return False

    await wait_until(is_answered, timeout=5, description="the thread has ended")


async def test_what_work_returns_is_returned_and_kept(threads: DeadlineThreads) -> None:
    discarded: list[str] = []
    assert await threads.run(lambda _: "done", about="sql", seconds=5, discard=discarded.append) == "done"
    assert discarded == []


async def test_what_work_raises_is_raised(threads: DeadlineThreads) -> None:
    def broken(given_up: threading.Event) -> str:
        raise OSError("Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        await threads.run(broken, about="sql", seconds=5, discard=print)


async def test_work_that_comes_too_late_is_a_failure_and_its_result_is_discarded(
    threads: DeadlineThreads, storage: _Storage
) -> None:
    discarded: list[str] = []
    with pytest.raises(Failed, match=r"read_timed_out: Reading took more than 0 s"):
        await threads.run(storage.read, about="sql", seconds=0.01, discard=discarded.append)
    assert discarded == []
    storage.thaw()
    await wait_until(lambda: discarded == ["late"], timeout=5, description="it came, and was discarded")
    assert storage.told_to_stop == [True]


async def test_work_whose_waiter_went_away_is_discarded(threads: DeadlineThreads, storage: _Storage) -> None:
    discarded: list[str] = []
    waiter = asyncio.create_task(threads.run(storage.read, about="sql", seconds=30, discard=discarded.append))
    await wait_until(lambda: storage.waiting == 1, timeout=5, description="the work is under way")
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    storage.thaw()
    await wait_until(lambda: discarded == ["late"], timeout=5, description="it came, and was discarded")


async def test_as_many_as_allowed_are_under_way_at_once(threads: DeadlineThreads, storage: _Storage) -> None:
    first, second = (
        asyncio.create_task(threads.run(storage.read, about="sql", seconds=30, discard=print))
        for _ in range(2)
    )
    await wait_until(lambda: storage.waiting == 1, timeout=5, description="one is under way")
    assert not second.done()
    storage.thaw()
    assert [await first, await second] == ["late", "late"]
    assert storage.waiting == 2


async def test_work_that_hangs_keeps_its_turn_no_longer_than_it_was_given(
    threads: DeadlineThreads, storage: _Storage
) -> None:
    with pytest.raises(Failed):
        await threads.run(storage.read, about="sql", seconds=0.01, discard=lambda _: None)
    assert await threads.run(lambda _: "next", about="code", seconds=5, discard=print) == "next"


async def test_when_too_many_hang_the_next_is_refused_at_once_until_one_comes_back(storage: _Storage) -> None:
    threads = DeadlineThreads("Reading", late="read_timed_out", at_once=1, max_hung=1)
    with pytest.raises(Failed):
        await threads.run(storage.read, about="sql", seconds=0.01, discard=lambda _: None)
    with pytest.raises(Failed, match="storage_hung: Reading still hangs"):
        await threads.run(lambda _: "next", about="code", seconds=5, discard=print)
    storage.thaw()
    await until_answered(threads, "code")


async def test_what_hangs_is_not_tried_again_until_it_comes_back(
    threads: DeadlineThreads, storage: _Storage
) -> None:
    with pytest.raises(Failed, match="read_timed_out"):
        await threads.run(storage.read, about="sql", seconds=0.01, discard=lambda _: None)
    for _ in range(20):
        with pytest.raises(Failed, match="storage_hung"):
            await threads.run(storage.read, about="sql", seconds=5, discard=print)
    assert storage.waiting == 1
    assert await threads.run(lambda _: "other", about="code", seconds=5, discard=print) == "other"
    storage.thaw()
    await until_answered(threads, "sql")


_HANGS_AND_ENDS = """
import asyncio, threading
from loradrop.worker.outcomes import Failed
from loradrop.worker.store.deadline_threads import DeadlineThreads

async def main():
    threads = DeadlineThreads("Reading", late="read_timed_out", at_once=1)
    try:
        await threads.run(lambda _: threading.Event().wait(), about="sql", seconds=0.01)
    except Failed as failed:
        print(failed.reason.code)

asyncio.run(main())
"""


def test_a_thread_that_hangs_does_not_keep_its_process_from_ending() -> None:
    command = [sys.executable, "-c", _HANGS_AND_ENDS]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "read_timed_out\n"
