"""A directory for the files an input becomes, made once: making one for each would take most of the time."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory


@cache
def _made() -> "TemporaryDirectory[str]":
    return TemporaryDirectory(prefix="loradrop-fuzz-")  # removed when the process ends


def emptied(name: str) -> Path:
    """Return the directory `name` of this process, with no file in it."""
    directory = Path(_made().name) / name
    directory.mkdir(exist_ok=True)
    for path in directory.iterdir():
        path.unlink()
    return directory
