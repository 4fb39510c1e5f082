"""The ways in which a prefix goes away, and comes back as it was."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from tests.faults.watchers import works


@contextmanager
def gone(prefix: Path) -> Iterator[None]:
    """The directory is renamed, and nothing takes its place."""
    away = prefix.rename(prefix.parent / "away")
    yield
    away.rename(prefix)


@contextmanager
def made_anew(prefix: Path) -> Iterator[None]:
    """The directory is renamed, and an empty one takes its place."""
    with gone(prefix):
        prefix.mkdir()
        yield
        prefix.rmdir()


@contextmanager
def a_link(prefix: Path) -> Iterator[None]:
    """A link to an empty directory takes the place of the directory."""
    empty = prefix.parent / "empty"
    empty.mkdir()
    with gone(prefix):
        prefix.symlink_to(empty)
        yield
        prefix.unlink()
    empty.rmdir()


@contextmanager
def emptied(prefix: Path) -> Iterator[None]:
    """All that the directory holds is moved elsewhere; the directory stays the same."""
    aside = prefix.parent / "aside"
    aside.mkdir()
    for child in list(prefix.iterdir()):
        child.rename(aside / child.name)
    yield
    for child in list(aside.iterdir()):
        child.rename(prefix / child.name)
    aside.rmdir()


@contextmanager
def mounted_over(prefix: Path) -> Iterator[None]:
    """An empty directory of the same filesystem is mounted over the directory."""
    empty = prefix.parent / "empty"
    empty.mkdir()
    _run("mount", "--bind", str(empty), str(prefix))
    yield
    _run("umount", "--lazy", str(prefix))
    empty.rmdir()


LOSSES: Final[dict[str, Callable[[Path], AbstractContextManager[None]]]] = {
    "prefix_gone": gone,
    "prefix_made_anew": made_anew,
    "prefix_a_link": a_link,
    "prefix_emptied": emptied,
    "prefix_mounted_over": mounted_over,
}


def possible() -> list[str]:
    """Return the losses that this machine allows."""
    may_mount = works("unshare", "--mount", "true") and works("mount", "--fake", "--bind", "/tmp", "/tmp")
    return [name for name in LOSSES if may_mount or name != "prefix_mounted_over"]


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
