"""Who may publish: a lease, a fence that grows, and an epoch that ends with the catalog it names."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from loradrop.catalog.adapter import Adapter
from loradrop.catalog.errors import LeaseHeld, LeaseLost
from loradrop.catalog.store import Connection, Publisher, Reader, Reports, Withdrawal
from testkit.waiting import wait_until
from tests.catalog.reading import ADAPTERS, EVENTS, META
from tests.catalog.values import TRUNCATED, a_watcher, an_adapter, revision

WATCHER = "loradrop:{default}:watcher"


@pytest.fixture
async def rival(redis_url: str) -> AsyncIterator[Publisher]:
    """Another watcher, on its own connection, that does not lead yet."""
    async with Connection(redis_url) as connection:
        yield Publisher(connection, owner="watcher-2")


async def publish(publisher: Publisher, *changes: Adapter | Withdrawal) -> int:
    return await publisher.publish(changes, catalog_size=len(changes))


async def test_before_it_leads_a_watcher_knows_nothing_of_the_catalog(rival: Publisher) -> None:
    assert (rival.seq, rival.root) == (0, "")
    with pytest.raises(LeaseLost, match="lead before"):
        await rival.complete()


async def test_leading_again_keeps_the_lease(publisher: Publisher) -> None:
    lease = publisher.lease
    assert await publisher.lead() == lease


async def test_a_lease_is_held_until_it_is_given_back(publisher: Publisher, rival: Publisher) -> None:
    with pytest.raises(LeaseHeld, match="watcher-1") as held:
        await rival.lead()
    assert held.value.owner == "watcher-1"
    await publisher.resign()
    lease = await rival.lead()
    assert lease.fence == "2"


async def test_without_a_lease_nothing_is_published(publisher: Publisher) -> None:
    await publisher.resign()
    with pytest.raises(LeaseLost):
        await publish(publisher, an_adapter())


async def test_giving_back_a_lease_that_another_has_taken_leaves_it_there(
    publisher: Publisher, rival: Publisher, raw: "Redis[str]"
) -> None:
    await rival.lead(presumed_dead="watcher-1")
    await publisher.resign()
    assert await raw.hget(WATCHER, "owner") == "watcher-2"


async def test_a_lease_runs_out_when_its_owner_falls_silent(
    publisher: Publisher, rival: Publisher, raw: "Redis[str]"
) -> None:
    assert 0 < await raw.pttl(WATCHER) <= 10_000
    await raw.pexpire(WATCHER, 20)

    async def taken_over() -> bool:
        try:
            await rival.lead()
        except LeaseHeld:
            return False
        return True

    await wait_until(taken_over, timeout=5, description="the rival leads")
    with pytest.raises(LeaseLost, match="taken over"):
        await publish(publisher, an_adapter())


async def test_an_owner_known_to_be_dead_is_taken_over_at_once_and_can_publish_nothing(
    publisher: Publisher, rival: Publisher, raw: "Redis[str]"
) -> None:
    await publish(publisher, an_adapter())
    lease = await rival.lead(presumed_dead="watcher-1")
    assert (lease.fence, lease.epoch, rival.seq) == ("2", publisher.lease.epoch, 1)
    with pytest.raises(LeaseLost):
        await publish(publisher, an_adapter(revision=revision("b")))
    with pytest.raises(LeaseLost):
        await publisher.report(a_watcher())
    assert await raw.xlen(EVENTS) == 1


async def test_a_watcher_that_was_taken_over_holds_no_lease_any_more(
    publisher: Publisher, rival: Publisher, reader: Reader
) -> None:
    await rival.lead(presumed_dead="watcher-1")
    with pytest.raises(LeaseLost, match="taken over"):
        await publisher.complete()
    assert not (await reader.listing()).complete
    with pytest.raises(LeaseLost, match="No lease is held"):
        _ = publisher.lease


async def test_the_expected_root_is_kept_for_the_next_watcher_and_no_longer_set_by_the_one_before(
    publisher: Publisher, rival: Publisher
) -> None:
    await publisher.expect_root("device 1")
    assert publisher.root == "device 1"
    await rival.lead(presumed_dead="watcher-1")
    assert rival.root == "device 1"
    with pytest.raises(LeaseLost):
        await publisher.expect_root("device 2")
    assert publisher.root == "device 1"
    await rival.lead()
    assert rival.root == "device 1"


async def test_the_next_watcher_of_a_complete_catalog_finds_it_complete_and_undamaged(
    publisher: Publisher, rival: Publisher, reader: Reader
) -> None:
    await publish(publisher, an_adapter())
    await publisher.complete()
    await publisher.resign()
    lease = await rival.lead()
    await rival.report(a_watcher("watcher-2"))
    assert (await rival.lead()) == lease
    assert (await reader.listing()).complete


async def test_a_watcher_whose_catalog_was_lost_reports_while_the_new_one_is_incomplete(
    publisher: Publisher, raw: "Redis[str]", reader: Reader
) -> None:
    await publisher.complete()
    await raw.flushall()
    await publisher.lead()
    await publisher.report(a_watcher())
    assert not (await reader.listing()).complete


async def test_another_than_the_presumed_dead_is_not_taken_over(
    publisher: Publisher, rival: Publisher
) -> None:
    with pytest.raises(LeaseHeld):
        await rival.lead(presumed_dead="watcher-0")


async def test_a_heartbeat_keeps_the_lease_and_tells_what_the_watcher_does(
    publisher: Publisher, raw: "Redis[str]", reports: Reports
) -> None:
    await raw.pexpire(WATCHER, 1_000)
    await publisher.report(a_watcher(degraded=TRUNCATED))
    assert await raw.pttl(WATCHER) > 5_000
    assert await reports.watcher() == a_watcher(degraded=TRUNCATED)


async def test_an_emptied_redis_gets_a_new_epoch_and_everything_again(
    publisher: Publisher, raw: "Redis[str]"
) -> None:
    await publish(publisher, an_adapter())
    old = publisher.lease.epoch
    await raw.flushall()
    with pytest.raises(LeaseLost):
        await publish(publisher, an_adapter())
    assert (await publisher.lead()).epoch != old
    assert await publish(publisher, an_adapter()) == 1


async def test_after_redis_was_emptied_an_old_watcher_with_the_same_fence_cannot_come_back(
    publisher: Publisher, rival: Publisher, raw: "Redis[str]"
) -> None:
    await raw.flushall()
    assert (await rival.lead()).fence == publisher.lease.fence
    with pytest.raises(LeaseLost, match="replaced"):
        await publisher.report(a_watcher())
    with pytest.raises(LeaseHeld, match="watcher-2"):
        await publisher.lead()
    assert await publish(rival, an_adapter()) == 1


async def test_a_catalog_that_was_replaced_takes_nothing_from_the_old_epoch(
    publisher: Publisher, raw: "Redis[str]"
) -> None:
    await raw.hset(META, "epoch", "another")
    with pytest.raises(LeaseLost, match="replaced"):
        await publish(publisher, an_adapter())
    assert (await publisher.lead()).epoch == "another"


@pytest.mark.parametrize("keeps_its_lease", [True, False])
async def test_a_redis_that_fell_back_is_started_anew(
    publisher: Publisher, raw: "Redis[str]", keeps_its_lease: bool
) -> None:
    await publish(publisher, an_adapter("one"), an_adapter("two"), an_adapter("three"))
    old = publisher.lease.epoch
    await raw.hset(META, "seq", "1")
    if keeps_its_lease:
        with pytest.raises(LeaseLost, match="older data"):
            await publish(publisher, an_adapter("four"))
    else:
        await publisher.resign()
    assert (await publisher.lead()).epoch != old
    assert publisher.seq == 0
    assert await raw.exists(ADAPTERS, EVENTS) == 0
    assert await publish(publisher, an_adapter("one")) == 1


async def test_a_heartbeat_notices_a_redis_that_fell_back_while_there_is_nothing_to_publish(
    publisher: Publisher, raw: "Redis[str]"
) -> None:
    await publish(publisher, an_adapter("one"), an_adapter("two"))
    await raw.hset(META, "seq", "1")
    with pytest.raises(LeaseLost, match="older data"):
        await publisher.report(a_watcher())


async def test_a_catalog_of_another_schema_is_started_anew(publisher: Publisher, raw: "Redis[str]") -> None:
    await publish(publisher, an_adapter())
    old = publisher.lease.epoch
    await raw.hset(META, "schema", "0")
    assert (await publisher.lead()).epoch != old
    assert await raw.hgetall(ADAPTERS) == {}
