"""Whatever a file or a request says, what it takes of Redis is bounded."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from loradrop.catalog.adapter import AdapterState, Reason
from loradrop.catalog.bounds import bounded_adapter, shortened
from loradrop.catalog.errors import RequestTooLarge, TooManyRefreshes
from loradrop.catalog.events import RefreshRequest
from loradrop.catalog.status import RefreshResult, RefreshStatus
from loradrop.catalog.store import Connection, Publisher, Reader, Refreshes, Reports, Withdrawal
from loradrop.catalog.wire import encode_adapter
from tests.catalog.reading import EVENTS, publish
from tests.catalog.values import NOON, a_watcher, an_adapter

REFRESHES = "loradrop:{default}:refreshes"
KIB, MIB = 1 << 10, 1 << 20
LONG = {
    "ascii": "b" * MIB,
    "control characters": "\x01" * MIB,
    "wide": "\N{SNOWMAN}" * MIB,
    "quotes": '"' * MIB,
}
RESULT = RefreshResult(id="r1", status=RefreshStatus.SCANNED, at=NOON)


def sized(names: int) -> tuple[str, ...]:
    return tuple(f"adapter-with-a-name-of-its-own-{number:06}" for number in range(names))


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_record_stays_under_16_kib_whatever_its_strings(text: str) -> None:
    longest = an_adapter(
        text[:255],  # the longest name a filesystem has
        path=text[:255],
        prefix="/" + "p" * 4_094,
        base_model=text,
        reason=Reason("weights_truncated", text),
    )
    assert len(encode_adapter(longest).encode()) < 16 * KIB


def test_each_text_of_an_adapter_is_shortened_alone() -> None:
    short, long = Reason("code", "m"), Reason("code", "m" * 10_000)
    for base_model in (None, "tiny-llama"):
        for reason in (None, short):
            adapter = an_adapter(base_model=base_model, reason=reason)
            assert bounded_adapter(adapter) == adapter
        bounded = bounded_adapter(an_adapter(base_model=base_model, reason=long))
        assert bounded.base_model == base_model
        assert bounded.reason is not None
        assert bounded.reason.message.endswith("…")
    bounded = bounded_adapter(an_adapter(base_model="b" * 1_000, reason=short))
    assert bounded.reason == short
    assert bounded.base_model is not None
    assert bounded.base_model.endswith("…")


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
async def test_a_thousand_changes_with_endless_texts_leave_a_few_mib(
    text: str, publisher: Publisher, raw: "Redis[str]"
) -> None:
    for number in range(10):
        reasons = [Reason("weights_truncated", f"{number} {part} {text[:MIB]}") for part in range(100)]
        changes = [an_adapter(base_model=text, reason=why, state=AdapterState.REJECTED) for why in reasons]
        await publish(publisher, *changes)
    await publish(publisher, Withdrawal("sql_adapter", Reason("removed", text)))
    assert await raw.memory_usage(EVENTS, samples=0) < 16 * MIB  # type: ignore[operator]  # the key exists


async def test_the_reason_why_a_watcher_is_degraded_is_shortened(
    publisher: Publisher, reports: Reports
) -> None:
    await publisher.report(a_watcher(degraded=Reason("scan_failed", "m" * 10_000)))
    watcher = await reports.watcher()
    assert watcher is not None
    assert watcher.degraded is not None
    assert watcher.degraded.message.endswith("…")
    assert len(watcher.degraded.message) < 3_000


async def test_readers_get_shortened_texts(publisher: Publisher, reader: Reader) -> None:
    await publish(publisher, an_adapter(base_model="b" * 1_000, reason=Reason("code", "m" * 10_000)))
    [adapter] = (await reader.listing()).adapters.values()
    assert adapter.base_model is not None
    assert adapter.reason is not None
    assert adapter.base_model.startswith("b" * 200)
    assert adapter.base_model.endswith("…")
    assert adapter.reason.message.startswith("m" * 1_000)
    assert adapter.reason.message.endswith("…")


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=600), max_bytes=st.integers(8, 300))
def test_a_shortened_text_begins_alike_and_keeps_its_bound(text: str, max_bytes: int) -> None:
    short = shortened(text, max_bytes)
    assert short == text or (short.endswith("…") and text.startswith(short[:-1]))
    assert len(msgspec.json.encode(short)) - 2 <= max_bytes
    assert short == text or len(msgspec.json.encode(text)) - 2 > max_bytes


@pytest.mark.parametrize(("unit", "unit_bytes"), [("a", 1), ("\N{SNOWMAN}", 3), ('"', 2), ("\x01", 6)])
def test_a_text_is_cut_only_where_its_json_is_longer_than_allowed(unit: str, unit_bytes: int) -> None:
    text = unit * 100
    assert shortened(text, 100 * unit_bytes) == text
    assert shortened(text, 100 * unit_bytes - 1).endswith("…")


def test_a_cut_text_keeps_most_of_what_fits() -> None:
    short = shortened("a" * 1_000, 500)
    assert short.startswith("a" * 450)
    assert len(short.encode()) <= 500


async def test_too_many_names_in_a_request_are_refused_and_leave_nothing_behind(
    refreshes: Refreshes, publisher: Publisher, raw: "Redis[str]"
) -> None:
    request = RefreshRequest(id="r1", at=NOON, names=sized(10_000))
    with pytest.raises(RequestTooLarge, match="names"):
        await refreshes.request(request)
    assert await raw.exists("loradrop:{default}:refresh:r1", REFRESHES) == 0
    await refreshes.request(replace(request, names=sized(400)))
    assert (await refreshes.requests_after("0-0"))[1] == [replace(request, names=sized(400))]


async def test_the_names_of_a_request_are_kept_once(
    refreshes: Refreshes, publisher: Publisher, raw: "Redis[str]"
) -> None:
    await refreshes.request(RefreshRequest(id="r1", at=NOON, names=sized(400), dry_run=True))
    assert sum(map(len, (await raw.hgetall("loradrop:{default}:refresh:r1")).values())) < KIB
    assert await refreshes.result("r1") == replace(RESULT, status=RefreshStatus.PENDING, dry_run=True)


async def test_a_result_is_bounded_and_counts_what_it_leaves_out(
    refreshes: Refreshes, raw: "Redis[str]"
) -> None:
    many = sized(20_000)
    reasons = {name: Reason("weights_truncated", f"{name} is 3 bytes short." * 1_000) for name in many[:500]}
    await refreshes.answer(
        replace(RESULT, discovered=many, updated=many[:3], removed=many, rejected=reasons, total=40_000)
    )
    kept = await refreshes.result("r1")
    assert sum(map(len, (await raw.hgetall("loradrop:{default}:refresh:r1")).values())) < 256 * KIB
    assert kept.discovered == many[: len(kept.discovered)]
    assert 1_000 < len(kept.discovered) < 20_000
    assert kept.newly_discovered == 20_000
    assert kept.updated == many[:3]
    assert len(kept.rejected) + kept.omitted["rejected"] == 500
    assert kept.omitted.keys() == {"discovered", "removed", "rejected"}


async def test_the_oldest_results_give_way_where_all_are_too_much(
    connection: Connection, raw: "Redis[str]"
) -> None:
    refreshes = Refreshes(connection, max_kept_bytes=MIB)
    for number in range(100):
        await refreshes.answer(replace(RESULT, id=f"r{number}", discovered=sized(1_000)))
    assert 10 < len(await raw.keys("*:refresh:*")) < 100
    assert (await refreshes.result("r99")).discovered == sized(1_000)


async def test_requests_of_a_minute_are_counted_by_their_first_and_last_entry_alone(
    connection: Connection, publisher: Publisher, raw: "Redis[str]"
) -> None:
    few = Refreshes(connection, max_per_minute=5)
    for number in range(5):
        await few.request(RefreshRequest(id=f"r{number}", at=NOON))
    for entry_id, _ in (await raw.xrange(REFRESHES))[1:-1]:
        await raw.xdel(REFRESHES, entry_id)
    with pytest.raises(TooManyRefreshes):
        await few.request(RefreshRequest(id="one too many", at=NOON))


@pytest.mark.parametrize("number", [None, "", "many", "-3", "1e99", "9" * 300])
async def test_a_foreign_entry_stops_no_request_after_it(
    number: str | None, refreshes: Refreshes, publisher: Publisher, raw: "Redis[str]"
) -> None:
    await refreshes.request(RefreshRequest(id="before", at=NOON))
    await raw.xadd(REFRESHES, {"not": "ours"} if number is None else {"number": number})
    for after in range(3):
        await refreshes.request(RefreshRequest(id=f"after {after}", at=NOON))
    assert len((await refreshes.requests_after("0-0"))[1]) == 4
