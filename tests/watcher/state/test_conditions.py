"""What degrades the watcher, and what it counts."""

import logging

import pytest

from loradrop.catalog.adapter import Reason
from loradrop.watcher.state.conditions import SLOW, Conditions, mass_removal
from loradrop.watcher.state.counters import Histogram


def test_the_most_important_reason_is_the_one_reported() -> None:
    conditions = Conditions()
    assert conditions.reason is None
    conditions.set("notifier", Reason("watch_limit", "Raise it."))
    conditions.set("disk", SLOW)
    assert conditions.reason == SLOW
    conditions.set("disk", None)
    assert conditions.reason == Reason("watch_limit", "Raise it.")
    conditions.set("notifier", None)
    assert conditions.reason is None


def test_the_same_reason_again_is_neither_logged_nor_told(caplog: pytest.LogCaptureFixture) -> None:
    changes: list[None] = []
    conditions = Conditions(lambda: changes.append(None))
    with caplog.at_level(logging.INFO):
        for count in (5, 6):
            conditions.set("removal", mass_removal(count, 30.0))
        assert len(changes) == 1
        conditions.set("removal", None)
        assert len(changes) == 2
        conditions.set("removal", None)
    assert len(changes) == 2
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert conditions.reason is None


def test_another_reason_of_the_same_source_is_logged_and_told(caplog: pytest.LogCaptureFixture) -> None:
    changes: list[None] = []
    conditions = Conditions(lambda: changes.append(None))
    for code in ("watch_limit", "notifier_failed"):
        conditions.set("notifier", Reason(code, "Mend it."))
    assert len(changes) == 2
    assert "watch_limit" in caplog.records[0].getMessage()
    assert "notifier_failed" in caplog.records[1].getMessage()


def test_the_newest_wording_of_a_reason_is_kept() -> None:
    conditions = Conditions()
    conditions.set("removal", mass_removal(5, 30.0))
    conditions.set("removal", mass_removal(6, 30.0))
    assert conditions.reason is not None
    assert conditions.reason.message.startswith("6 adapters vanished")


def test_a_reason_that_quotes_a_name_cannot_forge_a_line_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    Conditions().set("prefix", Reason("prefix_missing", "/p\n2026 INFO forged\x1b[2J"))
    assert caplog.records[0].getMessage().isprintable()


def test_a_histogram_counts_everything_up_to_each_bound() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        histogram.observe(seconds)
    assert histogram.buckets() == [("0.1", 2.0), ("1.0", 3.0), ("+Inf", 4.0)]
    assert histogram.sum == pytest.approx(7.65)
