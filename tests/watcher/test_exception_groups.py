"""A task that is cancelled ends, also where a task of its group fails at that moment."""

import asyncio

import pytest

from loradrop.watcher.exception_groups import first_of, in_own_task


async def fail_when_cancelled(started: asyncio.Event) -> None:
    started.set()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise ValueError("as a write that is refused at that moment") from None


async def keep_trying(started: asyncio.Event) -> None:
    while True:
        await in_own_task(keep_failing(started))


async def keep_failing(started: asyncio.Event) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail_when_cancelled(started))
    except* ValueError:
        pass


async def test_a_loop_around_a_group_that_fails_while_it_is_cancelled_ends() -> None:
    started = asyncio.Event()
    task = asyncio.create_task(keep_trying(started))
    await started.wait()
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=10)
    assert done == {task}
    assert task.cancelled()


async def test_what_work_in_a_task_of_its_own_returns_or_raises_is_passed_on() -> None:
    assert await in_own_task(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(ValueError, match="refused"):
        await in_own_task(fail())


async def fail() -> None:
    raise ValueError("refused")


def test_the_first_error_is_found_however_deep_it_lies() -> None:
    error = ValueError("first")
    group = ExceptionGroup("outer", [ExceptionGroup("inner", [error, ValueError("second")])])
    assert first_of(group) is error
