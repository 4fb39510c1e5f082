"""Coroutines that run side by side until one fails."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def first_failure(*coroutines: Coroutine[Any, Any, None]) -> Exception:
    """Run `coroutines`, which never return, until one fails; stop the others, and return its error.

    A cancellation always comes through. A TaskGroup before Python 3.13 loses one where a task of it fails as
    it is cancelled, and a caller that takes the error for a reason to begin anew would then never stop.
    """
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    error = next(task for task in tasks if task in done).exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, Exception):
        return error
    raise error or RuntimeError("What was to go on for ever has returned.")
