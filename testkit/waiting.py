"""How tests and benchmarks wait: for a state, never for a time."""

import asyncio
import time
from collections.abc import Awaitable, Callable

_PAUSE_SECONDS = 0.005


async def wait_until(
    predicate: Callable[[], bool | Awaitable[bool]], *, timeout: float, description: str
) -> float:
    """Return the seconds it took until `predicate` was true; fails after `timeout` seconds."""
    start = time.monotonic()
    while True:
        outcome = predicate()
        if isinstance(outcome, Awaitable):
            outcome = await outcome
        if outcome:
            return time.monotonic() - start
        if time.monotonic() - start > timeout:
            raise AssertionError(f"Not within {timeout} s: {description}")
        await asyncio.sleep(_PAUSE_SECONDS)  # the one pause between looks


def wait_until_sync(predicate: Callable[[], bool], *, timeout: float, description: str) -> float:
    """Do the same where there is no event loop."""
    start = time.monotonic()
    while not predicate():
        if time.monotonic() - start > timeout:
            raise AssertionError(f"Not within {timeout} s: {description}")
        time.sleep(_PAUSE_SECONDS)  # the one pause between looks
    return time.monotonic() - start
