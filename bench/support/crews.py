"""Crews: many clients of one Redis at once, in a few processes, let go at the same moment.

A task is a coroutine function; its first argument is the URL of the Redis. It says when it is in place, and
where it measures a start it waits for the word: `in_place` and `until_go`.
"""

import asyncio
import multiprocessing
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import redis
import redis.asyncio

from testkit.waiting import wait_until_sync

PROCESSES = 4
IN_PLACE = "bench:in-place"
GO = "bench:go"

_LEAD_SECONDS = 0.3
"""The word is given this long ahead, so that it has reached every client when it counts."""
_PATIENCE_SECONDS = 120

_Result = TypeVar("_Result")


async def in_place(client: "redis.asyncio.Redis") -> None:
    """Say that one more is where the measurement may begin."""
    await client.incr(IN_PLACE)


async def until_go(client: "redis.asyncio.Redis") -> None:
    """Say so, and return at the moment at which all are let go."""
    await in_place(client)
    while not (answer := await client.xread({GO: "0-0"}, block=1000)):
        pass
    at = float(answer[0][1][0][1][b"at"])
    await asyncio.sleep(max(0.0, at - time.monotonic()))


class Crew(Generic[_Result]):
    """`count` runs of one task."""

    def __init__(self, shares: "list[Future[list[_Result]]]", client: "redis.Redis", count: int) -> None:
        self._shares = shares
        self._client = client
        self._count = count

    def until_in_place(self) -> None:
        """Wait until all are in place; raises what broke one of them."""
        wait_until_sync(
            lambda: any(share.done() for share in self._shares) or self._in_place() == self._count,
            timeout=_PATIENCE_SECONDS,
            description=f"{self._count} are in place",
        )
        if self._in_place() < self._count:
            self.results()

    def go(self) -> float:
        """Let all go; return the moment (`time.monotonic`) at which they begin."""
        self.until_in_place()
        at = time.monotonic() + _LEAD_SECONDS
        self._client.xadd(GO, {"at": repr(at)})
        return at

    def results(self) -> list[_Result]:
        """Wait until all are done and return what each of them returned."""
        return [result for share in self._shares for result in share.result(timeout=_PATIENCE_SECONDS)]

    def _in_place(self) -> int:
        return int(self._client.get(IN_PLACE) or 0)


class Crews:
    """Starts one crew after another against the Redis at `url`."""

    def __init__(self, pool: ProcessPoolExecutor, url: str, client: "redis.Redis") -> None:
        """Run them in the processes of `pool`; `client` is for the words between them and us."""
        self.url = url
        self.client = client
        self._pool = pool

    def start(self, task: Callable[..., Awaitable[_Result]], count: int, *arguments: Any) -> Crew[_Result]:
        """Run `task(url, *arguments)` `count` times at once, spread over the processes."""
        self.client.delete(IN_PLACE, GO)
        shares = [len(range(start, count, PROCESSES)) for start in range(min(count, PROCESSES))]
        running = [self._pool.submit(_run, task, share, self.url, *arguments) for share in shares]
        return Crew(running, self.client, count)


@contextmanager
def crews(url: str) -> Iterator[Crews]:
    """Keep the processes, their imports done, for the length of the block."""
    # One more process, for what a crew that fills the others answers to.
    pool = ProcessPoolExecutor(PROCESSES + 1, mp_context=multiprocessing.get_context("spawn"))
    with pool, redis.Redis.from_url(url) as client:
        yield Crews(pool, url, client)


def _run(task: Callable[..., Awaitable[_Result]], count: int, *arguments: Any) -> list[_Result]:
    async def all_of_them() -> list[_Result]:
        return list(await asyncio.gather(*(task(*arguments) for _ in range(count))))

    return asyncio.run(all_of_them())
