"""What is being written is not proven: a writer at work, bytes not there yet, files that change meanwhile."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.lora.faults import Changed, Incomplete, Rejected
from loradrop.catalog.lora.open_files import Roots
from loradrop.watcher.prefix.scan import open_root
from loradrop.watcher.validation.inspection import Proof, Rules, inspect_adapter, prove
from testkit.adapters import lora_weights, write_adapter


def proof(
    prefix: Path,
    name: str = "sql",
    *,
    digest: bool = True,
    stopping: Callable[[], bool] = lambda: False,
    later_seconds: float = 0.0,
) -> Proof:
    rules = Rules(Roots((prefix,)), stopping=stopping, clock=lambda: time.time() + later_seconds)
    with open_root(prefix) as (root_fd, _):
        return prove(name, root_fd, rules, digest=digest)


@pytest.mark.parametrize(
    ("name", "is_unfinished"),
    [
        (".adapter_model.safetensors.Ab12Cd", True),
        ("adapter_config.json.tmp", True),
        ("adapter_model.bin.part", True),
        ("adapter_model.safetensors", False),
        ("..adapter_model.safetensors", False),
        ("adapter_model.safetensors.bak", False),
        ("adapter_model.safetensors.bak2", False),
        ("adapter_model.safetensors~", False),
        ("adapter_config.json.orig", False),
        ("adapter_model.safetensors.sha256", False),
        ("adapter_model.safetensors.index.json", False),
        ("adapter_model.safetensors.f3a1b", True),
        ("README.md", False),
    ],
)
def test_an_unfinished_copy_beside_a_file_is_noticed(name: str, is_unfinished: bool, tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "sql")
    (directory / name).touch()
    found = inspect_adapter(directory, with_revision=True)
    assert found.state is (AdapterState.SETTLING if is_unfinished else AdapterState.READY)
    assert (found.reason is not None and found.reason.code == "writer_active") is is_unfinished


@pytest.mark.parametrize("later_seconds", [3600.0, -3600.0], ids=["long ago", "by a clock that went back"])
def test_what_has_not_changed_for_long_is_no_longer_waited_for(later_seconds: float, tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "sql")
    (directory / "adapter_model.safetensors.part").touch()
    os.truncate(directory / "adapter_model.safetensors", 0)
    (directory / "adapter_model.safetensors").write_bytes(lora_weights(hidden=65_536)[:20_000])
    os.truncate(directory / "adapter_model.safetensors", len(lora_weights(hidden=65_536)))
    for waits in (50.0, -50.0):
        with pytest.raises(Changed, match="writer_active"):
            proof(tmp_path, later_seconds=waits)
    (directory / "adapter_model.safetensors.part").unlink()
    with pytest.raises(Changed, match="weights_unwritten"):
        proof(tmp_path, later_seconds=50.0)
    (directory / "adapter_model.safetensors.part").touch()
    assert proof(tmp_path, later_seconds=later_seconds).revision is not None


def test_weights_that_were_allocated_and_not_yet_written_are_waited_for(tmp_path: Path) -> None:
    weights = write_adapter(tmp_path / "sql") / "adapter_model.safetensors"
    whole = lora_weights(hidden=65_536)
    with weights.open("wb") as file:
        os.truncate(file.fileno(), len(whole))
        file.write(whole[:20_000])
        file.flush()
        found = inspect_adapter(tmp_path / "sql", with_revision=True)
        assert found.reason is not None
        assert (found.state, found.reason.code) == (AdapterState.SETTLING, "weights_unwritten")
        file.write(whole[20_000:])
    assert inspect_adapter(tmp_path / "sql", with_revision=True).state is AdapterState.READY


def test_weights_of_which_nothing_was_written_yet_are_waited_for_and_not_rejected(tmp_path: Path) -> None:
    weights = write_adapter(tmp_path / "sql") / "adapter_model.safetensors"
    weights.write_bytes(b"")
    os.truncate(weights, 1 << 20)
    found = inspect_adapter(tmp_path / "sql", with_revision=True)
    assert found.reason is not None
    assert (found.state, found.reason.code) == (AdapterState.SETTLING, "weights_unwritten")
    assert inspect_adapter(tmp_path / "sql").state is AdapterState.REJECTED


def test_what_is_wrong_with_the_beginning_is_final_though_the_rest_is_not_written_yet(tmp_path: Path) -> None:
    weights = write_adapter(tmp_path / "sql", use_dora=True) / "adapter_model.safetensors"
    weights.write_bytes(lora_weights(hidden=65_536)[:20_000])
    os.truncate(weights, len(lora_weights(hidden=65_536)))
    assert inspect_adapter(tmp_path / "sql", with_revision=True).state is AdapterState.REJECTED


def test_a_writer_at_work_matters_only_to_what_is_digested(tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "sql")
    (directory / "adapter_config.json.tmp").touch()
    assert inspect_adapter(directory).state is AdapterState.READY


def test_a_link_that_leads_nowhere_yet_is_a_writer_at_work(tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "sql")
    (directory / "adapter_model.safetensors.part").symlink_to("nothing")
    with pytest.raises(Changed) as raised:
        proof(tmp_path)
    assert raised.value.reason.code == "writer_active"


def test_a_long_read_ends_when_the_watcher_stops(tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql")
    with pytest.raises(Changed):
        proof(tmp_path, stopping=lambda: True)
    assert proof(tmp_path, digest=False).revision is None


def test_weights_that_are_written_to_while_they_are_digested_are_not_proven(tmp_path: Path) -> None:
    weights = write_adapter(tmp_path / "sql") / "adapter_model.safetensors"

    def write_on() -> bool:
        with weights.open("ab") as file:
            file.write(b"more")
        return False

    with pytest.raises(Changed):
        proof(tmp_path, stopping=write_on)


def test_weights_that_are_cut_off_while_they_are_digested_are_not_proven(tmp_path: Path) -> None:
    weights = write_adapter(tmp_path / "sql") / "adapter_model.safetensors"
    weights.write_bytes(lora_weights(hidden=65_536))

    def cut_off() -> bool:
        os.truncate(weights, 100)
        return False

    with pytest.raises(Changed):
        proof(tmp_path, stopping=cut_off)


def test_what_vanished_before_it_was_opened_has_changed_and_a_link_to_nothing_is_incomplete(
    tmp_path: Path,
) -> None:
    with pytest.raises(Changed):
        proof(tmp_path, "nothing")
    (tmp_path / "link").symlink_to("nothing")
    with pytest.raises(Incomplete) as raised:
        proof(tmp_path, "link")
    assert raised.value.reason.code == "link_dangling"


def open_descriptors() -> set[int]:
    found = set()
    for descriptor in range(1024):
        with suppress(OSError):
            os.fstat(descriptor)
            found.add(descriptor)
    return found


def test_no_file_stays_open_whatever_is_found(tmp_path: Path) -> None:
    write_adapter(tmp_path / "good")
    write_adapter(tmp_path / "bad", use_dora=True)
    (tmp_path / "empty").mkdir()
    before = open_descriptors()
    for name in ("good", "bad", "empty", "nothing"):
        inspect_adapter(tmp_path / name, with_revision=True)
    with pytest.raises(Rejected):
        proof(tmp_path, "bad")
    assert open_descriptors() == before


@pytest.mark.parametrize("with_revision", [False, True])
def test_the_same_bytes_give_the_same_proof_and_others_another(with_revision: bool, tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql")
    first = proof(tmp_path, digest=with_revision)
    assert proof(tmp_path, digest=with_revision) == first
    assert (first.revision is not None) is with_revision
    write_adapter(tmp_path / "sql", seed=2)
    assert proof(tmp_path, digest=with_revision).signature != first.signature
