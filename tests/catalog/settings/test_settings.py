"""Settings: flags over variables over defaults, and sentences for what cannot be used."""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from loradrop.catalog.settings import Process, Setting, SettingsInvalid, Values, add_flags, read_values
from loradrop.catalog.settings.declared import (
    ALL,
    ALLOW_PICKLE,
    ALLOW_SYMLINKS_TO,
    API_KEY,
    API_PORT,
    LORA_DIR_PREFIX,
    LORA_PRELOAD,
    LORA_SETTLE,
    METRICS_PORT,
    NOTIFIER,
    POOL_NAME,
    REDIS_URL,
    settings_of,
)
from loradrop.catalog.settings.kinds import SWITCH


def values(
    *flags: str, process: Process = Process.WATCH, variables: Mapping[str, str] | None = None
) -> Values:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_flags(parser, settings_of(process), process)
    return read_values(settings_of(process), process, parser.parse_args(list(flags)), variables or {})


def test_a_flag_wins_over_a_variable_and_a_variable_over_the_default() -> None:
    variables = {"LORADROP_LORA_SETTLE": "3"}
    assert values()[LORA_SETTLE] == 1.0
    assert values(variables=variables)[LORA_SETTLE] == 3.0
    assert values("--lora-settle", "7", variables=variables)[LORA_SETTLE] == 7.0


def test_a_default_is_not_given() -> None:
    assert values().given(REDIS_URL) is None
    assert values(variables={"LORADROP_REDIS_URL": "redis://r"}).given(REDIS_URL) == "redis://r"


def test_an_empty_variable_is_not_given_and_an_empty_flag_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert values(variables={"LORADROP_POOL": ""})[POOL_NAME] == "default"
    with pytest.raises(SystemExit):
        values("--pool", "")
    assert "--pool: '' must be a word" in capsys.readouterr().err


def test_what_has_no_default_is_missing_by_the_name_of_its_flag_and_variable() -> None:
    with pytest.raises(SettingsInvalid, match=r"--lora-dir-prefix is missing.*LORADROP_LORA_DIR_PREFIX"):
        _ = values()[LORA_DIR_PREFIX]


def test_one_setting_may_have_another_flag_on_another_command_line() -> None:
    variables = {"LORADROP_API_PORT": "9001"}
    assert values("--port", "9002", process=Process.API)[API_PORT] == 9002
    assert values("--api-port", "9002", process=Process.SERVE)[API_PORT] == 9002
    assert values(process=Process.API, variables=variables)[API_PORT] == 9001
    assert values(process=Process.SERVE, variables=variables)[API_PORT] == 9001


@pytest.mark.parametrize(
    ("text", "allowed"), [("1", True), ("true", True), ("ON", True), ("y", True), ("0", False), ("no", False)]
)
def test_a_switch_is_a_variable_or_a_pair_of_flags(text: str, allowed: bool) -> None:
    assert values(variables={"LORADROP_ALLOW_PICKLE": text})[ALLOW_PICKLE] is allowed
    assert values("--no-allow-pickle", variables={"LORADROP_ALLOW_PICKLE": "1"})[ALLOW_PICKLE] is False
    assert values("--allow-pickle", variables={"LORADROP_ALLOW_PICKLE": "0"})[ALLOW_PICKLE] is True


def test_several_values_are_several_flags_or_one_variable_with_a_separator(tmp_path: Path) -> None:
    first, second = tmp_path / "a:b", tmp_path / "c"
    flags = ("--allow-symlinks-to", str(first), "--allow-symlinks-to", str(second))
    assert values(*flags)[ALLOW_SYMLINKS_TO] == (first, second)
    variable = {"LORADROP_ALLOW_SYMLINKS_TO": f"{tmp_path}:{second}"}
    assert values(variables=variable)[ALLOW_SYMLINKS_TO] == (tmp_path, second)


def test_keys_stand_between_commas_and_have_no_flag() -> None:
    variable = {"LORADROP_API_KEY": " one, two read ,,"}
    assert values(process=Process.API, variables=variable)[API_KEY] == ("one", "two read")
    assert values(process=Process.API).given(API_KEY) is None
    with pytest.raises(SystemExit):
        values("--api-key", "secret", process=Process.API)


@pytest.mark.parametrize("text", [" ", ",", " , ", ",,"])
def test_a_variable_that_should_hold_keys_and_holds_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsInvalid, match="LORADROP_API_KEY"):
        values(process=Process.API, variables={"LORADROP_API_KEY": text})


def test_a_secret_is_in_no_message() -> None:
    with pytest.raises(SettingsInvalid) as refused:
        values(process=Process.API, variables={"LORADROP_API_KEY": ","})
    assert "','" not in str(refused.value).replace("with ',' between", "")


