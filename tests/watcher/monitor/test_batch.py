"""A batch of adapters: within its time, small ones first, and nothing told where the prefix is in doubt."""

import errno
from pathlib import Path

import pytest

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.lora.open_files import Roots
from loradrop.watcher.monitor import evaluation
from loradrop.watcher.monitor.batch import BatchResult, Examiner
from loradrop.watcher.monitor.evaluation import EvaluationRule, ExamineRequest
from loradrop.watcher.prefix import scan
from loradrop.watcher.prefix.findings import Finding, Unreadable
from loradrop.watcher.prefix.scan import identity_of
from loradrop.watcher.state.settle import SettleRule
from loradrop.watcher.validation import inspection
from loradrop.watcher.validation.inspection import Rules
from testkit.adapters import write_adapter
from testkit.waiting import wait_until


def examine(
    prefix: Path,
    *names: str,
    budget_seconds: float = 60.0,
    marker: str | None = None,
    rule: EvaluationRule | None = None,
) -> BatchResult:
    examiner = Examiner(prefix, Rules(Roots((prefix,))), SettleRule(settle_seconds=0), rule, marker=marker)
    return examiner.examine([ExamineRequest(name, None) for name in names], budget_seconds=budget_seconds)


def states(result: BatchResult) -> dict[str, AdapterState]:
    return {name: found.state for name, found in result.found.items() if isinstance(found, Finding)}


def test_everything_asked_about_is_answered(tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql")
    write_adapter(tmp_path / "bad", use_dora=True)
    result = examine(tmp_path, "sql", "bad", "nothing")
    assert states(result) == {"sql": AdapterState.READY, "bad": AdapterState.REJECTED}
    assert result.found.keys() == {"sql", "bad", "nothing"}
    assert (result.left, result.error, result.identity) == ((), None, identity_of(tmp_path))
    assert result.hashed_bytes == sum(file.stat().st_size for file in (tmp_path / "sql").iterdir())


def test_the_prefix_is_listed_only_where_something_asked_about_is_absent(tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql")
    (tmp_path / ".hidden").touch()
    assert examine(tmp_path, "sql").listed is None
    assert examine(tmp_path, "sql", "nothing").listed == {"sql", ".hidden"}


def test_nothing_asked_about_is_no_error(tmp_path: Path) -> None:
    result = examine(tmp_path)
    assert (result.found, result.left, result.error, result.hashed_bytes) == ({}, (), None, 0)


def test_only_what_was_read_counts_as_digested(tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql")
    rules = Rules(Roots((tmp_path,)))
    settled = Examiner(tmp_path, rules, SettleRule(settle_seconds=0), EvaluationRule(racy_seconds=0.0))
    first = settled.examine([ExamineRequest("sql", None)], budget_seconds=60.0)
    found = first.found["sql"]
    assert isinstance(found, Finding)
    assert first.hashed_bytes > 0
    again = settled.examine([ExamineRequest("sql", found)], budget_seconds=60.0)
    assert (again.found["sql"] is found, again.hashed_bytes) == (True, 0)
    rehashed = settled.examine([ExamineRequest("sql", found, rehash=True)], budget_seconds=60.0)
    assert rehashed.hashed_bytes == first.hashed_bytes


def test_what_does_not_fit_the_time_is_left_and_one_always_fits(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_adapter(tmp_path / name)
    result = examine(tmp_path, "a", "b", "c", budget_seconds=0.0)
    assert result.found.keys() == {"a"}
    assert [request.name for request in result.left] == ["b", "c"]


def test_small_adapters_do_not_wait_for_large_ones(tmp_path: Path) -> None:
    for name in ("large", "huge", "small"):
        write_adapter(tmp_path / name)
    with (tmp_path / "small" / "adapter_model.safetensors").open("r+b") as file:
        file.truncate(100)
    rule = EvaluationRule(large_bytes=200)
    result = examine(tmp_path, "large", "huge", "small", rule=rule)
    assert states(result) == {"small": AdapterState.INCOMPLETE}
    assert [request.name for request in result.left] == ["large", "huge"]
    result = examine(tmp_path, "large", "huge", rule=rule)
    assert states(result) == {"large": AdapterState.READY}
    assert [request.name for request in result.left] == ["huge"]


def test_nothing_is_told_of_a_prefix_in_doubt(tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql")
    result = examine(tmp_path, "sql", marker=".mounted")
    assert result.found == {}
    assert result.error is not None
    assert result.error.code == "prefix_marker_missing"
    assert examine(tmp_path / "nothing", "sql").error is not None


def test_an_unexpected_failure_concerns_one_adapter_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b"):
        write_adapter(tmp_path / name)
    real = evaluation.prove

    def broken(name: str, *arguments: object, **options: object) -> object:
        if name == "a":
            raise ZeroDivisionError("a bug")
        return real(name, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluation, "prove", broken)
    result = examine(tmp_path, "a", "b")
    assert states(result) == {"b": AdapterState.READY}
    unknown = result.found["a"]
    assert isinstance(unknown, Unreadable)
    assert unknown.reason.code == "inspection_failed"
    assert "ZeroDivisionError: a bug" in unknown.reason.message
    assert "Examining an adapter failed name=a" in caplog.text


def test_an_unexpected_failure_of_the_whole_prefix_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(*_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(scan, "_identity", stale)
    result = examine(write_adapter(tmp_path / "sql").parent, "sql")
    assert (result.found, result.identity) == ({}, None)
    assert result.error is not None
    assert result.error.code == "prefix_unreadable"
    assert "Stale file handle" in result.error.message


def test_inspecting_never_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(inspection, "prove", broken)
    found = inspection.inspect_adapter(write_adapter(tmp_path / "sql"))
    assert found.state is AdapterState.UNKNOWN
    assert found.reason is not None
    assert found.reason.code == "inspection_failed"


async def test_the_times_of_files_that_other_hosts_write_prove_no_stillness(tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql")
    rules, settle = Rules(Roots((tmp_path,))), SettleRule(settle_seconds=0.3)

    def state_on(kind: str) -> AdapterState:
        examiner = Examiner(tmp_path, rules, settle, filesystem_type=lambda _path: kind)
        return states(examiner.examine([ExamineRequest("sql", None)], budget_seconds=60.0))["sql"]

    await wait_until(
        lambda: state_on("ext4") is AdapterState.READY, timeout=30, description="the files are old enough"
    )
    assert state_on("nfs4") is AdapterState.SETTLING
