"""The command line of a process that is ours from the beginning: `loradrop watch` and `loradrop api`."""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from loradrop.catalog.settings.setting import (
    Process,
    Setting,
    SettingsInvalid,
    Values,
    add_flags,
    read_values,
)

_Settings = TypeVar("_Settings")


class _Parser(argparse.ArgumentParser):
    """Ends with one sentence instead of all flags."""

    def error(self, message: str) -> NoReturn:
        sentence = message[:1].upper() + message[1:]
        self.exit(2, f"{self.prog}: {sentence}\n`{self.prog} --help` lists the flags.\n")


def parse_command_line(
    settings: Iterable[Setting[Any]],
    process: Process,
    make: Callable[[Values], _Settings],
    *,
    description: str,
    arguments: Sequence[str] | None,
    environment: Mapping[str, str],
) -> _Settings:
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
