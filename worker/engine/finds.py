"""What each request under way has found in vLLM's table of served names, until its answer has been sent.

vLLM looks a name up when a request arrives, again once it is tokenised, and only then starts it. In between
it is in no list, and the revision it found must stay loaded. For example, room is made while it starts:

    request     "sql" in table       finds A: A is not unloaded until the request has ended
    worker      withdraws "sql"      later requests do not find it
    request     table["sql"]         still A
    request     starts, ends         A may be unloaded

A request is an asyncio task: the one that `RequestTask` notes, which all tasks that vLLM starts for it
inherit, or the current one outside HTTP.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Message, _Receive, _Send], Awaitable[None]]

_request_task: ContextVar["asyncio.Task[Any] | None"] = ContextVar("loradrop_request_task", default=None)

_Found = TypeVar("_Found")


class RequestTask:
    """ASGI middleware: what is found inside belongs to the whole HTTP request, streamed answer included."""

    def __init__(self, app: _App) -> None:
        """Wrap `app`."""
        self._app = app

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answer one request."""
        _request_task.set(asyncio.current_task())
        await self._app(scope, receive, send)


@dataclass(slots=True)
class _OfRequest(Generic[_Found]):
    by_name: dict[str, _Found] = field(default_factory=dict)
    ids: set[int] = field(default_factory=set)


class Finds(Generic[_Found]):
    """Invariant: what a request has found is held until the request has ended."""

    def __init__(self) -> None:
        self._requests: dict[asyncio.Task[Any], _OfRequest[_Found]] = {}

    def note(self, name: str, found: _Found, lora_id: int) -> None:
        """Record what the request of the current task found under `name`."""
        self.note_id(lora_id)
        of_request = self._of_current()
        if of_request is not None:
            of_request.by_name[name] = found

    def note_id(self, lora_id: int) -> None:
        """Record that the request of the current task uses `lora_id`."""
        task = _current_request()
        if task is None:
            return
        if task not in self._requests:
            self._requests[task] = _OfRequest()
            task.add_done_callback(self._requests.pop)
        self._requests[task].ids.add(lora_id)

    def found(self, name: str) -> _Found | None:
        """Return what the request of the current task found under `name` before, or None."""
        of_request = self._of_current()
        return of_request.by_name.get(name) if of_request is not None else None

    def forget(self, name: str) -> None:
        """Let no request find `name` again; what they have found is held as before."""
        for of_request in self._requests.values():
            of_request.by_name.pop(name, None)

    def ids(self) -> frozenset[int]:
        """Return the ids that requests under way have found."""
        return frozenset().union(*(of_request.ids for of_request in self._requests.values()))

    def _of_current(self) -> _OfRequest[_Found] | None:
        task = _current_request()
        return self._requests.get(task) if task is not None else None


def _current_request() -> "asyncio.Task[Any] | None":
    """Return the task that stands for the request; work that outlives its request stands for itself."""
    task = _request_task.get()
    if task is not None and not task.done():
        return task
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop: nothing is under way
        return None
