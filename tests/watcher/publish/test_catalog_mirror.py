"""What a watcher knows of the catalog it writes: it follows every write, and only what was written."""

from datetime import UTC, datetime

import pytest

from loradrop.catalog.adapter import Adapter, AdapterState, Reason
from loradrop.catalog.errors import LeaseLost
from loradrop.catalog.store import Connection, Reader
from loradrop.watcher.publish.catalog_mirror import CatalogMirror
from tests.catalog.values import TRUNCATED, a_watcher, an_adapter, revision
from tests.watcher.publish.test_owner import owner_of_a_process_that_ended

ADAPTERS = "loradrop:{default}:adapters"
READY, REJECTED, INCOMPLETE = AdapterState.READY, AdapterState.REJECTED, AdapterState.INCOMPLETE


def torn(name: str, **changes: object) -> Adapter:
    """A record of an adapter that was never whole."""
    nothing = {"revision": None, "size_bytes": 0, "format": None, "rank": None, "base_model": None}
    return an_adapter(name, **{**nothing, "state": INCOMPLETE, "reason": TRUNCATED, **changes})


@pytest.fixture
async def mirror(connection: Connection) -> CatalogMirror:
    leading = CatalogMirror(connection, owner="watcher-1")
    await leading.lead()
    return leading


async def test_nothing_is_known_before_the_catalog_was_listed(connection: Connection) -> None:
    mirror = CatalogMirror(connection, owner="watcher-1")
    assert (mirror.records, mirror.served_count, mirror.served(), mirror.counts) == ({}, 0, {}, {})


async def test_what_is_written_is_known_and_counted(mirror: CatalogMirror, connection: Connection) -> None:
    one, two, bad = an_adapter("one"), an_adapter("two", revision=revision("b")), torn("bad")
    await mirror.write([one, two, bad], [])
    assert mirror.records == {"one": one, "two": two, "bad": bad}
    assert mirror.remembered == mirror.records
    assert (mirror.served_count, mirror.served()) == (2, {"one": one.revision, "two": two.revision})
    assert mirror.counts == {READY: 2, INCOMPLETE: 1}
    assert mirror.reasons == {(READY, ""): 2, (INCOMPLETE, TRUNCATED.code): 1}
    assert mirror.seq == 3
    assert (await Reader(connection).listing()).adapters.keys() == {"one", "two", "bad"}


async def test_what_is_written_over_is_no_longer_counted(mirror: CatalogMirror) -> None:
    await mirror.write([an_adapter("one"), torn("two")], [])
    await mirror.write([torn("one", state=REJECTED)], [])
    assert (mirror.served_count, mirror.served()) == (0, {})
    await mirror.write([an_adapter("two", revision=revision("b"))], [])
    assert (mirror.served_count, mirror.served()) == (1, {"two": revision("b")})
    assert mirror.counts == {REJECTED: 1, READY: 1}
    await mirror.write([], ["one", "two"])
    assert (mirror.served_count, mirror.served(), mirror.counts, mirror.records) == (0, {}, {}, {})


async def test_what_is_listed_is_counted_as_what_is_written(
    mirror: CatalogMirror, connection: Connection
) -> None:
    await mirror.write([an_adapter("one"), an_adapter("two"), torn("bad")], [])
    await mirror.resign()
    successor = CatalogMirror(connection, owner="watcher-2")
    await successor.lead()
    assert successor.records.keys() == {"one", "two", "bad"}
    assert (successor.served_count, successor.counts) == (2, {READY: 2, INCOMPLETE: 1})


async def test_one_that_leads_again_lists_anew_what_another_wrote_meanwhile(
    mirror: CatalogMirror, connection: Connection
) -> None:
    await mirror.write([an_adapter("one")], [])
    assert mirror.served().keys() == {"one"}
    await mirror.resign()
    other = CatalogMirror(connection, owner="watcher-2")
    await other.lead()
    await other.write([an_adapter("two")], ["one"])
    await other.resign()
    await mirror.lead()
    assert (set(mirror.records), set(mirror.served())) == ({"two"}, {"two"})


async def test_refreshes_may_keep_what_is_served_until_something_is_written(mirror: CatalogMirror) -> None:
    await mirror.write([an_adapter("one")], [])
    before = mirror.served()
    assert mirror.served() is before
    await mirror.write([an_adapter("two")], [])
    assert (set(before), set(mirror.served())) == ({"one"}, {"one", "two"})


async def test_only_recorded_names_are_withdrawn(mirror: CatalogMirror, connection: Connection) -> None:
    await mirror.write([an_adapter("one"), an_adapter("two")], [])
    await mirror.write([], ["one", "never recorded"])
    assert (set(mirror.records), mirror.seq) == ({"two"}, 3)
    assert (await Reader(connection).listing()).adapters.keys() == {"two"}
    await mirror.write([], ["never recorded"])
    assert mirror.seq == 3


async def test_a_write_that_is_refused_is_not_remembered(
    mirror: CatalogMirror, connection: Connection
) -> None:
    await mirror.write([an_adapter("one")], [])
    await connection.commands.delete(connection.keys.watcher)
    await CatalogMirror(connection, owner="watcher-2").lead()
    with pytest.raises(LeaseLost):
        await mirror.write([an_adapter("two")], ["one"])
    assert (set(mirror.records), mirror.served_count) == ({"one"}, 1)


async def test_the_lease_of_a_dead_watcher_of_this_host_is_taken_over(connection: Connection) -> None:
    dead = CatalogMirror(connection, owner=owner_of_a_process_that_ended())
    await dead.lead()
    await dead.write([an_adapter("one")], [])
    mirror = CatalogMirror(connection, owner="watcher-2")
    await mirror.lead()
    assert mirror.records.keys() == {"one"}
    with pytest.raises(LeaseLost):
        await dead.write([an_adapter("two")], [])


