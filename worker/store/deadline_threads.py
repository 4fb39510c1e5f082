"""Work on storage that may never answer: each piece in a daemon thread of its own, with a deadline.

A thread that hangs cannot be ended, only left behind: it keeps neither the event loop, nor the end of the
process, nor the next piece of work, and what it brings after all is given back. Not asyncio's own threads:
they are few, shared with vLLM, and waited for at the end. What hangs is not tried again until it comes back,
so that one adapter on dead storage does not use up the threads of all.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from loradrop.worker.outcomes import Failed

_MAX_HUNG = 16
"""More threads than this are not left behind: the storage is down, and each of them costs memory."""

_PATIENCE_SECONDS = 30.0
_SLOWEST_BYTES_PER_SECOND = 10e6
_LONGEST_SECONDS = 600.0

_Result = TypeVar("_Result")


def patience_seconds(size_bytes: int) -> float:
    """Return how long storage may take to read `size_bytes` before it is taken for hung.

    Half a minute, and what 10 MB/s take; but never more than ten minutes, since others wait for their turn.
    """
    return min(_PATIENCE_SECONDS + size_bytes / _SLOWEST_BYTES_PER_SECOND, _LONGEST_SECONDS)


class StorageThreads:
    """Keeps true: whoever waits for a piece of work waits no longer than it was given."""

    def __init__(self, doing: str, *, late: str, at_once: int) -> None:
        """Do up to `at_once` pieces at a time. `doing` says what they do, `late` is the code for too late."""
        self._doing = doing
        self._late = late
        self._turns = asyncio.Semaphore(at_once)
        self._hung: dict[Future[Any], str] = {}

    async def run(
        self,
        work: Callable[[threading.Event], _Result],
        *,
        about: str,
        seconds: float,
        discard: Callable[[_Result], object],
    ) -> _Result:
        """Return what `work` returns; it is given an event that is set once nobody waits for it any more.

        Raises what it raises, and Failed when it takes more than `seconds`, not counting the wait for its
        turn, when the last piece `about` the same still hangs, or too many do. What comes too late is given
        to `discard`.
        """
        async with self._turns:
            if about in self._hung.values() or len(self._hung) >= _MAX_HUNG:
                raise Failed("storage_hung", f"{self._doing} still hangs; check the storage.")
            return await self._run(work, about, seconds, discard)

    async def _run(
        self,
        work: Callable[[threading.Event], _Result],
        about: str,
        seconds: float,
        discard: Callable[[_Result], object],
    ) -> _Result:
        given_up = threading.Event()
        future: Future[_Result] = Future()
        future.set_running_or_notify_cancel()  # giving up on it must not end it for the thread

        def body() -> None:
            try:
                future.set_result(work(given_up))
            except BaseException as error:  # noqa: BLE001 - it is raised again where the future is awaited
                future.set_exception(error)

        def take_back(future: Future[_Result]) -> None:
            self._hung.pop(future, None)
            if future.exception() is None:
                discard(future.result())

        threading.Thread(target=body, name="loradrop-storage", daemon=True).start()
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            self._hung[future] = about
            future.add_done_callback(take_back)
            raise Failed(
                self._late, f"{self._doing} took more than {seconds:.0f} s; check the storage."
            ) from error
        except asyncio.CancelledError:
            future.add_done_callback(take_back)
            raise
        finally:
            given_up.set()
