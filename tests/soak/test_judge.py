"""The soak's judge finds what grows, and nothing else."""

import random

import pytest

from tests.soak.judge import LEAST_SAMPLES, growths
from tests.soak.samples import Quantity, Sample
from tests.soak.table import table

RSS = Quantity("watcher", "RSS", "MiB")
THREADS = Quantity("watcher", "threads")


def flat(value: float = 50.0, *, threads: float = 6, samples: int = 50) -> list[Sample]:
    return [{RSS: value, THREADS: threads} for _ in range(samples)]


def grown(samples: list[Sample]) -> set[str]:
    return {growth.quantity.what for growth in growths(samples, events=1_000) if not growth.is_tolerated}


def test_what_stays_as_it_is_has_not_grown() -> None:
    assert grown(flat()) == set()


def test_what_shrinks_has_not_grown() -> None:
    assert grown([*flat(60), *flat(50)]) == set()


@pytest.mark.parametrize(("whole_growth", "expected"), [(0.02, set()), (0.03, {"RSS"})])
def test_a_leak_shows_from_a_little_above_two_percent_over_the_run(
    whole_growth: float, expected: set[str]
) -> None:
    samples = [{RSS: 50 * (1 + whole_growth * number / 50), THREADS: 6.0} for number in range(50)]
    assert grown(samples) == expected


def test_one_more_thread_is_growth_however_many_there_are() -> None:
    assert grown([*flat(), *flat(threads=7)]) == {"threads"}


def test_what_was_not_there_at_first_has_grown() -> None:
    assert grown([*flat(threads=0), *flat(threads=1)]) == {"threads"}


def test_noise_and_outliers_are_not_growth() -> None:
    dice = random.Random(1)
    samples = [{RSS: 50 * dice.uniform(1, 1.04), THREADS: dice.choice([6.0, 7.0])} for _ in range(50)]
    samples[-1] = {RSS: 70, THREADS: 30}
    assert grown(samples) == set()


def test_growth_is_told_by_a_thousand_events() -> None:
    samples = [{RSS: 50.0 + number} for number in range(50)]  # 1 MiB with every 20 events
    (growth,) = growths(samples, events=1_000)
    assert growth.per_thousand_events == pytest.approx(50)
    assert growth.share == pytest.approx(40 / 50)


def test_too_few_samples_are_no_verdict() -> None:
    with pytest.raises(ValueError, match="too few"):
        growths(flat(samples=LEAST_SAMPLES - 1), events=1_000)


def test_the_table_marks_what_grew() -> None:
    lines = table(growths([*flat(), *flat(threads=7)], events=1_000)).splitlines()
    assert [line.endswith("GREW") for line in lines] == [False, False, True]
    assert "watcher RSS (MiB)" in lines[1]
