"""What is hinted: whatever happens to an adapter, and nothing besides."""

import shutil
from collections.abc import Callable
from pathlib import Path

from loradrop.watcher.notify.inotify import InotifyNotifier
from loradrop.watcher.notify.notifier import Hint, Notifier
from testkit.adapters import write_adapter
from tests.watcher.notifiers import following, until


async def test_whatever_happens_to_an_adapter_is_hinted(
    make: Callable[[Path, Callable[[Hint], None]], Notifier], tmp_path: Path
) -> None:
    prefix = tmp_path / "p"
    write_adapter(prefix / "old")
    hints: list[Hint] = []
    notifier = make(prefix, hints.append)
    notifier.cover(["old"])
    assert notifier.covers("old")
    assert notifier.blind is None
    async with following(notifier):
        for name, action in _actions(prefix, tmp_path):
            hints.clear()
            action()
            await until(lambda name=name: any(hint.name == name for hint in hints), f"{name} is hinted")  # type: ignore[misc]


def _actions(prefix: Path, outside: Path) -> list[tuple[str, Callable[[], object]]]:
    """What can happen to an adapter, in this order, and the name that must be hinted."""
    moved = prefix / "moved"
    return [
        ("old", lambda: write_adapter(prefix / "old", seed=2)),
        ("old", (prefix / "old" / "adapter_config.json").unlink),
        ("made", lambda: write_adapter(prefix / "made")),
        ("moved", lambda: write_adapter(outside / "aside").rename(moved)),
        ("moved", lambda: (moved / "adapter_model.safetensors").rename(moved / "adapter_model.bin")),
        ("renamed", lambda: moved.rename(prefix / "renamed")),
        ("renamed", lambda: write_adapter(prefix / "renamed", seed=2)),
        ("old", lambda: shutil.rmtree(prefix / "old")),
    ]


async def test_a_directory_that_came_by_a_rename_is_said_to_have_arrived(tmp_path: Path) -> None:
    hints: list[Hint] = []
    prefix = tmp_path / "p"
    prefix.mkdir()
    async with following(InotifyNotifier(prefix, hints.append)):
        write_adapter(tmp_path / "aside").rename(prefix / "sql")
        await until(lambda: bool(hints), "a hint")
        assert hints == [Hint("sql", arrived=True)]


async def test_temporary_names_are_not_hinted_and_a_flip_of_data_hints_everything(
    make: Callable[[Path, Callable[[Hint], None]], Notifier], tmp_path: Path
) -> None:
    hints: list[Hint] = []
    async with following(make(tmp_path, hints.append)):
        write_adapter(tmp_path / ".tmp-sql")
        (tmp_path / "..data_tmp").symlink_to("x")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        await until(lambda: Hint(None) in hints, "everything is hinted")
        assert {hint.name for hint in hints} == {None}


async def test_other_files_beside_the_weights_are_not_hinted(tmp_path: Path) -> None:
    write_adapter(tmp_path / "sql")
    hints: list[Hint] = []
    notifier = InotifyNotifier(tmp_path, hints.append)
    notifier.cover(["sql", "not there"])
    assert not notifier.covers("not there")
    async with following(notifier):
        (tmp_path / "sql" / "train.log").write_text("x")
        (tmp_path / "other").mkdir()
        await until(lambda: bool(hints), "a hint")
        assert {hint.name for hint in hints} == {"other"}


async def test_reading_and_writing_on_does_not_flood(tmp_path: Path) -> None:
    weights = write_adapter(tmp_path / "sql") / "adapter_model.safetensors"
    hints: list[Hint] = []
    notifier = InotifyNotifier(tmp_path, hints.append)
    notifier.cover(["sql"])
    async with following(notifier):
        for _ in range(50):
            weights.read_bytes()
        with weights.open("r+b") as file:
            for _ in range(50):
                file.write(b"x")
                file.flush()
        await until(lambda: bool(hints), "a hint")
        assert len(hints) == 1


async def test_a_change_of_the_prefix_itself_hints_everything(tmp_path: Path) -> None:
    hints: list[Hint] = []
    async with following(InotifyNotifier(tmp_path, hints.append)):
        _change_mode(tmp_path)
        await until(lambda: Hint(None) in hints, "everything is hinted")


def _change_mode(directory: Path) -> None:
    directory.chmod(0o755)
