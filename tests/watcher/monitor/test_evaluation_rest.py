"""When an adapter under evaluation counts as at rest, and what is concluded before it does."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loradrop.catalog.adapter import AdapterState, Reason
from loradrop.catalog.lora.open_files import Roots
from loradrop.watcher.monitor.evaluation import EvaluationRule, Evaluator, ExamineRequest, TooLarge
from loradrop.watcher.prefix.findings import Finding, Stillness
from loradrop.watcher.prefix.scan import open_root
from loradrop.watcher.state.settle import SettleRule
from loradrop.watcher.validation.inspection import Rules
from testkit.adapters import lora_weights, write_adapter
from tests.watcher.monitor.test_evaluation import PATIENT, RACY, SETTLED, evaluator, finding

NEVER_STILL = SettleRule(settle_seconds=60.0, unstable_after_seconds=-1.0)
SETTLING, READY, REJECTED = AdapterState.SETTLING, AdapterState.READY, AdapterState.REJECTED


def finding_at(
    prefix: Path, clock: Callable[[], float], *, rule: EvaluationRule | None = None, **request: Any
) -> Finding:
    later = Evaluator(Rules(Roots((prefix,))), PATIENT, rule, clock=clock)
    with open_root(prefix) as (root_fd, _):
        examined = later.evaluate(ExamineRequest("sql", request.pop("before", None), **request), root_fd)
    assert isinstance(examined, Finding)
    return examined


def finding_an_hour_later(prefix: Path, **request: Any) -> Finding:
    return finding_at(prefix, lambda: time.time() + 3600, **request)


def test_a_bad_adapter_is_rejected_only_once_it_is_at_rest(tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql", use_dora=True)
    settling = finding(tmp_path, settle=PATIENT)
    assert (settling.state, settling.reason is not None) == (SETTLING, True)
    rejected = finding(tmp_path)
    assert (rejected.state, rejected.look_again_at, rejected.stillness) == (REJECTED, None, None)


def test_a_rejected_adapter_is_not_read_again_until_it_changes(tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql", use_dora=True)
    rejected = finding(tmp_path)
    assert finding(tmp_path, before=rejected) is rejected
    write_adapter(tmp_path / "sql")
    assert finding(tmp_path, before=rejected).state is READY


def test_a_name_that_cannot_be_served_is_rejected_and_not_read_again(tmp_path: Path) -> None:
    write_adapter(tmp_path / "no spaces")
    with open_root(tmp_path) as (root_fd, _):
        found = evaluator(tmp_path).evaluate(ExamineRequest("no spaces", None), root_fd)
    assert isinstance(found, Finding)
    assert found.state is REJECTED
    assert found.reason is not None
    assert found.reason.code == "name_unusable"


def test_restless_is_counted_from_the_first_change_and_still_from_the_last(tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql", seed=1)
    first = finding(tmp_path, settle=PATIENT)
    write_adapter(tmp_path / "sql", seed=2)
    second = finding(tmp_path, settle=PATIENT, before=first)
    assert first.stillness is not None
    assert second.stillness is not None
    assert second.stillness.restless_since == first.stillness.restless_since
    assert second.stillness.same_since > first.stillness.same_since
    third = finding(tmp_path, settle=PATIENT, before=second)
    assert third.stillness == second.stillness


@pytest.mark.parametrize(("age_seconds", "state"), [(59.5, SETTLING), (60.5, READY)])
def test_files_are_as_old_as_the_latest_change_of_any(
    age_seconds: float, state: AdapterState, tmp_path: Path
) -> None:
    directory = write_adapter(tmp_path / "sql")
    latest = max(file.stat().st_ctime for file in directory.iterdir())
    found = finding_at(tmp_path, lambda: latest + age_seconds)
    assert found.state is state
    if state is SETTLING:
        assert found.look_again_at is not None
        assert found.look_again_at < time.monotonic() + 30, "only what remains of the settle time"


def test_what_never_rests_is_called_unstable(tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql")
    found = finding(tmp_path, settle=NEVER_STILL)
    assert found.reason is not None
    assert (found.state, found.reason.code) == (SETTLING, "unstable")
    calm = finding(tmp_path, settle=PATIENT)
    assert calm.reason is not None
    assert calm.reason.code != "unstable"


def test_an_incomplete_copy_that_stands_still_is_no_longer_restless_once_it_grows(tmp_path: Path) -> None:
    """It is examined again by itself only for some seconds after each change."""
    (tmp_path / "sql").mkdir()
    first = finding(tmp_path, settle=PATIENT)
    same = finding(tmp_path, settle=PATIENT, before=first)
    assert same.stillness == first.stillness
    assert (same.look_again_at or 0) > (first.look_again_at or 0) > 0
    again = finding(tmp_path, settle=PATIENT, before=first, rehash=True)
    assert again.stillness == first.stillness
    (tmp_path / "sql" / "adapter_config.json").write_text("{}")
    grown = finding(tmp_path, settle=PATIENT, before=same)
    assert grown.stillness is not None
    assert first.stillness is not None
    assert grown.stillness.same_since > first.stillness.same_since


def test_an_incomplete_copy_that_stands_still_is_not_read_again(tmp_path: Path) -> None:
    (tmp_path / "sql").mkdir()
    told = replace(finding(tmp_path), reason=Reason("config_missing", "as it was told"))
    assert finding(tmp_path, before=told).reason == told.reason
    assert finding(tmp_path, before=told, rehash=True).reason != told.reason


def test_a_writer_beside_files_that_are_not_there_yet_leaves_the_adapter_incomplete(tmp_path: Path) -> None:
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "adapter_model.safetensors.part").touch()
    assert finding(tmp_path, settle=PATIENT).state is AdapterState.INCOMPLETE


def test_only_bytes_that_were_published_already_need_not_rest_again(tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql", seed=1)
    published = finding(tmp_path, rule=RACY)
    assert published.state is READY
    assert finding(tmp_path, settle=PATIENT, rule=RACY, before=published).state is READY
    settling = finding(tmp_path, settle=PATIENT)
    assert finding(tmp_path, settle=PATIENT, before=settling).state is SETTLING
    write_adapter(tmp_path / "sql", seed=2)
    assert finding(tmp_path, settle=PATIENT, rule=RACY, before=published).state is SETTLING


def test_other_young_bytes_are_digested_once_more_as_the_first_were(tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql", seed=1)
    first = finding(tmp_path, rule=RACY)
    assert first.racy
    write_adapter(tmp_path / "sql", seed=2)
    settling = finding(tmp_path, settle=PATIENT, before=first)
    assert finding(tmp_path, rule=RACY, before=settling).racy, "they were never digested"
    second = finding(tmp_path, rule=RACY, before=first)
    assert second.racy
    assert second.look_again_at is not None
    assert second.look_again_at > time.monotonic() + 30


def test_bytes_that_are_known_not_to_be_young_are_digested_once(tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql")
    by_their_times = finding_an_hour_later(tmp_path, rule=RACY)
    assert (by_their_times.state, by_their_times.racy, by_their_times.look_again_at) == (READY, False, None)
    settling = finding(tmp_path, settle=PATIENT)
    long_ago = time.monotonic() - 100
    watched = replace(settling, stillness=Stillness(settling.signature, long_ago, long_ago))
    by_our_clock = finding(tmp_path, settle=PATIENT, rule=RACY, before=watched)
    assert (by_our_clock.state, by_our_clock.racy, by_our_clock.look_again_at) == (READY, False, None)


def test_what_is_ready_is_read_again_only_to_rehash_it(tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql")
    ready = finding_an_hour_later(tmp_path)
    assert finding_an_hour_later(tmp_path, before=ready) is ready
    again = finding_an_hour_later(tmp_path, before=ready, rehash=True)
    assert again is not ready
    assert again.revision == ready.revision


def test_a_directory_exchanged_for_another_and_back_while_it_was_read_is_not_published(
    tmp_path: Path,
) -> None:
    mine, other = write_adapter(tmp_path / "sql", seed=1), write_adapter(tmp_path / "other", seed=2)

    def exchange() -> None:
        mine.rename(tmp_path / "aside")
        other.rename(mine)
        (tmp_path / "aside").rename(other)

    def clock() -> float:  # asked once the files were looked at, and before they are opened
        exchange()
        return time.time()

    def stopping() -> bool:  # asked while they are digested
        exchange()
        return False

    evaluates = Evaluator(Rules(Roots((tmp_path,)), stopping=stopping), SETTLED, clock=clock)
    with open_root(tmp_path) as (root_fd, _):
        found = evaluates.evaluate(ExamineRequest("sql", None), root_fd)
    assert isinstance(found, Finding)
    assert (found.state, found.revision) == (SETTLING, None)


def test_a_writer_at_work_is_waited_for_though_the_files_are_old(tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "sql")
    (directory / "adapter_model.safetensors.part").touch()
    now = time.monotonic()
    found = finding(tmp_path, settle=SETTLED)
    assert found.reason is not None
    assert (found.state, found.reason.code) == (SETTLING, "writer_active")
    assert found.look_again_at is not None
    assert found.look_again_at > now
    patient = finding_an_hour_later(tmp_path)
    assert patient.look_again_at is not None
    assert patient.look_again_at > time.monotonic() + 30, "the settle time once more"


@pytest.mark.parametrize(("spare_bytes", "is_large"), [(0, False), (-1, True)])
def test_only_weights_over_the_limit_are_large(spare_bytes: int, is_large: bool, tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql")
    rule = EvaluationRule(large_bytes=len(lora_weights()) + spare_bytes)
    with open_root(tmp_path) as (root_fd, _):
        resting = evaluator(tmp_path, SETTLED, rule)
        if not is_large:
            resting.evaluate(ExamineRequest("sql", None), root_fd, even_large=False)
            return
        with pytest.raises(TooLarge):
            resting.evaluate(ExamineRequest("sql", None), root_fd, even_large=False)


def test_a_large_adapter_that_is_not_at_rest_is_not_put_off(tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql")
    with open_root(tmp_path) as (root_fd, _):
        restless = evaluator(tmp_path, PATIENT, EvaluationRule(large_bytes=10))
        found = restless.evaluate(ExamineRequest("sql", None), root_fd, even_large=False)
    assert isinstance(found, Finding)
    assert found.state is SETTLING
