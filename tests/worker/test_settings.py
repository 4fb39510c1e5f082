"""What an operator decides: flags over variables over defaults, and sentences for what cannot be used."""

import argparse
import socket
from pathlib import Path

import pytest

from loradrop.worker.settings import NAMED, SettingsError, WorkerSettings, add_flags, settings_from


def settings(*flags: str, **variables: str) -> WorkerSettings:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return settings_from(parser.parse_args(list(flags)), {f"LORADROP_{k}": v for k, v in variables.items()})


def test_defaults() -> None:
    assert settings() == WorkerSettings()
    assert settings().lora_discovery_interval == 30.0
    assert settings().allow_pickle


def test_a_flag_wins_over_a_variable_and_a_variable_over_the_default() -> None:
    assert settings(LORA_DISCOVERY_INTERVAL="300").lora_discovery_interval == 300.0
    assert (
        settings("--lora-discovery-interval", "7", LORA_DISCOVERY_INTERVAL="300").lora_discovery_interval
        == 7.0
    )


def test_an_empty_variable_is_not_given() -> None:
    assert settings(LORA_DIR_PREFIX="", POOL="").lora_dir_prefix is None


def test_every_setting_has_a_flag_and_a_variable(tmp_path: Path) -> None:
    values = {
        "lora_dir_prefix": (str(tmp_path), tmp_path),
        "lora_discovery_interval": ("0", 0.0),
        "redis_url": ("redis://r:1/2", "redis://r:1/2"),
        "pool": ("blue", "blue"),
        "worker_id": ("gpu-7", "gpu-7"),
        "notifier": ("watchdog", "watchdog"),
        "lora_settle": ("0.5", 0.5),
        "lora_cache_dir": (str(tmp_path / "c"), tmp_path / "c"),
        "lora_cache_size": ("1.5", 1.5),
        "lora_copy_bandwidth": ("12.5", 12.5),
        "lora_state_dir": (str(tmp_path / "s"), tmp_path / "s"),
        "lora_preload": ("3", 3),
        "api_host": ("0.0.0.0", "0.0.0.0"),
        "api_port": ("9001", 9001),
    }
    flags = [part for name, (text, _) in values.items() for part in (f"--{name.replace('_', '-')}", text)]
    by_flag = settings(*flags)
    by_variable = settings(**{name.upper(): text for name, (text, _) in values.items()})
    assert by_flag == by_variable
    assert {name: getattr(by_flag, name) for name in values} == {
        name: value for name, (_, value) in values.items()
    }


@pytest.mark.parametrize(
    ("text", "allowed"), [("1", True), ("true", True), ("ON", True), ("0", False), ("no", False)]
)
def test_a_switch_is_a_variable_or_a_pair_of_flags(text: str, allowed: bool) -> None:
    assert settings(ALLOW_PICKLE=text).allow_pickle is allowed
    assert settings("--no-allow-pickle", ALLOW_PICKLE="1").allow_pickle is False
    assert settings("--allow-pickle", ALLOW_PICKLE="0").allow_pickle is True


def test_directories_that_links_may_lead_to_are_given_again_or_between_colons(tmp_path: Path) -> None:
    both = (tmp_path / "a", tmp_path / "b")
    flags = ("--allow-symlinks-to", str(both[0]), "--allow-symlinks-to", str(both[1]))
    assert settings(*flags).allow_symlinks_to == both
    assert settings(ALLOW_SYMLINKS_TO=f"{both[0]}:{both[1]}").allow_symlinks_to == both
    assert settings().allow_symlinks_to == ()


@pytest.mark.parametrize(("text", "preload"), [("none", 0), ("all", None), ("0", 0), ("12", 12)])
def test_how_many_to_load_ahead(text: str, preload: int | None) -> None:
    assert settings("--lora-preload", text).lora_preload == preload


def test_directories_are_absolute_and_know_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert settings("--lora-dir-prefix", "~/loras").lora_dir_prefix == tmp_path / "loras"
    assert settings("--lora-dir-prefix", "loras").lora_dir_prefix == tmp_path / "loras"


