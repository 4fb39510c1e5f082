"""What a request has found is held until it has ended, whichever of its tasks found it."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from loradrop.worker.engine.finds import Finds, RequestTask

Message = MutableMapping[str, Any]


async def through_http(answer: Callable[[], Awaitable[None]]) -> None:
    """Answer one HTTP request with `answer`."""

    async def app(_scope: Message, _receive: object, _send: object) -> None:
        await answer()

    async def nothing(*_message: Message) -> Message:
        return {}

    await RequestTask(app)({"type": "http"}, nothing, nothing)  # type: ignore[arg-type]  # it only sends


async def test_what_a_request_has_found_is_held_until_its_answer_has_been_sent() -> None:
    """As in vLLM, the task that looks the name up ends before the answer is streamed."""
    finds: Finds[str] = Finds()
    found, streamed = asyncio.Event(), asyncio.Event()

    async def look_up() -> None:
        finds.note("sql", "A", 7)

    async def answer() -> None:
        await asyncio.create_task(look_up())
        found.set()
        await streamed.wait()
        assert finds.found("sql") == "A"

    request = asyncio.create_task(through_http(answer))
    await found.wait()
    assert finds.ids() == {7}
    streamed.set()
    await request
    await asyncio.sleep(0)
    assert finds.ids() == frozenset()


async def test_a_request_finds_what_it_has_found_and_not_what_others_have() -> None:
    finds: Finds[str] = Finds()

    async def note() -> None:
        finds.note("sql", "A", 7)
        finds.note("sql", "B", 8)
        assert finds.found("sql") == "B"
        assert finds.ids() == {7, 8}

    await asyncio.create_task(note())
    assert finds.found("sql") is None


async def test_what_is_forgotten_is_not_found_and_held_as_before() -> None:
    finds: Finds[str] = Finds()
    finds.note("sql", "A", 7)
    finds.forget("sql")
    assert finds.found("sql") is None
    assert finds.ids() == {7}


async def test_work_that_outlives_its_request_stands_for_itself() -> None:
    finds: Finds[str] = Finds()
    started, ended = asyncio.Event(), asyncio.Event()
    background: list[asyncio.Task[None]] = []

    async def work() -> None:
        await started.wait()
        finds.note_id(7)
        await ended.wait()

    async def answer() -> None:
        background.append(asyncio.create_task(work()))

    await asyncio.create_task(through_http(answer))
    started.set()
    await asyncio.sleep(0.01)
    assert finds.ids() == {7}
    ended.set()
    await background[0]
    await asyncio.sleep(0)
    assert finds.ids() == frozenset()


def test_without_an_event_loop_nothing_is_held() -> None:
    finds: Finds[str] = Finds()
    finds.note("sql", "A", 7)
    assert finds.found("sql") is None
    assert finds.ids() == frozenset()
