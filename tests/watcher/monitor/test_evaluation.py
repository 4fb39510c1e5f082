"""From one look to a finding: young, racy, torn, changing under our hands."""

import time
from pathlib import Path

import pytest

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.lora.open_files import Roots
from loradrop.watcher.monitor import evaluation
from loradrop.watcher.monitor.evaluation import EvaluationRule, Evaluator, ExamineRequest, TooLarge, WallClock
from loradrop.watcher.prefix.findings import Absent, Examined, Finding, Unreadable
from loradrop.watcher.prefix.scan import open_root
from loradrop.watcher.state.settle import SettleRule
from loradrop.watcher.validation.inspection import Rules
from testkit.adapters import lora_weights, write_adapter

SETTLED = SettleRule(settle_seconds=0.0)
PATIENT = SettleRule(settle_seconds=60.0)


RACY = EvaluationRule(racy_seconds=60.0)
"""Whatever is written in a test is young, however slow this machine is."""


def evaluator(prefix: Path, settle: SettleRule = SETTLED, rule: EvaluationRule | None = None) -> Evaluator:
    return Evaluator(Rules(Roots((prefix,))), settle, rule)


def evaluate(
    prefix: Path,
    *,
    settle: SettleRule = SETTLED,
    rule: EvaluationRule | None = None,
    before: Finding | None = None,
    **request: bool,
) -> Examined:
    with open_root(prefix) as (root_fd, _):
        return evaluator(prefix, settle, rule).evaluate(ExamineRequest("sql", before, **request), root_fd)


def finding(
    prefix: Path,
    *,
    settle: SettleRule = SETTLED,
    rule: EvaluationRule | None = None,
    before: Finding | None = None,
    **request: bool,
) -> Finding:
    examined = evaluate(prefix, settle=settle, rule=rule, before=before, **request)
    assert isinstance(examined, Finding)
    return examined


def test_nothing_is_absent(tmp_path: Path) -> None:
    assert evaluate(tmp_path) == Absent()


