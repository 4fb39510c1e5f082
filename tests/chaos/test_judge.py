"""Every way to break an invariant is found, and what breaks none is not."""

import pytest

from tests.chaos import catalog_losses, prefix_losses
from tests.chaos.api_client import ADAPTERS, HEALTH, READY
from tests.chaos.judge import broken
from tests.chaos.judge_api import API_AWAY, CATALOG_LOST, PREFIX_AWAY, REDIS_AWAY
from tests.chaos.judge_growth import LEAST_SAMPLES, MOST_EVENTS, MOST_REFRESHES
from tests.chaos.nemesis import Nemesis
from tests.chaos.record import Entry


def entry(who: str, what: str, **facts: object) -> Entry:
    return {"who": who, "what": what, **facts}


WROTE = entry("writer", "wrote", name="a", revision="1")


def fault(name: str, *, at: float) -> Entry:
    return entry("nemesis", "fault", name=name, at=at)


def over(name: str, *, at: float) -> Entry:
    return entry("nemesis", "over", name=name, at=at)


def answer(path: str, status: int, *, asked: float) -> Entry:
    return entry("api", "answer", path=path, status=status, asked=asked, at=asked + 1)


def silent(*, asked: float) -> Entry:
    return entry("api", "silent", path=HEALTH, asked=asked)


def holds(**facts: object) -> Entry:
    return entry("redis", "holds", **{**HELD, **facts})


def weighs(**facts: int) -> Entry:
    return entry("api", "weighs", pid=1, **{**WEIGHT, **facts})


HELD = {"at": 1.0, "epoch": "e", "seq": 9, "complete": True, "adapters": 9, "events": 9, "refreshes": 9}
WEIGHT = {"rss": 100 << 20, "threads": 8, "files": 20, "tasks": 30}
NOTHING_SAID = [entry("w", "moved", epoch="e", seq=1), fault("redis_killed", at=2)]
SAID = [answer(ADAPTERS, 503, asked=3), answer(READY, 503, asked=3), entry("w", "stale")]
GONE = entry("api", "unlisted", name="a", asked=3)


@pytest.mark.parametrize(
    ("seen", "invariant"),
    [
        ([entry("w", "loaded", name="a", revision="2")], "never_partial"),
        ([entry("w", "listed", name="b", revision="1")], "never_partial"),
        ([entry("w", "violation", why="two loads at once")], "never_partial"),
        ([entry("w", "unlisted", name="a")], "never_dropped_on_doubt"),
        ([entry("w", "unloaded", name="a", revision="1")], "never_dropped_on_doubt"),
        ([entry("w", "withdrawn", name="a", revision="1")], "never_dropped_on_doubt"),
        ([entry("w", "moved", epoch="e", seq=seq) for seq in (2, 1)], "never_back"),
        ([entry("w", "moved", epoch=epoch, seq=1) for epoch in "efe"], "never_back"),
        ([entry("w", "loaded", name="a", revision="1")] * 2, "loaded_once"),
        ([entry("w", "answered", name="a", revision="2")], "answered_from_what_was_written"),
        ([entry("w", "refused", name="a", why="gone")], "answered_from_what_was_written"),
        ([entry("api", "listed", name="a", revision="2")], "never_partial"),
        ([entry("api", "moved", epoch="e", seq=seq) for seq in (2, 1)], "never_back"),
        ([answer(HEALTH, 503, asked=1)], "answers_or_says_why"),
        ([answer(ADAPTERS, 500, asked=1)], "answers_or_says_why"),
        ([answer(ADAPTERS, 502, asked=1)], "answers_or_says_why"),
        ([fault("redis_frozen", at=2), answer(ADAPTERS, 200, asked=3)], "answers_or_says_why"),
        ([answer(HEALTH, 200, asked=1), silent(asked=3)], "answers_or_says_why"),
        ([fault("api_killed", at=2), over("api_killed", at=3), silent(asked=4)], "answers_or_says_why"),
        ([holds(), GONE], "claims_nothing_is_gone"),
        ([holds(), fault("redis_killed", at=2), GONE], "claims_nothing_is_gone"),
        ([holds(), fault("events_lost", at=2), GONE], "claims_nothing_is_gone"),
        ([holds(), fault("redis_emptied", at=2), holds(epoch="f", at=2.5), GONE], "claims_nothing_is_gone"),
        *(
            (
                [*NOTHING_SAID, *SAID[:number], *SAID[number + 1 :], over("redis_killed", at=9)],
                "says_when_blind",
            )
            for number in range(len(SAID))
        ),
        ([*NOTHING_SAID, *SAID, entry("w", "followed_again"), over("redis_killed", at=9)], "says_when_blind"),
        ([entry("w", "stale"), fault("prefix_gone", at=2), over("prefix_gone", at=9)], "says_when_blind"),
        ([holds(events=10)], "streams_are_bounded"),
        ([holds(events=MOST_EVENTS + 101, seq=MOST_EVENTS + 101)], "streams_are_bounded"),
        ([holds(refreshes=MOST_REFRESHES + 101)], "streams_are_bounded"),
        *(
            (
                [weighs()] * LEAST_SAMPLES + [weighs(**{kind: WEIGHT[kind] * 3})] * LEAST_SAMPLES,
                "holds_no_more_than_before",
            )
            for kind in WEIGHT
        ),
    ],
)
def test_what_breaks_an_invariant_is_found(seen: list[Entry], invariant: str) -> None:
    assert [fault.partition(":")[0] for fault in broken([WROTE, *seen])] == [invariant]


def test_what_follows_the_disk_breaks_nothing() -> None:
    seen = [
        entry("w", "moved", epoch="e", seq=1),
        entry("w", "listed", name="a", revision="1"),
        entry("w", "loaded", name="a", revision="1"),
        entry("w", "answered", name="a", revision="1"),
        entry("writer", "removed", name="a"),
        entry("w", "moved", epoch="f", seq=1),
        entry("w", "unlisted", name="a"),
        entry("w", "withdrawn", name="a", revision="1"),
        entry("w", "unloaded", name="a", revision="1"),
    ]
    assert broken([WROTE, *seen]) == []


def test_who_says_that_redis_is_away_breaks_nothing() -> None:
    asked_before = answer(ADAPTERS, 200, asked=1)
    assert broken([*NOTHING_SAID, asked_before, *SAID, over("redis_killed", at=9)]) == []


def test_a_killed_api_need_not_answer() -> None:
    seen = [silent(asked=0.5), answer(HEALTH, 200, asked=1), fault("api_killed", at=3), silent(asked=4)]
    assert broken([*seen, over("api_killed", at=5), silent(asked=4.5)]) == []


@pytest.mark.parametrize("loss", ["redis_emptied", "records_lost"])
def test_the_api_may_show_less_until_a_lost_catalog_is_published_again(loss: str) -> None:
    assert broken([holds(), fault(loss, at=2), holds(), GONE, holds(epoch="f", at=4)]) == []
    assert broken([holds(), entry("writer", "removed", name="a"), GONE]) == []


def test_what_stays_as_it_is_piles_up_nowhere() -> None:
    seen = [weighs()] * LEAST_SAMPLES + [weighs(files=24, rss=120 << 20)] * LEAST_SAMPLES
    assert broken([holds(), *seen]) == []


def test_every_fault_the_judge_knows_is_one_of_the_nemesis() -> None:
    known = {*REDIS_AWAY, *PREFIX_AWAY, API_AWAY, *CATALOG_LOST}
    losses = catalog_losses.LOSSES.keys() | prefix_losses.LOSSES.keys()
    assert {name for name in known - losses if not hasattr(Nemesis, name)} == set()
