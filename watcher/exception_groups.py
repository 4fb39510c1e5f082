"""What ended a group of tasks."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_Error = TypeVar("_Error", bound=Exception)
_Result = TypeVar("_Result")


def first_of(group: BaseExceptionGroup[_Error]) -> _Error:
    """Return the first error of `group`, however deep it lies."""
    error = group.exceptions[0]
    return first_of(error) if isinstance(error, BaseExceptionGroup) else error


async def in_own_task(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Return what `work` returns, or raise what it raises; where this task is cancelled, both end.

    To be used around a group of tasks in a loop: where a task of a group fails while the group is cancelled,
    the group raises that error alone (CPython 3.11 and 3.12), and the loop would go on for ever.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task})
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    return task.result()