def test_a_fresh_adapter_settles_and_says_when_to_look_again(tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql")
    found = finding(tmp_path, settle=PATIENT)
    assert found.state is AdapterState.SETTLING
    assert found.look_again_at is not None
    assert 50 < found.look_again_at - time.monotonic() <= 60


@pytest.mark.parametrize(("trusted", "state"), [(True, AdapterState.READY), (False, AdapterState.SETTLING)])
def test_times_of_another_clock_prove_nothing(trusted: bool, state: AdapterState, tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql")
    an_hour_later = Evaluator(Rules(Roots((tmp_path,))), PATIENT, clock=lambda: time.time() + 3600)
    an_hour_later.trust_times(trusted)
    with open_root(tmp_path) as (root_fd, _):
        examined = an_hour_later.evaluate(ExamineRequest("sql", None), root_fd)
    assert isinstance(examined, Finding)
    assert examined.state is state


@pytest.mark.parametrize("name", ["../outside", "..", ".", "", "a/b", "a\0b"])
def test_a_name_that_is_a_path_to_somewhere_else_is_absent(name: str, tmp_path: Path) -> None:
    write_adapter(tmp_path / "outside")
    (tmp_path / "prefix").mkdir()
    with open_root(tmp_path / "prefix") as (root_fd, _):
        assert evaluator(tmp_path / "prefix").evaluate(ExamineRequest(name, None), root_fd) == Absent()


def test_very_young_bytes_are_published_and_digested_once_more(tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql")
    first = finding(tmp_path, settle=PATIENT, rule=RACY, arrived=True)
    assert (first.state, first.racy) == (AdapterState.READY, True)
    again = finding(tmp_path, settle=PATIENT, rule=RACY, before=first)
    assert (again.state, again.racy, again.look_again_at) == (AdapterState.READY, False, None)
    assert again.revision == first.revision
    assert finding(tmp_path, settle=PATIENT, before=again) is again


def test_a_write_hidden_behind_the_same_times_is_found_by_the_second_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_adapter(tmp_path / "sql", seed=1)
    first = finding(tmp_path, rule=RACY, arrived=True)
    write_adapter(tmp_path / "sql", seed=2)
    # a kernel with coarse times: the signature stays what it was
    real = evaluation.look_at

    def coarse(name: str, root_fd: int, roots: Roots) -> object:
        look = real(name, root_fd, roots)
        return evaluation.Look(first.signature, look.changed_ns, look.weights_bytes)  # type: ignore[union-attr]

    monkeypatch.setattr(evaluation, "look_at", coarse)
    monkeypatch.setattr("loradrop.watcher.validation.inspection.signature_of", lambda *_: first.signature)
    second = finding(tmp_path, rule=RACY, before=first)
    assert second.revision != first.revision


def test_whole_seconds_are_given_more_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_adapter(tmp_path / "sql")
    real = evaluation.look_at

    def coarse(name: str, root_fd: int, roots: Roots) -> object:
        look = real(name, root_fd, roots)
        whole = look.changed_ns // 1_000_000_000 * 1_000_000_000  # type: ignore[union-attr]
        return evaluation.Look(look.signature, whole, look.weights_bytes)  # type: ignore[union-attr]

    monkeypatch.setattr(evaluation, "look_at", coarse)
    found = finding(tmp_path, arrived=True)
    assert found.racy
    assert found.look_again_at is not None
    assert found.look_again_at - time.monotonic() > 1


def test_a_file_replaced_while_it_was_read_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = write_adapter(tmp_path / "sql", seed=1)
    real = evaluation.prove

    def slow(*arguments: object, **options: object) -> object:
        proof = real(*arguments, **options)  # type: ignore[arg-type]
        aside = directory / "new"
        aside.write_bytes(lora_weights(seed=2))
        aside.rename(directory / "adapter_model.safetensors")
        return proof

    monkeypatch.setattr(evaluation, "prove", slow)
    found = finding(tmp_path)
    assert (found.state, found.revision) == (AdapterState.SETTLING, None)


def test_a_bad_file_replaced_while_it_was_read_is_not_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = write_adapter(tmp_path / "sql", use_dora=True)
    real = evaluation.prove

    def slow(*arguments: object, **options: object) -> object:
        try:
            return real(*arguments, **options)  # type: ignore[arg-type]
        finally:
            write_adapter(directory)

    monkeypatch.setattr(evaluation, "prove", slow)
    assert finding(tmp_path).state is AdapterState.SETTLING


def test_a_disk_error_while_reading_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_adapter(tmp_path / "sql")

    def broken(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(evaluation, "prove", broken)
    examined = evaluate(tmp_path)
    assert isinstance(examined, Unreadable)
    assert "Input/output error" in examined.reason.message


def test_a_large_adapter_can_be_put_off(tmp_path: Path) -> None:
    small = EvaluationRule(large_bytes=10)
    write_adapter(tmp_path / "sql")
    assert finding(tmp_path, rule=small).state is AdapterState.READY
    with pytest.raises(TooLarge), open_root(tmp_path) as (root_fd, _):
        evaluator(tmp_path, SETTLED, small).evaluate(ExamineRequest("sql", None), root_fd, even_large=False)


def test_an_abandoned_copy_is_no_longer_examined_by_itself(tmp_path: Path) -> None:
    (tmp_path / "sql").mkdir()
    first = finding(tmp_path)
    assert first.look_again_at is not None
    later = finding(tmp_path, rule=EvaluationRule(growing_seconds=-1.0), before=first)
    assert (later.state, later.look_again_at) == (AdapterState.INCOMPLETE, None)


def test_an_incomplete_adapter_starts_resting_only_when_it_is_complete(tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "sql")
    whole = (directory / "adapter_model.safetensors").read_bytes()
    (directory / "adapter_model.safetensors").write_bytes(whole[:50])
    torn = finding(tmp_path, settle=PATIENT)
    (directory / "adapter_model.safetensors").write_bytes(whole)
    complete = finding(tmp_path, settle=PATIENT, before=torn)
    assert torn.stillness is not None
    assert complete.stillness is not None
    assert complete.stillness.restless_since > torn.stillness.restless_since


def test_the_clock_of_files_never_runs_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = WallClock()
    real = time.time
    for step in (-3600.0, 3600.0):
        monkeypatch.setattr(time, "time", lambda step=step: real() + step)
        assert clock.now() <= real() + 0.1
