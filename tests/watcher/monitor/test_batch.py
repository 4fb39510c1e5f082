"""A batch of adapters: within its time, small ones first, and nothing told where the prefix is in doubt."""

from pathlib import Path

import pytest

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.lora.open_files import Roots
from loradrop.watcher.monitor import evaluation as judgement
from loradrop.watcher.monitor.batch import Answers, Examiner
from loradrop.watcher.monitor.evaluation import Question
from loradrop.watcher.prefix.findings import Finding, Unreadable
from loradrop.watcher.prefix.scan import identity_of
from loradrop.watcher.state.settle import SettleRule
from loradrop.watcher.validation import inspection
from loradrop.watcher.validation.inspection import Rules
from testkit.adapters import write_adapter


def examine(prefix: Path, *names: str, budget_seconds: float = 60.0, marker: str | None = None) -> Answers:
    examiner = Examiner(prefix, Rules(Roots((prefix,))), SettleRule(settle_seconds=0), marker=marker)
    return examiner.examine([Question(name, None) for name in names], budget_seconds=budget_seconds)


def states(answers: Answers) -> dict[str, AdapterState]:
    return {name: found.state for name, found in answers.found.items() if isinstance(found, Finding)}


def test_everything_asked_about_is_answered(tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql")
    write_adapter(tmp_path / "bad", use_dora=True)
    answers = examine(tmp_path, "sql", "bad", "nothing")
    assert states(answers) == {"sql": AdapterState.READY, "bad": AdapterState.REJECTED}
    assert answers.found.keys() == {"sql", "bad", "nothing"}
    assert (answers.left, answers.error, answers.identity) == ((), None, identity_of(tmp_path))
    assert answers.hashed_bytes == sum(file.stat().st_size for file in (tmp_path / "sql").iterdir())


def test_what_does_not_fit_the_time_is_left_and_one_always_fits(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_adapter(tmp_path / name)
    answers = examine(tmp_path, "a", "b", "c", budget_seconds=0.0)
    assert answers.found.keys() == {"a"}
    assert [question.name for question in answers.left] == ["b", "c"]


def test_small_adapters_do_not_wait_for_large_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("large", "huge", "small"):
        write_adapter(tmp_path / name)
    with (tmp_path / "small" / "adapter_model.safetensors").open("r+b") as file:
        file.truncate(100)
    monkeypatch.setattr(judgement, "_LARGE_BYTES", 200)
    answers = examine(tmp_path, "large", "huge", "small")
    assert states(answers) == {"small": AdapterState.INCOMPLETE}
    assert [question.name for question in answers.left] == ["large", "huge"]
    answers = examine(tmp_path, "large", "huge")
    assert states(answers) == {"large": AdapterState.READY}
    assert [question.name for question in answers.left] == ["huge"]


def test_nothing_is_told_of_a_prefix_in_doubt(tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql")
    answers = examine(tmp_path, "sql", marker=".mounted")
    assert answers.found == {}
    assert answers.error is not None
    assert answers.error.code == "prefix_marker_missing"
    assert examine(tmp_path / "nothing", "sql").error is not None


def test_a_failure_nobody_has_thought_of_concerns_one_adapter_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b"):
        write_adapter(tmp_path / name)
    real = judgement.prove

    def broken(directory: str, *arguments: object, **options: object) -> object:
        if directory.endswith("/a"):
            raise ZeroDivisionError("a bug")
        return real(directory, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(judgement, "prove", broken)
    answers = examine(tmp_path, "a", "b")
    assert states(answers) == {"b": AdapterState.READY}
    unknown = answers.found["a"]
    assert isinstance(unknown, Unreadable)
    assert unknown.reason.code == "inspection_failed"
    assert "ZeroDivisionError: a bug" in unknown.reason.message
    assert "Looking at an adapter failed name=a" in caplog.text


def test_inspecting_never_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(inspection, "prove", broken)
    found = inspection.inspect_adapter(write_adapter(tmp_path / "sql"))
    assert found.state is AdapterState.UNKNOWN
    assert found.reason is not None
    assert found.reason.code == "inspection_failed"
