"""The driver finds faults that were planted, keeps what shows them, and says so."""

import importlib.util
from pathlib import Path

import pytest

from tests.fuzz import findings
from tests.fuzz.checks.planted import PLANTED
from tests.fuzz.driver import Account, Place, fuzz
from tests.fuzz.engine import failure_of
from tests.fuzz.limits import Limits, TooSlow, arm

SECONDS = 6.0
CULPRIT = b"LORAdrop"


def fuzzed(name: str, directory: Path, *, seconds: float = SECONDS) -> Account:
    place = Place(directory / "work", directory / "findings")
    (account,) = fuzz([PLANTED[name]], seconds, place)
    return account


@pytest.mark.parametrize("name", ["foreign_error", "endless", "bomb", "death"])
def test_a_planted_fault_is_found_and_kept_as_small_as_it_is(name: str, tmp_path: Path) -> None:
    account = fuzzed(name, tmp_path)
    (kept,) = account.findings
    assert kept.parent == tmp_path / "findings" / name
    data = kept.read_bytes()
    assert data == CULPRIT if name != "death" else data.startswith(CULPRIT)  # the dead shrink nothing


def test_a_fault_that_is_kept_already_is_replayed_and_not_found_anew(tmp_path: Path) -> None:
    findings.keep(tmp_path / "findings" / "foreign_error", CULPRIT + b" and more, which is not needed")
    account = fuzzed("foreign_error", tmp_path, seconds=2)
    assert account.findings == []


def test_a_target_without_a_fault_is_executed_and_nothing_is_found(tmp_path: Path) -> None:
    account = fuzzed("sound", tmp_path, seconds=1)
    assert account.executions > 10
    assert account.findings == []


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="only atheris measures coverage")
def test_coverage_is_told(tmp_path: Path) -> None:
    account = fuzzed("foreign_error", tmp_path, seconds=2)
    assert account.edges
    assert account.features


def test_an_endless_input_is_stopped_even_where_every_exception_is_swallowed() -> None:
    arm(Limits())
    assert isinstance(failure_of(PLANTED["endless"], CULPRIT, Limits(seconds=0.1)), TooSlow)
    assert failure_of(PLANTED["endless"], b"") is None


def test_findings_of_one_place_are_kept_once(tmp_path: Path) -> None:
    target = PLANTED["foreign_error"]
    found = findings.Findings(tmp_path, lambda data: failure_of(target, data))
    for data in (CULPRIT + b"1", CULPRIT + b"2"):
        error = failure_of(target, data)
        assert error is not None
        found.note(data, error)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [CULPRIT]
