"""Copying an adapter out of a prefix that may be anything."""

import os
import shutil
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loradrop.catalog.adapter import WeightsFormat
from loradrop.catalog.lora.config import MAX_CONFIG_BYTES
from loradrop.worker.outcomes import Failed, Rejected
from loradrop.worker.store.copying import Copy, Source, copy_adapter, digest_copy
from testkit.adapters import write_adapter

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    prefix = tmp_path / "loras"
    prefix.mkdir()
    return prefix


@pytest.fixture
def into(tmp_path: Path) -> Path:
    into = tmp_path / "copy"
    into.mkdir()
    return into


@pytest.fixture
def adapter(prefix: Path) -> Path:
    return write_adapter(prefix / "sql")


def copied(prefix: Path, into: Path, path: str = "sql") -> Copy:
    return copy_adapter(Source(prefix, path), into, lambda _: None)


def outcome_of(prefix: Path, into: Path, path: str = "sql") -> Failed | Rejected:
    with pytest.raises((Failed, Rejected)) as caught:
        copied(prefix, into, path)
    return caught.value


def test_configuration_and_weights_are_copied_and_nothing_else(
    adapter: Path, prefix: Path, into: Path
) -> None:
    (adapter / "README.md").write_text("trained on a Tuesday")
    copy = copied(prefix, into)
    assert {path.name for path in into.iterdir()} == {CONFIG, WEIGHTS}
    assert all((into / name).read_bytes() == (adapter / name).read_bytes() for name in (CONFIG, WEIGHTS))
    assert copy.revision == digest_copy(into) == digest_copy(adapter)
    assert copy.weights_format is WeightsFormat.SAFETENSORS
    assert copy.size_bytes == sum(path.stat().st_size for path in into.iterdir())


def test_a_pickle_is_copied_where_there_are_no_safetensors(adapter: Path, prefix: Path, into: Path) -> None:
    (adapter / "adapter_model.bin").write_bytes(b"pickled")
    assert copied(prefix, into).weights_format is WeightsFormat.SAFETENSORS
    (adapter / WEIGHTS).unlink()
    (into / "second").mkdir()
    copy = copied(prefix, into / "second")
    assert copy.weights_format is WeightsFormat.PICKLE
    assert (into / "second" / "adapter_model.bin").read_bytes() == b"pickled"
    assert copy.revision == digest_copy(into / "second")


