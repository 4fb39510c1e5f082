"""`loradrop validate`: the watcher's verdict, before anything is dropped."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from loradrop.cli.__main__ import app
from testkit.adapters import write_adapter
from tests.watcher.bad_adapters import BAD


def validate(*arguments: str | Path, **environment: str) -> Result:
    return CliRunner().invoke(app, ["validate", *map(str, arguments)], env={"COLUMNS": "200"} | environment)


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A prefix with one good adapter and three others."""
    prefix = tmp_path / "loras"
    write_adapter(prefix / "good")
    write_adapter(prefix / "bad name")
    broken = write_adapter(prefix / "broken")
    (broken / "adapter_model.safetensors").write_bytes(b"123")
    (prefix / "empty").mkdir()
    (prefix / ".hidden").mkdir()
    (prefix / "README.md").write_text("not an adapter")
    return prefix


def test_an_adapter_that_would_be_accepted_is_a_yes(prefix: Path) -> None:
    result = validate(prefix / "good")
    assert result.exit_code == 0
    assert "good" in result.output
    assert "accepted" in result.output
    assert result.output.endswith("1 of 1 accepted\n")


def test_every_adapter_of_a_prefix_gets_its_verdict(prefix: Path) -> None:
    result = validate(prefix, "--json")
    assert result.exit_code == 1
    verdicts = {verdict["id"]: verdict for verdict in json.loads(result.stdout)}
    assert {name: verdict["state"] for name, verdict in verdicts.items()} == {
        "good": "ready",
        "bad name": "rejected",
        "broken": "incomplete",
        "empty": "incomplete",
    }
    assert verdicts["broken"]["reason"]["code"] == "weights_truncated"
    good = verdicts["good"]
    assert (good["accepted"], good["rank"], good["format"]) == (True, 4, "safetensors")
    assert len(good["revision"]) == 64


def test_each_reason_is_shown(prefix: Path) -> None:
    result = validate(prefix)
    assert "weights_truncated: " in result.output
    assert "directory_empty: " in result.output
    assert result.output.endswith("1 of 4 accepted\n")


def test_every_bad_kind_that_a_disk_can_show_is_named(tmp_path: Path) -> None:
    for bad in BAD:
        bad.write(tmp_path / bad.kind)
    result = validate(tmp_path, "--json")
    assert result.exit_code == 1
    verdicts = {verdict["id"]: verdict for verdict in json.loads(result.stdout)}
    told = {name: (verdict["state"], verdict["reason"]["code"]) for name, verdict in verdicts.items()}
    assert told == {bad.kind: (bad.state, bad.code) for bad in BAD}
    assert all(verdict["reason"]["message"].endswith(".") for verdict in verdicts.values())


def test_names_that_differ_only_in_case_are_rejected(tmp_path: Path) -> None:
    write_adapter(tmp_path / "Adapter")
    write_adapter(tmp_path / "adapter")
    verdicts = json.loads(validate(tmp_path, "--json").stdout)
    assert [verdict["reason"]["code"] for verdict in verdicts] == ["name_twin", "name_twin"]


def test_an_empty_directory_is_called_empty(tmp_path: Path) -> None:
    result = validate(tmp_path, "--json")
    assert result.exit_code == 1
    assert [verdict["reason"]["code"] for verdict in json.loads(result.stdout)] == ["directory_empty"]


def test_pickle_can_be_refused_here_as_in_the_watcher(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "old")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    by_flag = validate(adapter, "--no-allow-pickle", "--json")
    by_variable = validate(adapter, "--json", LORADROP_ALLOW_PICKLE="false")
    assert by_flag.stdout == by_variable.stdout
    assert by_flag.exit_code == 1
    assert "pickle" in json.loads(by_flag.stdout)[0]["reason"]["code"]


def test_links_may_lead_where_the_watcher_lets_them(tmp_path: Path) -> None:
    elsewhere = write_adapter(tmp_path / "elsewhere" / "sql")
    prefix = tmp_path / "loras"
    prefix.mkdir()
    (prefix / "linked").symlink_to(elsewhere)
    assert validate(prefix).exit_code == 1
    assert validate(prefix, "--allow-symlinks-to", elsewhere.parent).exit_code == 0


@pytest.mark.parametrize("kind", ["missing", "a file"])
def test_a_path_that_is_no_directory_is_a_usage_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "a file":
        path.write_text("x")
    result = validate(path)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
