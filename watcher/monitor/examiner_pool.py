"""The looks under way in threads: how many may run, and for how long the disk has not answered them."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

from loradrop.watcher.monitor.batch import Answers, Examiner
from loradrop.watcher.monitor.concurrency_limit import Pace
from loradrop.watcher.monitor.evaluation import Question
from loradrop.watcher.prefix.scan import Scan

THREADS = "look"
"""How the names of all threads begin that read the disk, and may hang there."""

_BUDGET_SECONDS = 0.05

_Result = TypeVar("_Result")


class Batches:
    """Runs examinations and scans. Keeps true: one thread is left for what is hinted, one for a scan."""

    def __init__(self, examiner: Examiner, threads: int) -> None:
        """Examine with `examiner` in up to `threads` threads at once."""
        self._examiner = examiner
        self._threads = threads
        self._pace = Pace(threads - 1)
        self._examiners = ThreadPoolExecutor(threads, thread_name_prefix=THREADS)
        # One thread for all scans: of many, each would keep a heap of its own.
        self._scanner = ThreadPoolExecutor(1, thread_name_prefix=f"{THREADS}-scan")
        self._began: dict[object, float] = {}
        self._examining = 0

    def has_room(self, *, hinted: bool) -> bool:
        """Return whether another batch may begin, of hinted names or of any."""
        return self._examining < (self._threads if hinted else self._pace.width)

    def longest_seconds(self) -> float:
        """Return for how long the oldest look under way has been waiting for the disk."""
        now = time.monotonic()
        return now - min(self._began.values(), default=now)

    def examine(self, questions: Sequence[Question]) -> asyncio.Future[Answers]:
        """Begin at once to examine some of `questions`, and return the future that tells."""
        self._examining += 1
        answers = self._run(
            self._examiners, lambda: self._examiner.examine(questions, budget_seconds=_BUDGET_SECONDS)
        )
        answers.add_done_callback(self._learn)
        return answers

    async def scan(self, look: Callable[[], Scan]) -> tuple[Scan, float]:
        """Return what `look` saw and how long it took, in seconds; raises DiscoveryError."""
        started = time.monotonic()
        return await self._run(self._scanner, look), time.monotonic() - started

    def close(self) -> None:
        """Begin nothing more; what hangs is left behind."""
        for executor in (self._examiners, self._scanner):
            executor.shutdown(wait=False, cancel_futures=True)

    def _run(self, executor: Executor, look: Callable[[], _Result]) -> asyncio.Future[_Result]:
        token = object()
        self._began[token] = time.monotonic()
        future = asyncio.get_running_loop().run_in_executor(executor, look)
        future.add_done_callback(lambda _: self._began.pop(token))
        return future

    def _learn(self, examined: asyncio.Future[Answers]) -> None:
        running, self._examining = self._examining, self._examining - 1
        if examined.cancelled() or examined.exception() is not None:
            return
        answers = examined.result()
        self._pace.learn(
            wall_seconds=answers.wall_seconds,
            cpu_seconds=answers.cpu_seconds,
            hashed_bytes=answers.hashed_bytes,
            running=running,
        )
