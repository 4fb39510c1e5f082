"""Kinds of settings: from the text of a flag, a variable or a default to a value."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

_Value = TypeVar("_Value")

_TRUE = {"1", "true", "t", "yes", "y", "on"}
_FALSE = {"0", "false", "f", "no", "n", "off"}


@dataclass(frozen=True, slots=True)
class Kind(Generic[_Value]):
    """How texts become a value; `metavar` stands for it in usage texts.

    `parse` takes one text for each time a flag was given, and raises ValueError with what can be used.
    `separator` stands between several values in one variable; empty where only one makes sense.
    """

    metavar: str
    parse: Callable[[Sequence[str]], _Value]
    separator: str = ""


def _one(metavar: str, parse: Callable[[str], _Value]) -> Kind[_Value]:
    """Return a kind of which the last text counts."""
    return Kind(metavar, lambda texts: parse(texts[-1]))


def _where(
    metavar: str, is_valid: Callable[[str], bool], make: Callable[[str], _Value], demand: str
) -> Kind[_Value]:
    """Return a kind of texts for which `is_valid`; any other must `demand`."""

    def parse(given: str) -> _Value:
        if not is_valid(given):
            raise ValueError(f"must {demand}")
        return make(given)

    return _one(metavar, parse)


def several(kind: Kind[_Value], separator: str) -> Kind[tuple[_Value, ...]]:
    """Return a kind whose flag may be given again, and whose variable holds several."""

    def parse(texts: Sequence[str]) -> tuple[_Value, ...]:
        if not texts:
            raise ValueError(f"must hold a value, or several with {separator!r} between")
        return tuple(kind.parse([text]) for text in texts)

    return Kind(kind.metavar, parse, separator)


def number(metavar: str, *, lowest: float = 0, highest: float = math.inf) -> Kind[float]:
    """Return the kind of finite numbers from `lowest` to `highest`."""
    allowed = f"{lowest:g} or more" if highest == math.inf else f"{lowest:g} to {highest:g}"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or not lowest <= value <= highest:
            raise ValueError(f"must be a number, {allowed}")
        return value

    return _one(metavar, parse)


def choice(*words: str, shown: Sequence[str] = ()) -> Kind[str]:
    """Return the kind of `words`, in upper or lower case as here; `shown` are those that help texts name."""
    shown = shown or words
    known = {word.casefold(): word for word in words}

    def parse(text: str) -> str:
        if text.casefold() not in known:
            raise ValueError(f"must be {', '.join(shown[:-1])} or {shown[-1]}")
        return known[text.casefold()]

    return _one("|".join(shown), parse)


def text(metavar: str) -> Kind[str]:
    """Return the kind of any text but an empty one."""
    return _where(metavar, lambda given: bool(given.strip()), str, "not be empty")


def _path(given: str) -> Path:
    if not given:
        raise ValueError("must name a path")
    if not given.isprintable():
        raise ValueError("must be a path in UTF-8, without control characters")
    return Path(given).expanduser().absolute()


def _preload(given: str) -> int | None:
    """Return how many adapters; None: all."""
    if given == "none":
        return 0
    if given == "all":
        return None
    if not given.isdecimal():
        raise ValueError("must be none, all, or a number of adapters")
    return int(given)


def _is_pool(given: str) -> bool:
    return bool(given) and given.isprintable() and not any(sign in given for sign in "{}: ")


def _is_file_name(given: str) -> bool:
    return "/" not in given and given not in {"", ".", ".."}


SECONDS = number("SECONDS")
PATH = _one("PATH", _path)
WHOLE = _where("N", str.isdecimal, int, "be a whole number, 0 or more")
PORT = _where("PORT", lambda given: given.isdecimal() and int(given) < 1 << 16, int, "be a port, 0 to 65535")
SWITCH = _where(
    "", lambda given: given.lower() in _TRUE | _FALSE, lambda given: given.lower() in _TRUE, "be 1 or 0"
)
PRELOAD = _one("none|all|N", _preload)
POOL = _where("NAME", _is_pool, str, "be a word without braces, colons or spaces")
FILE_NAME = _where("NAME", _is_file_name, str, "be the name of a file")
