"""What comes from elsewhere is shown on one line, without anything a terminal would act on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loradrop.catalog.printable import shown


@pytest.mark.parametrize(
    "text", ["sql", "an ordinary sentence: 3 < 4.", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"]
)
def test_ordinary_text_is_shown_as_it_is(text: str) -> None:
    assert shown(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nINFO forged", "a\\nINFO forged"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("line\u2028line", "line\\u2028line"),
        ("caf\udce9", "caf\\xe9"),
    ],
)
def test_control_characters_and_bytes_that_are_no_text_become_escapes(text: str, expected: str) -> None:
    assert shown(text) == expected


@given(st.text(st.characters()))
def test_whatever_it_is_it_is_printable_and_stays_so(text: str) -> None:
    assert shown(text).isprintable()
    assert shown(shown(text)) == shown(text)
    assert shown(text).encode().decode() == shown(text)
