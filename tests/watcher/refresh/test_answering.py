"""When a refresh is answered, with what, and what it makes the watcher do meanwhile."""

import asyncio
import time

import pytest

from loradrop.catalog.adapter import Reason
from loradrop.catalog.errors import CatalogUnavailable
from loradrop.catalog.events import RefreshRequest
from loradrop.catalog.status import RefreshStatus
from loradrop.watcher.monitor.scan_schedule import ScanFailure
from loradrop.watcher.refresh.handler import RefreshHandler
from loradrop.watcher.refresh.progress import Progress
from loradrop.watcher.state.prefix_state import PrefixState
from loradrop.watcher.state.removal import RemovalRule
from testkit.waiting import wait_until
from tests.catalog.values import an_adapter
from tests.watcher.refresh.test_handler import Inbox, Mirror, Monitor, request, taken

MISSING = Reason("prefix_missing", "It is not there.")


class Busy(Monitor):
    """Is still examining a name."""

    def pending(self) -> set[str]:
        return {"a0"}

    def is_open(self, name: str) -> bool:
        return True


class Slow(Monitor):
    """Lists on a disk that does not answer."""

    async def list_names(self) -> frozenset[str]:
        await asyncio.Event().wait()
        raise AssertionError("it never answers")


async def test_a_refresh_is_answered_once_with_what_is_served_then() -> None:
    monitor = Monitor()
    asked = request()
    handler, inbox = await taken(monitor, [asked])
    await handler.answer()
    assert inbox.answers == []
    monitor.scans_done = 1
    await handler.answer()
    await handler.answer()
    (result,) = inbox.answers
    assert (result.id, result.status, result.total, result.seq) == (asked.id, RefreshStatus.SCANNED, 100, 7)
    assert (monitor.scans, monitor.examined) == (1, [])


async def test_an_answer_that_could_not_be_written_is_written_later() -> None:
    handler, inbox = await taken(Monitor(), [request("a0")])
    inbox.is_away = True
    with pytest.raises(CatalogUnavailable):
        await handler.answer()
    assert handler.is_hurried("a0")
    inbox.is_away = False
    await handler.answer()
    assert (len(inbox.answers), handler.is_hurried("a0")) == (1, False)


async def test_what_changed_since_a_refresh_was_asked_for_is_its_answer() -> None:
    state, mirror, inbox = PrefixState("/srv/loras", RemovalRule()), Mirror(), Inbox([request()])
    monitor = Monitor()
    handler = RefreshHandler(inbox, monitor, state, mirror)  # type: ignore[arg-type]
    async with asyncio.TaskGroup() as session:
        task = session.create_task(handler.take_requests(session))
        await wait_until(lambda: inbox.is_drained, timeout=10, description="all requests are taken in")
        task.cancel()
    mirror.records |= {"new": an_adapter("new")}
    del mirror.records["a0"]
    monitor.scans_done = 1
    await handler.answer()
    (result,) = inbox.answers
    assert (result.discovered, result.removed) == (("new",), ("a0",))


async def test_a_refresh_whose_scan_fails_says_why_and_is_over() -> None:
    monitor = Monitor()
    handler, inbox = await taken(monitor, [request()])
    monitor.failure = ScanFailure(1, MISSING)  # type: ignore[assignment]
    await handler.answer()
    await handler.answer()
    (result,) = inbox.answers
    assert (result.status, result.error) == (RefreshStatus.FAILED, MISSING)
    assert not handler.is_hurried("a0")


async def test_a_failure_of_an_earlier_scan_is_no_answer_and_a_scan_has_to_tell() -> None:
    monitor = Monitor()
    monitor.scans_done = 1
    monitor.failure = ScanFailure(1, MISSING)  # type: ignore[assignment]
    handler, inbox = await taken(monitor, [request("a0")])
    assert (monitor.scans, monitor.examined) == (1, [])
    await handler.answer()
    assert inbox.answers == []
    monitor.failure = None
    monitor.scans_done = 2
    await handler.answer()
    assert [result.status for result in inbox.answers] == [RefreshStatus.SCANNED]


async def test_a_refresh_that_is_out_of_time_is_answered_as_it_stands() -> None:
    handler, inbox = await taken(Busy(), [request("a0", timeout_seconds=60.0)])
    await handler.answer()
    assert inbox.answers == []
    handler, inbox = await taken(Busy(), [request("a0", timeout_seconds=0.0)])
    await handler.answer()
    assert [result.status for result in inbox.answers] == [RefreshStatus.SCANNED]


