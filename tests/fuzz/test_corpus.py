"""What fuzzing found once stays mended, and what every target begins with is as it should be."""

import tracemalloc
from pathlib import Path

import pytest

from tests.fuzz.registry import all_targets
from tests.fuzz.target import MAX_BYTES

CORPUS = Path(__file__).parent / "corpus"
FOUND = sorted(path for path in CORPUS.glob("*/*") if path.is_file())

_MOST_FILE_BYTES = 8 << 10
_MOST_PEAK_BYTES = 64 << 20


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_finding_stays_mended(path: Path) -> None:
    target = all_targets()[path.parent.name]
    tracemalloc.start()
    try:
        target.check(path.read_bytes())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < _MOST_PEAK_BYTES


@pytest.mark.parametrize("name", sorted(all_targets()))
def test_a_target_holds_on_its_seeds(name: str) -> None:
    target = all_targets()[name]
    seeds = target.seeds()
    assert seeds
    for data in [*seeds, b"", b"\0"]:
        assert len(data) <= MAX_BYTES
        target.check(data)


def test_findings_are_small_and_belong_to_a_target() -> None:
    for path in FOUND:
        assert path.stat().st_size <= _MOST_FILE_BYTES, path
        assert path.parent.name in all_targets(), path
