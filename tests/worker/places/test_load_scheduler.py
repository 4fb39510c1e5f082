"""Which load may stop the engine, and when: one at a time, and no stream is left without a pause."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from loradrop.worker.places.load_scheduler import Demand, LoadScheduler, NotDesired
from loradrop.worker.places.timings import Timings
from testkit.waiting import wait_until
from tests.worker.ground import Clock

Turn = AbstractAsyncContextManager[None]


LONG_PAUSE = Timings(shortest_pause_seconds=3600.0, idle_poll_seconds=0.001)
SHORT_PAUSE = Timings(shortest_pause_seconds=0.01, idle_poll_seconds=0.001)


class _Engine:
    def __init__(self, timings: Timings) -> None:
        self.idle = True
        self.turns = LoadScheduler(lambda: self.idle, timings)
        self.had: list[str] = []
        self.wanted = True
        self.has_free_place = True
        self.asked_for_places = 0

    async def have(self, name: str, turn: Turn) -> None:
        async with turn:
            self.had.append(name)

    def background(self, asked: asyncio.Event | None = None, *, ahead: bool = False) -> Turn:
        demand = Demand(asked or asyncio.Event(), lambda: self.wanted)
        return self.turns.load(demand, ahead=lambda: ahead, place=self.has_place)

    def immediate(self) -> Turn:
        return self.turns.load(Demand.of_request(), ahead=lambda: True, place=self.has_place)

    async def has_place(self) -> bool:
        self.asked_for_places += 1
        return self.has_free_place


@pytest.fixture
def engine() -> _Engine:
    """An engine whose background loads pause for longer than any test."""
    return _Engine(LONG_PAUSE)


@asynccontextmanager
async def under_way(*work: object) -> AsyncIterator[list["asyncio.Task[None]"]]:
    """Start this work, let it come as far as it can at once, and end it in the end."""
    tasks = [asyncio.create_task(each) for each in work]  # type: ignore[arg-type]  # coroutines
    for _ in range(10):
        await asyncio.sleep(0)
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def test_the_engine_is_left_alone_for_as_long_as_it_was_stopped_and_never_shorter_than_a_few_tokens() -> None:
    timings = Timings()
    assert timings.pause_seconds(0.0) == timings.pause_seconds(0.1) == 0.1
    assert timings.pause_seconds(2.5) == 2.5


async def test_the_first_turn_in_the_background_needs_no_pause() -> None:
    engine = _Engine(Timings(clock=lambda: 0.0))
    await engine.have("first", engine.background())
    assert engine.had == ["first"]


async def test_a_turn_in_the_background_keeps_all_others_waiting_until_its_end(engine: _Engine) -> None:
    asked = asyncio.Event()
    asked.set()
    async with engine.background():
        others = (engine.immediate(), engine.turns.exclusive(), engine.background(asked))
        tasks = [asyncio.create_task(engine.have("other", turn)) for turn in others]
        for _ in range(10):
            await asyncio.sleep(0)
        assert engine.had == []
    await asyncio.gather(*tasks)
    assert engine.had == ["other"] * 3


async def test_between_two_turns_in_the_background_there_is_a_pause(engine: _Engine) -> None:
    async with under_way(*(engine.have(f"{number}", engine.background()) for number in range(3))) as tasks:
        assert engine.had == ["0"]
        assert not tasks[1].done()


async def test_after_the_pause_the_next_turn_comes() -> None:
    engine = _Engine(SHORT_PAUSE)
    await asyncio.gather(*(engine.have(f"{number}", engine.background()) for number in range(3)))
    assert sorted(engine.had) == ["0", "1", "2"]


async def test_a_load_that_a_request_waits_for_does_not_wait_for_a_pause(engine: _Engine) -> None:
    await engine.have("background", engine.background())
    async with under_way(engine.have("later", engine.background())):
        await engine.have("request", engine.immediate())
    assert engine.had == ["background", "request"]


async def test_a_turn_in_the_background_comes_at_once_when_a_request_asks_for_it(engine: _Engine) -> None:
    await engine.have("first", engine.background())
    asked = asyncio.Event()
    async with under_way(
        engine.have("other", engine.background()), engine.have("asked for", engine.background(asked))
    ) as (_, asked_for):
        asked.set()
        await asked_for
    assert engine.had == ["first", "asked for"]


async def test_an_immediate_turn_counts_for_the_pause_too(engine: _Engine) -> None:
    await engine.have("request", engine.immediate())
    async with under_way(engine.have("background", engine.background())):
        assert engine.had == ["request"]


async def test_what_does_not_stop_the_engine_neither_waits_for_a_pause_nor_asks_for_one(
    engine: _Engine,
) -> None:
    await engine.have("unload", engine.turns.exclusive())
    await engine.have("background", engine.background())
    await engine.have("unload", engine.turns.exclusive())
    assert engine.had == ["unload", "background", "unload"]


async def test_a_load_ahead_waits_until_no_request_is_under_way() -> None:
    engine = _Engine(SHORT_PAUSE)
    engine.idle = False
    async with under_way(engine.have("ahead", engine.background(ahead=True))) as (ahead,):
        await engine.have("update", engine.background())
        assert engine.had == ["update"], "an update is not ahead of anything"
        engine.idle = True
        await wait_until(ahead.done, timeout=5, description="the load ahead had its turn")
    assert engine.had == ["update", "ahead"]


async def test_a_load_ahead_that_a_request_asks_for_does_not_wait_for_an_idle_engine(engine: _Engine) -> None:
    engine.idle = False
    asked = asyncio.Event()
    async with under_way(engine.have("ahead", engine.background(asked, ahead=True))) as (ahead,):
        assert engine.had == []
        asked.set()
        await ahead
    assert engine.had == ["ahead"]


async def test_a_waiter_that_gives_up_keeps_no_other_from_its_turn(engine: _Engine) -> None:
    await engine.have("first", engine.background())
    async with under_way(engine.have("gives up", engine.background())):
        pass
    await engine.have("request", engine.immediate())
    assert engine.had == ["first", "request"]


@pytest.mark.parametrize("asked_for", [False, True])
async def test_what_is_not_wanted_any_more_when_its_turn_comes_has_none(
    engine: _Engine, asked_for: bool
) -> None:
    engine.idle = False
    asked = asyncio.Event()
    async with under_way(engine.have("ahead", engine.background(asked, ahead=True))) as (ahead,):
        engine.wanted = False
        if asked_for:
            asked.set()
        with pytest.raises(NotDesired):
            await ahead
    assert engine.had == []


async def test_the_pause_is_as_long_as_the_load_before_it_took() -> None:
    clock = Clock()
    clock.stop()
    engine = _Engine(Timings(shortest_pause_seconds=0.01, clock=clock))
    async with engine.immediate():
        clock.advance(0.3)
    checks: list[None] = []
    demand = Demand(asyncio.Event(), lambda: checks.append(None) is None)
    turn = engine.turns.load(demand, ahead=lambda: False, place=engine.has_place)
    async with under_way(engine.have("background", turn)) as (background,):
        clock.advance(0.2)
        before = len(checks)
        await wait_until(lambda: len(checks) > before, timeout=5, description="it has checked again")
        assert engine.had == []
        clock.advance(0.2)  # not 0.1: sums of the clock's own numbers may miss the end by a rounding
        await background
    assert engine.had == ["background"]
