"""The state of an embedded stack: one directory for each pool and prefix, one owner for each directory."""

import stat
from pathlib import Path

import pytest

from loradrop.catalog.settings import SettingsInvalid
from loradrop.worker.fleet.state_directory import StateDirectory
from loradrop.worker.settings import WorkerSettings


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    prefix = tmp_path / "loras"
    prefix.mkdir()
    return prefix


@pytest.fixture
def state(tmp_path: Path, prefix: Path) -> StateDirectory:
    return state_of(tmp_path, prefix)


def state_of(tmp_path: Path, prefix: Path, *, pool: str = "default") -> StateDirectory:
    return StateDirectory(
        WorkerSettings(lora_dir_prefix=prefix, lora_state_dir=tmp_path / "state", pool=pool)
    )


def test_each_prefix_and_pool_has_a_directory_of_its_own_that_says_whose_it_is(
    tmp_path: Path, prefix: Path, state: StateDirectory
) -> None:
    other = state_of(tmp_path, tmp_path / "others")
    paths = {state.path, other.path, state_of(tmp_path, prefix, pool="other").path}
    assert len(paths) == 3
    assert {path.parent for path in paths} == {tmp_path / "state"}
    with state.owned(), other.owned():
        assert (state.path / "prefix").read_text() == f"{prefix}\n"
        assert (other.path / "prefix").read_text() == f"{tmp_path}/others\n"


def test_a_prefix_is_the_same_through_a_link(tmp_path: Path, prefix: Path, state: StateDirectory) -> None:
    (tmp_path / "link").symlink_to(prefix)
    assert state_of(tmp_path, tmp_path / "link").path == state.path


def test_a_prefix_may_have_any_name(tmp_path: Path) -> None:
    state = state_of(tmp_path, Path(f"{tmp_path}/\udcff"))
    with state.owned():
        assert (state.path / "prefix").read_bytes().endswith(b"/\xff\n")


def test_the_lock_is_for_its_owner_alone(state: StateDirectory) -> None:
    with state.owned():
        assert stat.S_IMODE((state.path / "lock").stat().st_mode) == 0o600


def test_one_owner_at_a_time(tmp_path: Path, prefix: Path, state: StateDirectory) -> None:
    second = state_of(tmp_path, prefix)
    assert not state.is_owned()
    with state.owned():
        assert second.is_owned()
        with pytest.raises(SettingsInvalid, match="--lora-state-dir"), second.owned():
            pytest.fail("two owners")
    assert not second.is_owned()
    with second.owned():
        pass


def test_urls_are_there_while_there_is_an_owner(state: StateDirectory) -> None:
    assert state.url_of("redis") is None
    with state.owned():
        assert state.url_of("redis") is None
        state.publish("redis", "redis://127.0.0.1:6399/0")
        state.publish("api", "http://127.0.0.1:8001")
        assert state.url_of("redis") == "redis://127.0.0.1:6399/0"
        assert state.url_of("api") == "http://127.0.0.1:8001"
    assert not list(state.path.glob("*.url*"))


def test_a_url_that_a_killed_owner_left_says_nothing(state: StateDirectory) -> None:
    state.path.mkdir(parents=True)
    (state.path / "lock").touch()
    (state.path / "redis.url").write_text("redis://127.0.0.1:1/0\n")
    assert state.url_of("redis") is None
    with state.owned():
        assert state.url_of("redis") is None
