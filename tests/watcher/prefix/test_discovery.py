"""What is under a prefix: the scan, and the functions for other programs."""

import logging
import os
from pathlib import Path

import pytest

from loradrop.catalog.errors import DiscoveryError
from loradrop.catalog.lora.open_files import Roots
from loradrop.watcher.discovery import (
    discover_lora_adapters_from_prefix,
    discover_new_lora_adapters_from_prefix,
)
from loradrop.watcher.monitor.evaluation import Evaluator, ExamineRequest
from loradrop.watcher.prefix.findings import Finding
from loradrop.watcher.prefix.scan import (
    PrefixMarkerMissing,
    PrefixMissing,
    PrefixNotADirectory,
    identity_of,
    open_root,
    scan,
)
from loradrop.watcher.state.settle import SettleRule
from loradrop.watcher.validation.inspection import Rules
from testkit.adapters import write_adapter
from tests.watcher.bad_adapters import BAD


def findings_of(prefix: Path) -> dict[str, Finding]:
    """What examining everything under `prefix` finds, as if it had settled."""
    evaluator = Evaluator(Rules(Roots((prefix,))), SettleRule(settle_seconds=0))
    found = {}
    with open_root(prefix) as (root_fd, _):
        for name in scan(prefix, {}, Roots((prefix,))).names:
            finding = evaluator.evaluate(ExamineRequest(name, None), root_fd)
            assert isinstance(finding, Finding)
            found[name] = finding
    return found


def test_complete_adapters_are_discovered_by_name_with_absolute_paths(tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql")
    write_adapter(tmp_path / "math")
    assert discover_lora_adapters_from_prefix(tmp_path) == {
        "math": str(tmp_path / "math"),
        "sql": str(tmp_path / "sql"),
    }


def test_a_relative_prefix_as_text_gives_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_adapter(tmp_path / "loras" / "sql")
    monkeypatch.chdir(tmp_path)
    assert discover_lora_adapters_from_prefix("loras") == {"sql": str(tmp_path / "loras" / "sql")}


def test_every_bad_adapter_is_left_out_with_a_warning_and_stops_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for bad in BAD:
        bad.write(tmp_path / bad.kind)
    write_adapter(tmp_path / "good")
    with caplog.at_level(logging.WARNING):
        assert list(discover_lora_adapters_from_prefix(tmp_path)) == ["good"]
    for bad in BAD:
        assert f"Adapter is left out name={bad.kind} reason={bad.code}: " in caplog.text


def test_only_new_adapters_are_discovered_beside_existing_ones(tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql")
    existing = discover_lora_adapters_from_prefix(tmp_path)
    write_adapter(tmp_path / "math")
    assert discover_new_lora_adapters_from_prefix(tmp_path, existing) == {"math": str(tmp_path / "math")}
    assert discover_new_lora_adapters_from_prefix(tmp_path, {"sql", "math"}) == {}
    assert discover_new_lora_adapters_from_prefix(tmp_path, ["sql"]) == {"math": str(tmp_path / "math")}


def test_names_that_collide_are_left_out_both(tmp_path: Path) -> None:
    for name in ("sql", "SQL", "math"):
        write_adapter(tmp_path / name)
    assert list(discover_lora_adapters_from_prefix(tmp_path)) == ["math"]


def test_an_empty_prefix_has_no_adapters(tmp_path: Path) -> None:
    assert discover_lora_adapters_from_prefix(tmp_path) == {}


@pytest.mark.parametrize("kind", [PrefixMissing, ValueError])
def test_a_missing_prefix_is_an_error_and_not_empty(tmp_path: Path, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"does not exist\. Create the directory"):
        discover_lora_adapters_from_prefix(tmp_path / "nothing")


def test_a_prefix_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(PrefixNotADirectory, match="is not a directory"):
        discover_lora_adapters_from_prefix(tmp_path / "file")
    with pytest.raises(PrefixNotADirectory):
        identity_of(tmp_path / "file")


def test_any_other_failure_is_an_error_with_its_cause(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(DiscoveryError, match=r"cannot be read \(Too many levels"):
        discover_lora_adapters_from_prefix(tmp_path / "loop")


def test_a_prefix_without_its_marker_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PrefixMarkerMissing, match="marker"):
        scan(tmp_path, {}, Roots((tmp_path,)), marker=".mounted")
    (tmp_path / ".mounted").touch()
    assert scan(tmp_path, {}, Roots((tmp_path,)), marker=".mounted").names == frozenset()


def test_a_prefix_replaced_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    prefix = tmp_path / "p"
    prefix.mkdir()
    with pytest.raises(PrefixMissing, match="replaced while"), open_root(prefix):
        prefix.rename(tmp_path / "old")
        prefix.mkdir()


def test_files_and_hidden_names_are_no_adapters(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    for name in (".git", "..data", "sql.tmp", "sql~"):
        write_adapter(tmp_path / name)
    assert scan(tmp_path, {}, Roots((tmp_path,))).names == frozenset()


def test_nothing_has_changed_where_nothing_has_changed(tmp_path: Path) -> None:
    for number in range(5):
        write_adapter(tmp_path / f"a{number}")
    for bad in BAD:
        bad.write(tmp_path / bad.kind)
    known = findings_of(tmp_path)
    assert set(scan(tmp_path, known, Roots((tmp_path,))).changed) == set()


def test_an_adapter_that_vanishes_is_changed_until_it_is_forgotten(tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql")
    known = findings_of(tmp_path)
    (tmp_path / "sql").rename(tmp_path / ".sql")
    (tmp_path / "sql").write_text("a file now")
    assert scan(tmp_path, known, Roots((tmp_path,))).changed == ("sql",)
    (tmp_path / "sql").unlink()
    assert scan(tmp_path, known, Roots((tmp_path,))).names == frozenset()


def rewrite_same_size_keeping_times(directory: Path) -> None:
    weights = directory / "adapter_model.safetensors"
    before = weights.stat()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    with weights.open("r+b") as file:
        file.write(content)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_rename_keeping_times(directory: Path) -> None:
    weights = directory / "adapter_model.safetensors"
    before = weights.stat()
    aside = directory / "aside"
    aside.write_bytes(weights.read_bytes()[::-1])
    os.utime(aside, ns=(before.st_atime_ns, before.st_mtime_ns))
    aside.rename(weights)


@pytest.mark.parametrize(
    "change",
    [
        rewrite_same_size_keeping_times,
        replace_by_rename_keeping_times,
        lambda directory: (directory / "adapter_config.json").unlink(),
        lambda directory: (directory / "adapter_config.json").touch(),
        lambda directory: (directory / "adapter_model.safetensors").unlink(),
        lambda directory: (directory / "adapter_model.safetensors").chmod(0o600),
    ],
)
def test_every_way_of_changing_a_file_shows_in_the_signature(change: object, tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql")
    write_adapter(tmp_path / "other")
    known = findings_of(tmp_path)
    assert callable(change)
    change(tmp_path / "sql")
    assert scan(tmp_path, known, Roots((tmp_path,))).changed == ("sql",)