@given(config=st.binary(max_size=300), weights=st.binary(max_size=20_000))
def test_the_digest_on_the_way_is_the_digest_of_what_arrived(
    tmp_path_factory: pytest.TempPathFactory, config: bytes, weights: bytes
) -> None:
    here = tmp_path_factory.mktemp("any")
    source, into = here / "loras" / "any", here / "copy"
    source.mkdir(parents=True)
    into.mkdir()
    (source / CONFIG).write_bytes(config)
    (source / WEIGHTS).write_bytes(weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("loradrop.worker.store.copying._CHUNK_BYTES", 1000)
        assert copied(here / "loras", into, "any").revision == digest_copy(into) == digest_copy(source)
    assert (into / WEIGHTS).read_bytes() == weights


def test_links_inside_the_prefix_are_followed(adapter: Path, prefix: Path, into: Path) -> None:
    (prefix / "current").symlink_to("sql")
    assert copied(prefix, into, "current").revision == digest_copy(adapter)


def test_a_prefix_that_is_a_link_itself_will_do(adapter: Path, prefix: Path, into: Path) -> None:
    (prefix.parent / "link").symlink_to(prefix)
    assert copied(prefix.parent / "link", into).revision == digest_copy(adapter)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_file_that_is_a_link_out_of_the_prefix_is_refused(
    adapter: Path, prefix: Path, into: Path, tmp_path: Path, name: str
) -> None:
    secret = tmp_path / "secret"
    (adapter / name).rename(secret)
    (adapter / name).symlink_to(secret)
    outcome = outcome_of(prefix, into)
    assert isinstance(outcome, Rejected)
    assert outcome.reason.code == "link_escapes"


@pytest.mark.parametrize("path", ["link", "../elsewhere"])
def test_a_directory_outside_the_prefix_is_refused(
    prefix: Path, into: Path, tmp_path: Path, path: str
) -> None:
    write_adapter(tmp_path / "elsewhere")
    (prefix / "link").symlink_to(tmp_path / "elsewhere")
    assert outcome_of(prefix, into, path).reason.code == "link_escapes"


def test_links_lead_out_only_where_the_operator_allows_it(prefix: Path, into: Path, tmp_path: Path) -> None:
    store = write_adapter(tmp_path / "elsewhere" / "v1").parent
    (prefix / "whole").symlink_to(store / "v1")
    (prefix / "files").mkdir()
    for name in (CONFIG, WEIGHTS):
        (prefix / "files" / name).symlink_to(store / "v1" / name)
    for path in ("whole", "files"):
        assert outcome_of(prefix, into, path).reason.code == "link_escapes"
        place = into / path
        place.mkdir()
        copy = copy_adapter(Source(prefix, path), place, lambda _: None, allow_symlinks_to=[store])
        assert copy.revision == digest_copy(store / "v1")


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
@pytest.mark.parametrize("make", [make_pipe, make_directory])
def test_what_is_no_regular_file_is_refused_without_waiting_for_it(
    adapter: Path, prefix: Path, into: Path, name: str, make: Callable[[Path], None]
) -> None:
    (adapter / name).unlink()
    make(adapter / name)
    outcome = outcome_of(prefix, into)
    assert isinstance(outcome, Rejected)
    assert outcome.reason.code == "not_a_file"


def test_a_socket_in_place_of_the_weights_is_no_file(
    adapter: Path, prefix: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (adapter / WEIGHTS).unlink()
    monkeypatch.chdir(adapter)  # a socket's path must be short
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(WEIGHTS)
        assert outcome_of(prefix, into).reason.code == "not_a_file"


def test_an_endless_configuration_is_refused(adapter: Path, prefix: Path, into: Path) -> None:
    (adapter / CONFIG).write_bytes(b" " * (MAX_CONFIG_BYTES + 1))
    assert outcome_of(prefix, into).reason.code == "config_too_large"


@pytest.mark.parametrize("gone", ["prefix", "adapter", CONFIG, WEIGHTS])
def test_what_is_no_longer_there_is_worth_another_try(
    adapter: Path, prefix: Path, into: Path, gone: str
) -> None:
    places = {"prefix": prefix, "adapter": adapter}
    place = places.get(gone, adapter / gone)
    place.rename(prefix.parent / "away")
    outcome = outcome_of(prefix, into)
    assert isinstance(outcome, Failed)
    assert outcome.reason.code == "source_gone"


def test_a_file_in_place_of_the_adapter_is_worth_another_try(prefix: Path, into: Path) -> None:
    (prefix / "sql").write_text("not a directory")
    assert outcome_of(prefix, into).reason.code == "source_gone"


@pytest.mark.parametrize("path", ["sql", f"sql/{CONFIG}", f"sql/{WEIGHTS}"])
def test_links_in_a_circle_are_worth_another_try(adapter: Path, prefix: Path, into: Path, path: str) -> None:
    circle = prefix / path
    circle.rename(prefix / "away")
    circle.symlink_to(circle.name)
    assert isinstance(outcome_of(prefix, into), Failed)


def test_a_path_the_system_refuses_is_a_failure_that_says_why(prefix: Path, into: Path) -> None:
    outcome = outcome_of(prefix, into, "x" * 300)
    assert isinstance(outcome, Failed)
    assert outcome.reason.code == "source_unreadable"
    assert "File name too long" in outcome.reason.message


def test_an_adapter_larger_than_the_disk_has_room_for_is_not_begun(
    adapter: Path, prefix: Path, into: Path
) -> None:
    os.truncate(adapter / WEIGHTS, shutil.disk_usage(into).free + (1 << 40))
    assert outcome_of(prefix, into).reason.code == "disk_full"
    assert list(into.iterdir()) == []


@pytest.mark.parametrize("missing", [CONFIG, WEIGHTS])
def test_a_private_copy_that_is_not_whole_has_no_digest(adapter: Path, missing: str) -> None:
    (adapter / missing).unlink()
    assert digest_copy(adapter) is None
