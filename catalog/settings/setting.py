"""What a setting is, how its flag is added to a parser, and how its value is found.

A parsed flag keeps its text: the value is made where flags and variables meet, in `read_values`, so that the
arguments of a server, which vLLM logs and hands to other processes, stay what was typed.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, NoReturn, TypeVar

from loradrop.catalog.errors import LoradropError
from loradrop.catalog.settings.kinds import SWITCH, Kind

_Value = TypeVar("_Value")
_Made = TypeVar("_Made")

_VARIABLE_PREFIX = "LORADROP_"


class SettingsInvalid(LoradropError):
    """A setting has a value that cannot work; the message names it and says what can."""

    code = "settings_invalid"


class Process(StrEnum):
    """Which command a setting is of."""

    SERVE = "serve"
    WATCH = "watch"
    API = "api"
    CLIENT = "client"
    """`loradrop ls`, `status`, `refresh` and `wait`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setting(Generic[_Value]):
    """One setting: `--NAME`, or LORADROP_NAME.

    `default` is text, as a flag's; None where there is none, which `otherwise` then explains. `why` says why
    the default is what it is. `flags` are those that differ from the name: `loradrop api` has `--host` where
    `loradrop serve` has `--api-host`. A secret has a variable alone: command lines are visible to every user.
    """

    name: str
    kind: Kind[_Value]
    of: tuple[Process, ...]
    help: str
    default: str | None = None
    otherwise: str = ""
    why: str = ""
    flags: Mapping[Process, str] = field(default_factory=dict)
    is_secret: bool = False
    is_advanced: bool = False
    """Not in the README's table."""

    @property
    def variable(self) -> str:
        """The environment variable."""
        return _VARIABLE_PREFIX + self.name.upper().replace("-", "_")

    def flag(self, process: Process) -> str | None:
        """Return the flag on the command line of `process`."""
        return None if self.is_secret else self.flags.get(process, f"--{self.name}")

    @property
    def default_value(self) -> _Value:
        """The value of the default; raises SettingsInvalid where there is none."""
        if self.default is None:
            raise SettingsInvalid(f"--{self.name} is missing. Give it, or set {self.variable}.")
        return self.kind.parse([self.default])

    @property
    def shown_default(self) -> str:
        """The default, or what happens without one."""
        return self.otherwise or self.default or ""


class Values:
    """What the settings of one process are."""

    def __init__(self, given: Mapping[Setting[Any], Any]) -> None:
        self._given = given

    def __getitem__(self, setting: Setting[_Value]) -> _Value:
        """Return what was given, else the default; raises SettingsInvalid where there is neither."""
        if setting not in self._given:
            return setting.default_value
        value: _Value = self._given[setting]
        return value

    def given(self, setting: Setting[_Value]) -> _Value | None:
        """Return what was given, or None; the default does not count."""
        return self._given.get(setting)


def add_flags(parser: Any, settings: Iterable[Setting[Any]], process: Process) -> None:
    """Add the flags of `settings` to an argparse parser or group. One that is not given leaves no trace."""
    for setting in settings:
        flag = setting.flag(process)
        if flag is None:
            continue
        default = f"; default: {setting.shown_default}" if setting.shown_default else ""
        text = f"{setting.help} [{setting.variable}{default}]".replace("%", "%%")
        given: dict[str, Any] = {"default": argparse.SUPPRESS, "help": text}
        if setting.kind is SWITCH:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **given)
            continue
        parser.add_argument(
            flag,
            action="append" if setting.kind.separator else "store",
            type=_checked(setting),
            metavar=setting.kind.metavar,
            **given,
        )


def read_values(
    settings: Iterable[Setting[Any]],
    process: Process,
    arguments: argparse.Namespace,
    environment: Mapping[str, str],
) -> Values:
    """Return what `settings` are by the parsed `arguments` and the `environment`; raises SettingsInvalid.

    An empty variable is not given.
    """
    given = {}
    for setting in settings:
        flag = setting.flag(process)
        text = None if flag is None else getattr(arguments, flag[2:].replace("-", "_"), None)
        if isinstance(text, bool):
            given[setting] = text
        elif text is not None:
            given[setting] = _parsed(setting, [text] if isinstance(text, str) else text, str(flag))
        elif in_variable := environment.get(setting.variable):
            given[setting] = _parsed(setting, _split(setting, in_variable), setting.variable)
    return Values(given)


def parse_command_line(
    settings: Iterable[Setting[Any]],
    process: Process,
    make: Callable[[Values], _Made],
    *,
    description: str,
    arguments: Sequence[str] | None,
    environment: Mapping[str, str],
) -> _Made:
    """Return what `make` makes of the flags and variables, or end the process with a sentence and code 2."""
    settings = tuple(settings)
    parser = _Parser(
        prog=f"loradrop {process}", description=description, usage="%(prog)s [FLAGS]", allow_abbrev=False
    )
    add_flags(parser, settings, process)
    parsed = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    try:
        return make(read_values(settings, process, parsed, environment))
    except SettingsInvalid as error:
        parser.error(error.message)


class _Parser(argparse.ArgumentParser):
    """Ends with one sentence instead of all flags."""

    def error(self, message: str) -> NoReturn:
        sentence = message[:1].upper() + message[1:]
        self.exit(2, f"{self.prog}: {sentence}\n`{self.prog} --help` lists the flags.\n")


def _checked(setting: Setting[Any]) -> Callable[[str], str]:
    def checked(text: str) -> str:
        try:
            setting.kind.parse([text])
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} {error}") from error
        return text

    return checked


def _parsed(setting: Setting[Any], texts: Sequence[str], source: str) -> Any:
    try:
        return setting.kind.parse(texts)
    except ValueError as error:
        shown = "" if setting.is_secret else f" {' '.join(texts)!r}"
        raise SettingsInvalid(f"{source}{shown}: {error}.") from error


def _split(setting: Setting[Any], text: str) -> list[str]:
    separator = setting.kind.separator
    if not separator:
        return [text]
    return [part for entry in text.split(separator) if (part := entry.strip())]
