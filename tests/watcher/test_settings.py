"""The watcher's settings: from flags and variables to values."""

from pathlib import Path

import pytest

from loradrop.catalog.settings import Process, SettingsInvalid, parse_command_line
from loradrop.catalog.settings.declared import settings_of
from loradrop.watcher.settings import NotifierChoice, Settings
from loradrop.watcher.state.removal import RemovalRule
from loradrop.watcher.state.settle import SettleRule


def settings(*flags: str, **variables: str) -> Settings:
    return parse_command_line(
        settings_of(Process.WATCH),
        Process.WATCH,
        Settings.of,
        description="",
        arguments=flags,
        environment={f"LORADROP_{name}": text for name, text in variables.items()},
    )


def test_the_prefix_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings(prefix=Path("loras")).prefix == tmp_path / "loras"


def test_what_is_declared_and_what_the_rules_say_by_themselves_is_the_same() -> None:
    assert settings("--lora-dir-prefix", "/loras") == Settings(prefix=Path("/loras"))


def test_every_setting_has_a_flag_and_a_variable() -> None:
    texts = {
        "LORA_DIR_PREFIX": "/loras",
        "LORA_DISCOVERY_INTERVAL": "7",
        "REDIS_URL": "redis://r:1/2",
        "POOL": "blue",
        "NOTIFIER": "watchdog",
        "LORA_SETTLE": "0.5",
        "ALLOW_SYMLINKS_TO": "/elsewhere",
        "PREFIX_MARKER": ".mounted",
        "REMOVAL_GRACE": "2",
        "MASS_REMOVAL_SHARE": "0.25",
        "MASS_REMOVAL_COUNT": "9",
        "MASS_REMOVAL_GRACE": "60",
        "VERIFY_INTERVAL": "3600",
        "METRICS_HOST": "0.0.0.0",
        "METRICS_PORT": "9100",
        "LOG_LEVEL": "debug",
    }
    flags = [part for name, text in texts.items() for part in (f"--{name.lower().replace('_', '-')}", text)]
    expected = Settings(
        prefix=Path("/loras"),
        redis_url="redis://r:1/2",
        pool="blue",
        interval_seconds=7,
        notifier=NotifierChoice.WATCHDOG,
        allow_pickle=False,
        allow_symlinks_to=(Path("/elsewhere"),),
        marker=".mounted",
        settle=SettleRule(settle_seconds=0.5),
        removal=RemovalRule(grace_seconds=2, mass_share=0.25, mass_count=9, mass_grace_seconds=60),
        verify_interval_seconds=3600,
        metrics_host="0.0.0.0",
        metrics_port=9100,
        log_level="DEBUG",
    )
    assert settings(*flags, "--no-allow-pickle") == expected
    assert settings(**texts, ALLOW_PICKLE="0") == expected


def test_too_few_threads_are_refused() -> None:
    with pytest.raises(SettingsInvalid, match="threads"):
        Settings(prefix=Path("/loras"), threads=1)


def test_a_password_in_the_url_is_in_no_representation() -> None:
    assert "secret" not in repr(Settings(prefix=Path("/loras"), redis_url="redis://:secret@r"))
