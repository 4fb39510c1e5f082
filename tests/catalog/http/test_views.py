"""How bodies follow from values."""

import pytest

from loradrop.catalog.adapter import AdapterState, Reason, WeightsFormat, is_usable_name
from loradrop.catalog.errors import PrefixNotConfigured
from loradrop.catalog.http.refresh_views import out_of_time, refresh_view
from loradrop.catalog.http.views import ReportedWorker, adapter_view, worker_view
from loradrop.catalog.redis_keys import Keys
from loradrop.catalog.revision import RevisionHasher, short
from loradrop.catalog.status import RefreshResult, RefreshStatus, WorkerAdapter, WorkerRevision, WorkerState
from tests.catalog.values import NOON, TRUNCATED, a_worker, an_adapter, revision


def result(status: RefreshStatus, **values: object) -> RefreshResult:
    return RefreshResult(id="r1", status=status, at=NOON, seq=5, **values)  # type: ignore[arg-type]  # by name


def workers(**said: WorkerAdapter) -> dict[str, ReportedWorker]:
    return {"gpu-1:8000": ReportedWorker(a_worker(epoch="e", observed_seq=5), said)}


def test_a_worker_that_has_observed_a_record_lists_it_without_saying_so() -> None:
    view = adapter_view(an_adapter(seq=5), "e", workers())
    assert view.workers["gpu-1:8000"].state is WorkerState.LISTED
    assert view.workers["gpu-1:8000"].revision == revision("a")


@pytest.mark.parametrize(
    ("changes", "epoch"), [({"seq": 6}, "e"), ({"seq": 5}, "f"), ({"seq": 5, "revision": None}, "e")]
)
def test_a_worker_says_nothing_of_what_it_cannot_know_or_serve(
    changes: dict[str, object], epoch: str
) -> None:
    assert adapter_view(an_adapter(**changes), epoch, workers()).workers == {}


def test_what_a_worker_says_counts_more_than_what_follows_from_its_seq() -> None:
    said = WorkerAdapter(state=WorkerState.REJECTED, revision=revision("b"), reason=TRUNCATED, loads=2)
    on_worker = adapter_view(an_adapter(seq=9), "e", workers(sql_adapter=said)).workers["gpu-1:8000"]
    assert (on_worker.state, on_worker.revision, on_worker.loads) == (
        WorkerState.REJECTED,
        revision("b"),
        2,
    )
    assert on_worker.reason is not None
    assert on_worker.reason.code == TRUNCATED.code


def test_all_revisions_a_worker_has_anything_of_are_shown() -> None:
    held = WorkerRevision(
        revision=revision("b"), state=WorkerState.DRAINING, resident=True, pinned=True, load_seconds=0.5
    )
    said = WorkerAdapter(state=WorkerState.LOADED, load_seconds=0.25, revisions=(held,))
    view = adapter_view(an_adapter(), "e", workers(sql_adapter=said)).model_dump(mode="json")
    on_worker = view["workers"]["gpu-1:8000"]
    assert on_worker["load_seconds"] == 0.25
    (shown,) = on_worker["revisions"]
    assert shown == {
        "revision": revision("b"),
        "state": "draining",
        "resident": True,
        "pinned": True,
        "load_seconds": 0.5,
    }


def test_a_body_holds_what_an_operator_asks_for_first() -> None:
    body = adapter_view(an_adapter(reason=TRUNCATED), "e", {}).model_dump(mode="json")
    assert body["id"] == "sql_adapter"
    assert body["object"] == "lora_adapter"
    assert body["reason"] == {"code": TRUNCATED.code, "message": TRUNCATED.message}
    assert body["discovered_at"] == "2026-11-23T12:00:00Z"
    assert body["format"] == "safetensors"


def test_in_another_epoch_all_of_the_catalog_is_ahead_of_a_worker() -> None:
    status = a_worker(epoch="old", observed_seq=90)
    assert worker_view(status, epoch="new", seq=4).lag == 4
    assert worker_view(status, epoch="old", seq=100).lag == 10
    assert worker_view(status, epoch="old", seq=80).lag == 0


def test_a_worker_whose_answers_are_not_to_be_trusted_says_why() -> None:
    assert worker_view(a_worker(), epoch="e", seq=1).degraded is None
    degraded = worker_view(a_worker(degraded=TRUNCATED), epoch="e", seq=1).degraded
    assert degraded is not None
    assert degraded.code == TRUNCATED.code