def test_the_usual_places_follow_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "s"))
    assert settings().lora_cache_dir == tmp_path / "c" / "loradrop"
    assert settings().lora_state_dir == tmp_path / "s" / "loradrop"
    for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert settings().lora_cache_dir == tmp_path / ".cache" / "loradrop"
    assert settings().lora_state_dir == tmp_path / ".local" / "state" / "loradrop"


@pytest.mark.parametrize(
    ("flag", "value", "advice"),
    [
        ("--lora-discovery-interval", "soon", "number, 0 or more"),
        ("--lora-discovery-interval", "-1", "number, 0 or more"),
        ("--lora-discovery-interval", "nan", "number, 0 or more"),
        ("--lora-settle", "inf", "number, 0 or more"),
        ("--lora-cache-size", "0", "number, 0.001 or more"),
        ("--lora-copy-bandwidth", "-5", "number, 0 or more"),
        ("--api-port", "http", "port, 1 to 65535"),
        ("--api-port", "0", "port, 1 to 65535"),
        ("--api-port", "65536", "port, 1 to 65535"),
        ("--lora-preload", "some", "none, all, or a number"),
        ("--lora-preload", "-1", "none, all, or a number"),
        ("--notifier", "fsevents", "auto, inotify, watchdog or none"),
    ],
)
def test_a_value_that_cannot_be_used_names_its_source_and_what_can(
    flag: str, value: str, advice: str
) -> None:
    with pytest.raises(SettingsError, match=advice) as caught:
        settings(f"{flag}={value}")
    assert str(caught.value).startswith(f"{flag} '{value}'")
    variable = flag.removeprefix("--").replace("-", "_").upper()
    with pytest.raises(SettingsError, match=advice) as caught:
        settings(**{variable: value})
    assert str(caught.value).startswith(f"LORADROP_{variable} '{value}'")


def test_a_switch_is_1_or_0() -> None:
    with pytest.raises(SettingsError, match="LORADROP_ALLOW_PICKLE 'perhaps': must be 1 or 0"):
        settings(ALLOW_PICKLE="perhaps")


def test_an_empty_directory_is_no_directory() -> None:
    assert settings("--lora-dir-prefix", "").lora_dir_prefix is None


def test_a_prefix_or_a_redis_is_a_catalog() -> None:
    assert not settings().has_catalog
    assert settings("--lora-dir-prefix", "/loras").has_catalog
    assert settings("--redis-url", "redis://r").has_catalog


def test_we_are_asked_for_by_a_catalog_by_name_and_by_vllms_plugins() -> None:
    assert not settings().asked_for
    assert settings("--lora-dir-prefix", "/loras").asked_for
    assert settings_from(argparse.Namespace(**{NAMED: True}), {}).asked_for
    assert settings_from(argparse.Namespace(), {"VLLM_PLUGINS": "other,loradrop"}).asked_for
    assert not settings_from(argparse.Namespace(), {"VLLM_PLUGINS": "other"}).asked_for
    assert not settings("--pool", "blue").asked_for


def test_keys_come_from_one_variable_with_commas_between() -> None:
    assert settings(API_KEY=" one, two ,,").api_keys == ("one", "two")
    assert settings().api_keys == ()


@pytest.mark.parametrize(
    ("host", "rank", "identity"),
    [
        ("10.0.0.7", 0, "10.0.0.7:8000"),
        ("10.0.0.7", 2, "10.0.0.7:8000#2"),
        (None, 0, f"{socket.gethostname()}:8000"),
        ("0.0.0.0", 1, f"{socket.gethostname()}:8000#1"),
        ("::", 0, f"{socket.gethostname()}:8000"),
    ],
)
def test_a_worker_is_known_by_host_port_and_process(host: str | None, rank: int, identity: str) -> None:
    assert settings().identity(host=host, port=8000, process_rank=rank) == identity


def test_a_worker_can_be_given_a_name() -> None:
    named = settings("--worker-id", "gpu-7")
    assert named.identity(host=None, port=8000, process_rank=0) == "gpu-7"
    assert named.identity(host=None, port=8000, process_rank=1) == "gpu-7#1"
