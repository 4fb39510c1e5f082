"""From the text of a flag or variable to a setting's value; each raises ValueError that says what can."""

import math
import os
from collections.abc import Callable
from pathlib import Path

_HIGHEST_PORT = 65_535


def at_least(lowest: float) -> Callable[[str], float]:
    """Return what reads a finite number, `lowest` or more."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < lowest:
            raise ValueError(f"must be a number, {lowest:g} or more")
        return value

    return number


def port(text: str) -> int:
    """Return a port."""
    if not text.isdecimal() or not 0 < int(text) <= _HIGHEST_PORT:
        raise ValueError("must be a port, 1 to 65535")
    return int(text)


def directory(text: str) -> Path:
    """Return an absolute path."""
    if not text:
        raise ValueError("must name a directory")
    return Path(text).expanduser().absolute()


def directories(text: str) -> tuple[Path, ...]:
    """Return the absolute paths in `text`, which stand between colons as in PATH."""
    return tuple(directory(part) for part in text.split(os.pathsep) if part)


def preload(text: str) -> int | None:
    """Return how many adapters; None: all."""
    if text == "none":
        return 0
    if text == "all":
        return None
    if not text.isdecimal():
        raise ValueError("must be none, all, or a number of adapters")
    return int(text)


def notifier(text: str) -> str:
    """Return the name of a notifier."""
    if text not in {"auto", "inotify", "watchdog", "none"}:
        raise ValueError("must be auto, inotify, watchdog or none")
    return text


def switch(text: str) -> bool:
    """Return whether something is on."""
    word = text.lower()
    if word not in {"1", "true", "yes", "on", "0", "false", "no", "off"}:
        raise ValueError("must be 1 or 0")
    return word in {"1", "true", "yes", "on"}