async def test_the_directory_to_expect_is_kept_for_the_next_leader(
    mirror: CatalogMirror, connection: Connection
) -> None:
    assert mirror.root == ""
    await mirror.expect_root("1:2:3")
    await mirror.expect_root("1:2:4")
    assert mirror.root == "1:2:4"
    await mirror.resign()
    successor = CatalogMirror(connection, owner="watcher-2")
    await successor.lead()
    assert successor.root == "1:2:4"
    await mirror.expect_root("1:2:4")  # nothing to write, so no lease is needed
    with pytest.raises(LeaseLost):
        await mirror.expect_root("1:2:5")


async def test_a_record_that_cannot_be_read_is_unknown_until_it_is_replaced_or_withdrawn(
    mirror: CatalogMirror, connection: Connection
) -> None:
    await mirror.write([an_adapter("one"), an_adapter("two")], [])
    await connection.commands.hset(ADAPTERS, mapping={"one": "{", "two": "{"})
    before = datetime.now(UTC)
    await mirror.lead()
    stands_for_it = mirror.records["one"]
    assert (stands_for_it.name, stands_for_it.path) == ("one", "one")
    assert (stands_for_it.state, stands_for_it.revision) == (AdapterState.UNKNOWN, None)
    assert before <= stands_for_it.discovered_at <= datetime.now(UTC)
    assert (mirror.served_count, mirror.counts) == (0, {AdapterState.UNKNOWN: 2})
    await mirror.write([an_adapter("one")], ["two"])
    listing = await Reader(connection).listing()
    assert (set(listing.adapters), listing.unreadable) == ({"one"}, frozenset())


async def test_what_redis_lost_is_remembered_until_it_is_written_again_withdrawn_or_complete(
    mirror: CatalogMirror, connection: Connection
) -> None:
    names = ["one", "two", "three"]
    await mirror.write([an_adapter(name) for name in names], [])
    await mirror.complete()
    assert (await Reader(connection).listing()).complete
    await connection.commands.flushall()
    await mirror.lead()
    assert (dict(mirror.records), set(mirror.remembered)) == ({}, set(names))
    await mirror.write([an_adapter("one", revision=revision("b"))], ["two"])
    assert mirror.remembered.keys() == {"one", "three"}
    assert mirror.remembered["one"].revision == revision("b")
    await mirror.lead()
    assert mirror.remembered.keys() == {"one", "three"}, "it is not complete yet"
    await mirror.complete()
    await mirror.lead()
    assert mirror.remembered.keys() == {"one"}


async def test_what_redis_lost_and_holds_again_is_what_redis_holds(
    mirror: CatalogMirror, connection: Connection
) -> None:
    await mirror.write([an_adapter("one")], [])
    await connection.commands.flushall()
    await mirror.lead()
    await mirror.write([an_adapter("one", revision=revision("b"))], [])
    await mirror.write([], ["one"])
    assert mirror.remembered == {}


async def test_heartbeats_compare_every_record_in_turn(mirror: CatalogMirror, connection: Connection) -> None:
    names = [f"a{number}" for number in range(2_500)]
    await mirror.write([an_adapter(name) for name in names], [])
    await mirror.report(a_watcher())  # the first thousand
    await mirror.write([], [names[-1]])
    await connection.commands.hset(ADAPTERS, names[2_400], "{")
    await mirror.report(a_watcher())
    with pytest.raises(LeaseLost, match="a2400"):
        await mirror.report(a_watcher())


async def test_heartbeats_begin_again_with_the_first_record(
    mirror: CatalogMirror, connection: Connection
) -> None:
    await mirror.write([an_adapter("one"), an_adapter("two")], [])
    for _ in range(3):
        await mirror.report(a_watcher())
    await connection.commands.hset(ADAPTERS, "one", "{")
    with pytest.raises(LeaseLost, match="one"):
        await mirror.report(a_watcher())


@pytest.mark.parametrize(
    ("before", "after", "level"),
    [
        (None, an_adapter("sql"), "INFO added"),
        (torn("sql"), an_adapter("sql"), "INFO added"),
        (an_adapter("sql"), an_adapter("sql", revision=revision("b")), "INFO modified"),
        (None, torn("sql", state=REJECTED), "WARNING rejected"),
        (None, torn("sql"), "INFO held back"),
        (an_adapter("sql"), an_adapter("sql", state=INCOMPLETE, reason=TRUNCATED), "INFO held back"),
        (torn("sql"), torn("sql", reason=Reason(TRUNCATED.code, "2 bytes are missing.")), "DEBUG noted"),
        (torn("sql"), torn("sql", reason=Reason("config_missing", "It is.")), "INFO held back"),
        (torn("sql", state=AdapterState.UNKNOWN), torn("sql"), "INFO held back"),
        (torn("sql", reason=None), torn("sql"), "INFO held back"),
        (torn("sql"), torn("sql", reason=None), "INFO held back"),
        (None, torn("sql", state=AdapterState.SETTLING), "DEBUG noted"),
    ],
)
async def test_what_changed_for_clients_is_logged_once(
    before: Adapter | None,
    after: Adapter,
    level: str,
    mirror: CatalogMirror,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG", "loradrop.watcher")
    await mirror.write([] if before is None else [before], [])
    caplog.clear()
    await mirror.write([after], [])
    (record,) = (record for record in caplog.records if "name=sql" in record.getMessage())
    name, _, what = level.partition(" ")
    assert record.levelname == name
    assert what in record.getMessage()