def test_a_scanned_refresh_converges_with_the_last_worker() -> None:
    scanned = result(RefreshStatus.SCANNED)
    done, behind = a_worker("a:1", epoch="e", observed_seq=5), a_worker("b:1", epoch="e", observed_seq=4)
    assert refresh_view(scanned, [done, behind], epoch="e").workers.pending == ["b:1"]
    assert refresh_view(scanned, [done, behind], epoch="e").status is RefreshStatus.SCANNED
    assert refresh_view(scanned, [done], epoch="e").status is RefreshStatus.CONVERGED
    assert refresh_view(scanned, [done], epoch="f").workers.pending == ["a:1"]
    assert refresh_view(scanned, [], epoch="e").status is RefreshStatus.CONVERGED


def test_a_refresh_without_an_answer_has_no_worker_that_knows() -> None:
    view = refresh_view(
        result(RefreshStatus.PENDING), [a_worker("a:1", epoch="e", observed_seq=99)], epoch="e"
    )
    assert view.workers.pending == ["a:1"]
    assert "not answered yet" in view.message


@pytest.mark.parametrize(
    ("status", "late"),
    [
        (RefreshStatus.PENDING, RefreshStatus.TIMEOUT),
        (RefreshStatus.SCANNED, RefreshStatus.PARTIAL),
        (RefreshStatus.FAILED, RefreshStatus.FAILED),
    ],
)
def test_when_the_time_is_up_the_status_says_what_was_missing(
    status: RefreshStatus, late: RefreshStatus
) -> None:
    view = refresh_view(result(status), [a_worker("a:1")], epoch="e")
    assert out_of_time(view).status is late


def test_a_failed_refresh_says_why() -> None:
    failed = result(RefreshStatus.FAILED, error=Reason("prefix_unreadable", "Mount it."))
    assert refresh_view(failed, [], epoch="e").message == "Mount it."
    assert refresh_view(result(RefreshStatus.FAILED), [], epoch="e").message == "LoRA discovery failed."


def test_rejected_adapters_come_by_name() -> None:
    view = refresh_view(
        result(RefreshStatus.SCANNED, rejected={"b": TRUNCATED, "a": TRUNCATED}), [], epoch="e"
    )
    assert [rejected.id for rejected in view.rejected_adapters] == ["a", "b"]


def test_what_a_list_leaves_out_is_counted_by_the_lists_name() -> None:
    view = refresh_view(result(RefreshStatus.SCANNED, omitted={"discovered": 9}), [], epoch="e")
    assert view.omitted == {"discovered_adapters": 9}


def test_all_keys_of_a_pool_share_one_hash_tag() -> None:
    keys = Keys("blue")
    every = [keys.meta, keys.adapters, keys.events, keys.refreshes, keys.watcher, keys.workers]
    every += [keys.refresh("r"), keys.worker("w:1"), keys.worker_adapters("w:1")]
    assert all(key.startswith("loradrop:{blue}:") for key in every)
    assert len(set(every)) == len(every)


@pytest.mark.parametrize("name", ["sql_adapter", "a", "A.b-c_9", "x" * 128])
def test_a_name_that_can_be_typed_is_usable(name: str) -> None:
    assert is_usable_name(name)


@pytest.mark.parametrize("name", ["", ".hidden", "a b", "a/b", "ä", "x" * 129, "a\n", "-a", "_a"])
def test_any_other_name_is_not(name: str) -> None:
    assert not is_usable_name(name)


def digest_of(
    config: bytes, *chunks: bytes, weights_format: WeightsFormat = WeightsFormat.SAFETENSORS
) -> str:
    hasher = RevisionHasher(weights_format, config, sum(map(len, chunks)))
    for chunk in chunks:
        hasher.update(chunk)
    return hasher.revision()


def test_a_revision_is_the_bytes_and_not_the_chunks_they_came_in() -> None:
    assert digest_of(b"{}", b"abc") == digest_of(b"{}", b"a", b"bc")
    assert len(digest_of(b"{}")) == 64


def test_no_two_different_pairs_of_files_share_a_revision() -> None:
    digests = {
        digest_of(b"{}", b"abc"),
        digest_of(b"{}a", b"bc"),
        digest_of(b"{", b"}abc"),
        digest_of(b"{}", b"abd"),
        digest_of(b"{}", b"abc", weights_format=WeightsFormat.PICKLE),
    }
    assert len(digests) == 5


def test_twelve_digits_of_a_revision_are_shown() -> None:
    assert short(revision("a")) == "a" * 12
    assert short(None) == "-"


def test_weights_lie_in_the_file_vllm_reads() -> None:
    assert WeightsFormat.PICKLE.filename == "adapter_model.bin"
    assert WeightsFormat.SAFETENSORS.filename == "adapter_model.safetensors"


def test_an_error_and_a_reason_say_what_to_do() -> None:
    assert PrefixNotConfigured().reason.code == "prefix_not_configured"
    assert "--lora-dir-prefix" in PrefixNotConfigured().message
    assert str(TRUNCATED).startswith("weights_truncated: ")
    assert AdapterState.READY == "ready"