@pytest.mark.parametrize(("text", "preload"), [("none", 0), ("all", None), ("0", 0), ("12", 12)])
def test_how_many_to_load_ahead(text: str, preload: int | None) -> None:
    assert values("--lora-preload", text, process=Process.SERVE)[LORA_PRELOAD] == preload


def test_words_are_known_in_upper_and_lower_case() -> None:
    assert values("--notifier", "INotify")[NOTIFIER] == "inotify"


def test_paths_are_absolute_and_know_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert values("--lora-dir-prefix", "~/loras")[LORA_DIR_PREFIX] == tmp_path / "loras"
    assert values("--lora-dir-prefix", "loras")[LORA_DIR_PREFIX] == tmp_path / "loras"


def test_port_0_is_any_free_one() -> None:
    assert values("--metrics-port", "0")[METRICS_PORT] == 0


@pytest.mark.parametrize(
    ("process", "flag", "value", "advice"),
    [
        (Process.SERVE, "--lora-discovery-interval", "soon", "must be a number, 0 or more"),
        (Process.SERVE, "--lora-discovery-interval", "nan", "must be a number, 0 or more"),
        (Process.SERVE, "--lora-cache-size", "0", "must be a number, 0.001 or more"),
        (Process.SERVE, "--lora-copy-bandwidth", "-5", "must be a number, 0 or more"),
        (Process.SERVE, "--api-port", "65536", "must be a port, 0 to 65535"),
        (Process.SERVE, "--lora-preload", "some", "must be none, all, or a number of adapters"),
        (Process.SERVE, "--lora-preload", "-1", "must be none, all, or a number of adapters"),
        (Process.SERVE, "--notifier", "fsevents", "must be auto, inotify, watchdog or none"),
        (Process.SERVE, "--pool", "a:b", "must be a word without braces, colons or spaces"),
        (Process.SERVE, "--pool", "a\nb", "must be a word without braces, colons or spaces"),
        (Process.API, "--api-port", "http", "must be a port, 0 to 65535"),
        (Process.API, "--pool", "{a}", "must be a word without braces, colons or spaces"),
        (Process.API, "--log-level", "loud", "must be DEBUG, INFO, WARNING or ERROR"),
        (Process.WATCH, "--lora-discovery-interval", "-1", "must be a number, 0 or more"),
        (Process.WATCH, "--lora-settle", "inf", "must be a number, 0 or more"),
        (Process.WATCH, "--removal-grace", "-1", "must be a number, 0 or more"),
        (Process.WATCH, "--mass-removal-share", "2", "must be a number, 0 to 1"),
        (Process.WATCH, "--mass-removal-count", "-1", "must be a whole number, 0 or more"),
        (Process.WATCH, "--mass-removal-grace", "x", "must be a number, 0 or more"),
        (Process.WATCH, "--verify-interval", "-1", "must be a number, 0 or more"),
        (Process.WATCH, "--prefix-marker", "a/b", "must be the name of a file"),
        (Process.WATCH, "--pool", "a b", "must be a word without braces, colons or spaces"),
        (Process.WATCH, "--log-level", "loud", "must be DEBUG, INFO, WARNING or ERROR"),
    ],
)
def test_a_value_that_cannot_be_used_names_its_source_and_what_can(
    process: Process, flag: str, value: str, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    variable = f"LORADROP_{flag[2:].replace('-', '_').upper()}"
    with pytest.raises(SettingsInvalid, match=advice) as caught:
        values(process=process, variables={variable: value})
    assert str(caught.value).startswith(f"{variable} {value!r}: ")
    [setting] = [setting for setting in settings_of(process) if setting.variable == variable]
    own_flag = setting.flag(process)
    with pytest.raises(SystemExit) as ended:
        values(f"{own_flag}={value}", process=process)
    assert ended.value.code == 2
    assert f"{own_flag}: {value!r} {advice}" in capsys.readouterr().err


def test_a_flag_keeps_its_text_so_that_arguments_can_be_shown_and_handed_on() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser, settings_of(Process.SERVE), Process.SERVE)
    parsed = parser.parse_args(["--lora-cache-dir", "~/x", "--api-port", "08001"])
    assert (parsed.lora_cache_dir, parsed.api_port, parsed.lora_settle) == ("~/x", "08001", None)


@pytest.mark.parametrize("setting", ALL, ids=lambda setting: setting.name)
def test_every_declaration_has_help_a_default_that_works_and_a_name_of_its_own(setting: Setting[Any]) -> None:
    assert setting.help.endswith((".", "..."))
    assert setting.of
    if setting.default is not None:
        assert setting.kind.parse([setting.default]) == setting.default_value
    assert [other.variable for other in ALL].count(setting.variable) == 1
    assert (setting.kind is SWITCH) or setting.kind.metavar


def test_a_path_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match="UTF-8"):
        values(variables={"LORADROP_LORA_DIR_PREFIX": os.fsdecode(b"/loras/\xff")})
