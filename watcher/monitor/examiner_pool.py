"""Examinations and scans under way in threads: how many may run, and how long the disk keeps them waiting."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

from loradrop.watcher.monitor.batch import BatchResult, Examiner
from loradrop.watcher.monitor.concurrency_limit import ConcurrencyLimit
from loradrop.watcher.monitor.evaluation import ExamineRequest
from loradrop.watcher.prefix.scan import Scan

THREADS = "loradrop-disk"
"""How the names of all threads begin that read the disk, and may hang there."""

_BUDGET_SECONDS = 0.05

_Result = TypeVar("_Result")


class ExaminerPool:
    """Runs examinations and scans. Invariant: one thread is left for what is hinted, and one for a scan."""

    def __init__(self, examiner: Examiner, threads: int) -> None:
        """Examine with `examiner` in up to `threads` threads at once."""
        self._examiner = examiner
        self._threads = threads
        self._limit = ConcurrencyLimit(threads - 1)
        self._examiners = ThreadPoolExecutor(threads, thread_name_prefix=THREADS)
        # One thread for all scans: of many, each would keep a heap of its own.
        self._scanner = ThreadPoolExecutor(1, thread_name_prefix=f"{THREADS}-scan")
        self._began: dict[object, float] = {}
        self._examining = 0

    def has_room(self, *, hinted: bool) -> bool:
        """Return whether another batch may begin, of hinted names or of any."""
        return self._examining < (self._threads if hinted else self._limit.current)

    def longest_seconds(self) -> float:
        """Return how long the oldest examination or scan has been under way."""
        now = time.monotonic()
        return now - min(self._began.values(), default=now)

    def examine(self, requests: Sequence[ExamineRequest]) -> asyncio.Future[BatchResult]:
        """Begin at once to examine some of `requests`, and return the future that tells."""
        self._examining += 1
        result = self._run(
            self._examiners, lambda: self._examiner.examine(requests, budget_seconds=_BUDGET_SECONDS)
        )
        result.add_done_callback(self._record)
        return result

    async def scan(self, work: Callable[[], Scan]) -> tuple[Scan, float]:
        """Return what `work` saw and how long it took, in seconds; raises DiscoveryError."""
        started = time.monotonic()
        return await self._run(self._scanner, work), time.monotonic() - started

    def close(self) -> None:
        """Begin nothing more; what hangs is left behind."""
        for executor in (self._examiners, self._scanner):
            executor.shutdown(wait=False, cancel_futures=True)

    def _run(self, executor: Executor, work: Callable[[], _Result]) -> asyncio.Future[_Result]:
        token = object()
        self._began[token] = time.monotonic()
        future = asyncio.get_running_loop().run_in_executor(executor, work)
        future.add_done_callback(lambda _: self._began.pop(token))
        return future

    def _record(self, examined: asyncio.Future[BatchResult]) -> None:
        running, self._examining = self._examining, self._examining - 1
        if examined.cancelled() or examined.exception() is not None:
            return
        result = examined.result()
        self._limit.record(
            wall_seconds=result.wall_seconds,
            cpu_seconds=result.cpu_seconds,
            hashed_bytes=result.hashed_bytes,
            running=running,
        )
