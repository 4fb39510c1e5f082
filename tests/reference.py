"""`make docs`: write what documents say of the code from the code: settings, and every reason code.

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`; `tests/test_reference.py` fails
while one is stale.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from loradrop.catalog.settings import Process, Setting
from loradrop.catalog.settings.declared import ALL
from loradrop.catalog.settings.kinds import SWITCH
from tests.reason_codes import reasons_table

ROOT = Path(__file__).parents[1]
FILES = ("README.md", "docs/settings.md", "docs/reasons.md")
_PART = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def current(text: str) -> str:
    """Return a document with its generated parts as they should be."""
    return _PART.sub(lambda part: f"{part[1]}\n{_PARTS[part[2]]()}\n{part[3]}", text)


def _everyday_settings() -> str:
    settings = [
        setting for setting in ALL if not setting.is_advanced and Process.CLIENT not in setting.of[:1]
    ]
    return _table(
        ("flag", "of", "meaning", "default"),
        [(_flags(setting), _of(setting), setting.help, setting.shown_default) for setting in settings],
    )


def _all_settings() -> str:
    return _table(
        ("flag", "variable", "of", "meaning", "default", "why"),
        [
            (
                _flags(setting),
                f"`{setting.variable}`",
                _of(setting),
                setting.help,
                setting.shown_default,
                setting.why,
            )
            for setting in ALL
        ],
    )


def _flags(setting: Setting[Any]) -> str:
    if setting.is_secret:
        return f"`{setting.variable}`"
    if setting.kind is SWITCH:
        return f"`--{setting.name}`, `--no-{setting.name}`"
    others = "".join(f" ({process}: `{flag}`)" for process, flag in setting.flags.items())
    return f"`--{setting.name} {setting.kind.metavar}`{others}"


def _of(setting: Setting[Any]) -> str:
    client = "ls, status, refresh, wait"
    return ", ".join(client if process is Process.CLIENT else process for process in setting.of)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


_PARTS: dict[str, Callable[[], str]] = {
    "everyday-settings": _everyday_settings,
    "all-settings": _all_settings,
    "reasons": lambda: _table(("code", "meaning", "what to do", "from"), reasons_table()),
}


def main() -> None:
    """Write every document anew."""
    for name in FILES:
        path = ROOT / name
        path.write_text(current(path.read_text()))


if __name__ == "__main__":
    main()
