"""The worker's settings: from vLLM's parsed arguments and the environment to values."""

import argparse
import socket
from pathlib import Path

import pytest

from loradrop.catalog.settings import SettingsInvalid
from loradrop.worker.settings import NAMED, WorkerSettings, add_flags, settings_from


def settings(*flags: str, **variables: str) -> WorkerSettings:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return settings_from(parser.parse_args(list(flags)), {f"LORADROP_{k}": v for k, v in variables.items()})


def test_defaults() -> None:
    assert settings() == WorkerSettings()
    assert settings().redis_url is None


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
        "api_key_file": (str(tmp_path / "k"), tmp_path / "k"),
        "allow_symlinks_to": (str(tmp_path / "e"), (tmp_path / "e",)),
    }
    flags = [part for name, (text, _) in values.items() for part in (f"--{name.replace('_', '-')}", text)]
    by_flag = settings(*flags)
    by_variable = settings(**{name.upper(): text for name, (text, _) in values.items()})
    assert by_flag == by_variable
    assert {name: getattr(by_flag, name) for name in values} == {
        name: value for name, (_, value) in values.items()
    }
    assert settings("--no-allow-pickle").allow_pickle is settings(ALLOW_PICKLE="0").allow_pickle is False
    assert settings(API_KEY="one,two read").api_keys == ("one", "two read")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("VLLM_SKIP_MODEL_NAME_VALIDATION", "1"),
        ("VLLM_SKIP_MODEL_NAME_VALIDATION", "True"),
        ("VLLM_USE_RUST_FRONTEND", "1"),
    ],
)
def test_a_vllm_that_would_not_serve_what_is_discovered_is_refused(variable: str, value: str) -> None:
    asking = argparse.Namespace(lora_dir_prefix="/loras")
    with pytest.raises(SettingsInvalid, match=f"Unset {variable}"):
        settings_from(asking, {variable: value})
    assert settings_from(asking, {variable: "0"}).has_catalog
    assert not settings_from(argparse.Namespace(), {variable: value}).has_catalog


def test_vllms_grpc_server_is_refused_where_adapters_are_to_be_served() -> None:
    with pytest.raises(SettingsInvalid, match="Leave out --grpc"):
        settings_from(argparse.Namespace(lora_dir_prefix="/loras", grpc=True), {})
    assert not settings_from(argparse.Namespace(grpc=True), {}).has_catalog


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


def test_a_prefix_or_a_redis_is_a_catalog() -> None:
    assert not settings().has_catalog
    assert settings("--lora-dir-prefix", "/loras").has_catalog
    assert settings("--redis-url", "redis://r").has_catalog


def test_the_plugin_is_asked_for_by_a_catalog_by_name_and_by_vllms_plugins() -> None:
    assert not settings().asked_for
    assert settings("--lora-dir-prefix", "/loras").asked_for
    assert settings_from(argparse.Namespace(**{NAMED: True}), {}).asked_for
    assert settings_from(argparse.Namespace(), {"VLLM_PLUGINS": "other,loradrop"}).asked_for
    assert not settings_from(argparse.Namespace(), {"VLLM_PLUGINS": "other"}).asked_for
    assert not settings("--pool", "blue").asked_for


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


def test_secrets_are_in_no_representation() -> None:
    shown = repr(settings("--redis-url", "redis://:secret@r", API_KEY="secret"))
    assert "secret" not in shown
