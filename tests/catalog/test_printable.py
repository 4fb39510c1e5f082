"""What comes from elsewhere neither breaks a log line nor commands a terminal."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loradrop.catalog.printable import printable
from loradrop.catalog.process_log import PrintableRecords


@given(st.text(st.characters(exclude_categories=())))
def test_everything_becomes_printable_and_what_is_printable_stays(text: str) -> None:
    assert printable(text).isprintable()
    assert text.isprintable() <= (printable(text) == text)
    printable(text).encode()  # also what UTF-8 cannot hold


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a\\nb"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b2J", "\\x9b2J"),
        ("\u202etxt", "\\u202etxt"),
        ("\u2028", "\\u2028"),
        ("\udcff", "\\xff"),
        ("grün", "grün"),
    ],
)
def test_an_escape_says_which_character_it_stands_for(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_some_characters_may_be_kept() -> None:
    assert printable("a\nb\r", keep="\n") == "a\nb\\r"


def logged(*, of: str = "", name: str = "loradrop.x", error: BaseException | None = None) -> str:
    info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord(name, logging.INFO, "", 1, "adapter name=%s", ("a\nINFO forged\x1b[2J",), info)
    assert PrintableRecords(of).filter(record)
    return logging.Formatter().format(record)


def test_a_record_stays_one_line_whatever_its_arguments_hold() -> None:
    assert logged() == "adapter name=a\\nINFO forged\\x1b[2J"


def test_records_of_others_can_be_left_alone() -> None:
    assert logged(of="loradrop", name="vllm.engine") == "adapter name=a\nINFO forged\x1b[2J"
    assert logged(of="loradrop").isprintable()


def test_a_traceback_keeps_its_lines_and_loses_its_escapes() -> None:
    try:
        raise ValueError("bad\x1b[2J")
    except ValueError as error:
        shown = logged(error=error)
    assert shown.splitlines()[-1] == "ValueError: bad\\x1b[2J"
    assert len(shown.splitlines()) > 3
