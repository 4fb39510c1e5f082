"""Settings are validated where they are made."""

from pathlib import Path
from typing import Any

import pytest

from loradrop.watcher.settings import Settings, SettingsInvalid
from loradrop.watcher.state.removal import RemovalRule
from loradrop.watcher.state.settle import SettleRule


def test_the_prefix_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings(prefix=Path("loras")).prefix == tmp_path / "loras"


@pytest.mark.parametrize("path", ["/p/caf\udce9", "/p/a\nb", "/p/\x1b[2J"])
def test_a_prefix_that_cannot_be_written_down_is_refused_with_a_sentence(path: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"--lora-dir-prefix .* Rename the directory"):
        Settings(prefix=Path(path))


@pytest.mark.parametrize(
    ("values", "flag"),
    [
        ({"interval_seconds": -1}, "--lora-discovery-interval"),
        ({"interval_seconds": float("inf")}, "--lora-discovery-interval"),
        ({"interval_seconds": float("nan")}, "--lora-discovery-interval"),
        ({"settle": SettleRule(settle_seconds=-1)}, "--lora-settle"),
        ({"removal": RemovalRule(grace_seconds=-1)}, "--removal-grace"),
        ({"removal": RemovalRule(mass_share=2)}, "--mass-removal-share"),
        ({"verify_interval_seconds": -1}, "--verify-interval"),
        ({"threads": 1}, "threads"),
        ({"marker": "a/b"}, "--prefix-marker"),
        ({"marker": ""}, "--prefix-marker"),
        ({"pool": "a:b"}, "--pool"),
        ({"pool": ""}, "--pool"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_the_name_of_its_flag(
    values: dict[str, Any], flag: str
) -> None:
    with pytest.raises(SettingsInvalid, match=flag):
        Settings(prefix=Path("/p"), **values)