async def test_the_first_deadline_counts_of_those_that_only_wait_for_names() -> None:
    before = time.monotonic()
    monitor = Busy()
    monitor.scans_done = 1
    requests = [request("a0", timeout_seconds=60.0), request("a1", "a0", timeout_seconds=30.0)]
    handler, _ = await taken(monitor, [*requests, request(timeout_seconds=5.0)])
    assert handler.next_due() is None
    await handler.answer()
    due = handler.next_due()
    assert due is not None
    assert before + 30.0 <= due <= time.monotonic() + 30.0


async def test_a_name_is_hurried_until_every_refresh_that_waits_for_it_is_answered() -> None:
    monitor = Monitor()
    handler, _ = await taken(monitor, [request("a0"), request()])
    await handler.answer()
    assert (handler.is_hurried("a0"), handler.is_hurried("a1")) == (True, True)
    monitor.scans_done = 1
    await handler.answer()
    assert (handler.is_hurried("a0"), handler.is_hurried("a1")) == (False, False)


async def test_a_scan_that_no_client_asked_for_is_followed_in_the_same_way() -> None:
    monitor = Busy()
    handler, _ = await taken(monitor)
    assert handler.advanced(Progress(1)).awaited is None
    monitor.scans_done = 1
    progress = handler.advanced(Progress(1))
    assert (progress.awaited, progress.is_over) == (("a0",), False)


async def test_what_is_under_way_when_the_lease_is_lost_is_left_to_the_next_leader() -> None:
    handler, inbox = await taken(Monitor(), [request("a0", confirm_removals=True)])
    handler.clear()
    assert (handler.is_hurried("a0"), handler.confirmed, handler.next_due()) == (False, False, None)
    await handler.answer()
    assert inbox.answers == []


async def test_a_dry_run_is_answered_without_scanning_examining_or_hurrying() -> None:
    monitor = Monitor()
    handler, inbox = await taken(monitor, [request("nothing", dry_run=True)])
    (result,) = inbox.answers
    assert (result.dry_run, result.status, result.seq) == (True, RefreshStatus.SCANNED, 7)
    assert (monitor.scans, monitor.examined, handler.is_hurried("nothing")) == (0, [], False)
    assert monitor.listings == 1


@pytest.mark.parametrize("patience", [0.01, 60.0])
async def test_where_listing_takes_longer_than_any_refresh_may_a_scan_has_to_tell(patience: float) -> None:
    monitor = Slow()
    await taken(monitor, [request("new", timeout_seconds=patience), request("newer", timeout_seconds=0.01)])
    assert (monitor.scans, monitor.examined) == (2, [])


async def test_requests_are_read_on_from_where_the_last_ones_ended() -> None:
    class Paged(Inbox):
        def __init__(self, *batches: list[RefreshRequest]) -> None:
            super().__init__(*batches)
            self.cursors: list[str] = []

        async def requests_after(self, cursor: str) -> tuple[str, list[RefreshRequest]]:
            self.cursors.append(cursor)
            _, requests = await super().requests_after(cursor)
            return f"{len(self.cursors)}-0", requests

    inbox = Paged([request("a0")], [request("a1")])
    handler = RefreshHandler(inbox, Monitor(), PrefixState("/p", RemovalRule()), Mirror())  # type: ignore[arg-type]
    async with asyncio.TaskGroup() as session:
        task = session.create_task(handler.take_requests(session))
        await wait_until(lambda: inbox.is_drained, timeout=10, description="all requests are taken in")
        task.cancel()
    assert inbox.cursors == ["0-0", "1-0", "2-0"]


async def test_a_read_that_loses_a_cancellation_is_cancelled_again() -> None:
    class Deaf(Inbox):
        cancellations = 0

        async def requests_after(self, cursor: str) -> tuple[str, list[RefreshRequest]]:
            while True:
                try:
                    self.is_drained = True
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    self.cancellations += 1
                    if self.cancellations == 2:
                        raise

    inbox = Deaf()
    handler = RefreshHandler(inbox, Monitor(), PrefixState("/p", RemovalRule()), Mirror())  # type: ignore[arg-type]
    async with asyncio.TaskGroup() as session:
        task = session.create_task(handler.take_requests(session))
        await wait_until(lambda: inbox.is_drained, timeout=10, description="it reads")
        task.cancel()
    assert (task.cancelled(), inbox.cancellations) == (True, 2)
