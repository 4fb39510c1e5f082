"""Refreshes are bounded in work: what nothing of is known or listed costs one listing for many of them."""

import asyncio
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest

from loradrop.catalog.errors import CatalogUnavailable, DiscoveryError
from loradrop.catalog.events import RefreshRequest
from loradrop.watcher.prefix.findings import RootIdentity
from loradrop.watcher.refresh.handler import RefreshHandler
from loradrop.watcher.state.prefix_state import PrefixState
from loradrop.watcher.state.removal import RemovalRule
from testkit.waiting import wait_until
from tests.catalog.values import an_adapter

KNOWN = [f"a{number}" for number in range(100)]
LISTED = frozenset({*KNOWN, "new", ".hidden", "new.tmp"})


class Inbox:
    """Requests as they are read from Redis, some at a time, and what they are answered."""

    def __init__(self, *batches: list[RefreshRequest]) -> None:
        self.batches = list(batches)
        self.answers: list[Any] = []
        self.is_drained = False
        self.is_away = False

    async def requests_after(self, cursor: str) -> tuple[str, list[RefreshRequest]]:
        if not self.batches:
            self.is_drained = True
            await asyncio.Event().wait()
        return cursor, self.batches.pop(0)

    async def answer(self, result: Any) -> None:
        if self.is_away:
            raise CatalogUnavailable("Redis does not answer.")
        self.answers.append(result)


class Monitor:
    """Counts the work it is asked for."""

    def __init__(self, listing: frozenset[str] | None = LISTED) -> None:
        self.listing = listing
        self.listings = 0
        self.scans = 0
        self.examined: list[str] = []
        self.asked_pending = 0
        self.scans_done = 0
        self.failure = None

    async def list_names(self) -> frozenset[str]:
        self.listings += 1
        if self.listing is None:
            raise DiscoveryError("The prefix cannot be read.")
        return self.listing

    def want_scan(self) -> int:
        self.scans += 1
        return self.scans_done + 1

    def examine_soon(self, names: Iterable[str]) -> None:
        self.examined += names

    def pending(self) -> set[str]:
        self.asked_pending += 1
        return set()

    def is_open(self, name: str) -> bool:
        return False


class Mirror:
    seq = 7

    def __init__(self) -> None:
        self.records = {name: an_adapter(name) for name in KNOWN}
        self.served_count = len(KNOWN)

    def served(self) -> dict[str, Any]:
        return {name: record.revision for name, record in self.records.items()}


def request(*names: str, **options: Any) -> RefreshRequest:
    return RefreshRequest(id=secrets.token_hex(4), at=datetime.now(UTC), names=names, **options)


def unknown(count: int) -> list[str]:
    return [secrets.token_hex(8) for _ in range(count)]


async def taken(monitor: Monitor, *batches: list[RefreshRequest]) -> tuple[RefreshHandler, Inbox]:
    """Return the handler once it has taken all requests in."""
    state = PrefixState("/srv/loras", RemovalRule())
    state.begin_session(KNOWN)
    state.observe_root(RootIdentity(1, 1))
    inbox = Inbox(*batches)
    handler = RefreshHandler(inbox, monitor, state, Mirror())  # type: ignore[arg-type]
    async with asyncio.TaskGroup() as session:
        task = session.create_task(handler.take_requests(session))
        await wait_until(lambda: inbox.is_drained, timeout=10, description="all requests are taken in")
        task.cancel()
    return handler, inbox


async def test_names_of_which_nothing_is_there_cost_one_listing_for_all_that_were_asked_at_once() -> None:
    monitor = Monitor()
    handler, inbox = await taken(monitor, [request(*unknown(900)) for _ in range(60)])
    assert (monitor.listings, monitor.scans, monitor.examined) == (1, 0, [])
    await handler.answer()
    assert len(inbox.answers) == 60
    assert monitor.asked_pending <= 1


async def test_a_name_that_is_listed_and_not_known_yet_is_examined() -> None:
    monitor = Monitor()
    await taken(monitor, [request("new", ".hidden", "new.tmp", "../new", "nothing")])
    assert monitor.examined == ["new"]


async def test_known_names_are_examined_without_a_listing() -> None:
    monitor = Monitor()
    await taken(monitor, [request("a0", "a1")])
    assert (sorted(monitor.examined), monitor.listings) == (["a0", "a1"], 0)
    await taken(monitor, [request(*KNOWN)])
    assert monitor.listings == 0


async def test_a_refresh_of_very_many_names_scans_instead_and_is_still_answered_for_those_alone() -> None:
    monitor = Monitor()
    handler, inbox = await taken(monitor, [request(*unknown(10_000), "a0") for _ in range(60)])
    assert (monitor.listings, monitor.examined) == (0, [])
    await handler.answer()
    assert inbox.answers == []
    monitor.scans_done = 1
    await handler.answer()
    assert len(inbox.answers) == 60
    assert {(result.discovered, result.removed, result.total) for result in inbox.answers} == {((), (), 100)}


async def test_up_to_a_thousand_names_are_examined_one_by_one() -> None:
    monitor = Monitor()
    await taken(monitor, [request(*unknown(1_000))])
    assert (monitor.listings, monitor.scans) == (1, 0)
    await taken(monitor, [request(*unknown(1_001))])
    assert (monitor.listings, monitor.scans) == (1, 1)


@pytest.mark.parametrize("confirm", [False, True])
async def test_only_names_a_refresh_waits_for_are_hurried_and_only_the_operators_word_confirms(
    confirm: bool,
) -> None:
    handler, _ = await taken(Monitor(), [request("a0", confirm_removals=confirm)])
    assert (handler.is_hurried("a0"), handler.is_hurried("a1"), handler.confirmed) == (True, False, confirm)
    await handler.answer()
    assert (handler.is_hurried("a0"), handler.confirmed) == (False, False)
    everything, _ = await taken(Monitor(), [request()])
    assert everything.is_hurried("a1")
    everything.clear()
    assert not everything.is_hurried("a1")


async def test_where_the_prefix_cannot_be_listed_a_scan_has_to_tell() -> None:
    monitor = Monitor(listing=None)
    await taken(monitor, [request("new")])
    assert (monitor.scans, monitor.examined) == (1, [])
