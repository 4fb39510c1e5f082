"""Work on storage that may never answer: each call in a daemon thread of its own, with a deadline.

A thread that hangs cannot be ended, only abandoned: it delays neither the event loop, nor the end of the
process, nor the next call, and a result that arrives after all is discarded. Not asyncio's own threads: they
are few, shared with vLLM, and joined at exit. Work that hangs is not tried again until it returns, so that
one adapter on dead storage does not use up the threads of all.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from loradrop.worker.outcomes import Failed

_MAX_HUNG = 16
"""No more threads than this are abandoned: the storage is down, and each of them costs memory."""

_Result = TypeVar("_Result")


class DeadlineThreads:
    """Invariant: a caller waits for its work no longer than the deadline it gave."""

    def __init__(self, doing: str, *, late: str, at_once: int, max_hung: int = _MAX_HUNG) -> None:
        """Run up to `at_once` calls at a time, and abandon up to `max_hung` that hang.

        `doing` says in messages what they do; `late` is the reason code of a call that took too long.
        """
        self._doing = doing
        self._late = late
        self._max_hung = max_hung
        self._slots = asyncio.Semaphore(at_once)
        self._hung: dict[Future[Any], str] = {}

    async def run(
        self,
        work: Callable[[threading.Event], _Result],
        *,
        about: str,
        seconds: float,
        discard: Callable[[_Result], object] = lambda _: None,
    ) -> _Result:
        """Return what `work` returns; its argument is an event that is set once its result is not awaited.

        Raises what it raises, and Failed when it takes more than `seconds`, not counting the wait for a slot,
        when the last call `about` the same still hangs, or too many do. A result that comes too late is given
        to `discard`.
        """
        async with self._slots:
            if about in self._hung.values() or len(self._hung) >= self._max_hung:
                raise Failed("storage_hung", f"{self._doing} still hangs; check the storage.")
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
