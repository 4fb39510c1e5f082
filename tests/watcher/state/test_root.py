"""Which directory is expected at the prefix, and when another one is taken for it."""

import pytest

from loradrop.watcher.prefix.findings import RootIdentity
from loradrop.watcher.state.root import Root

HOME, OTHER = RootIdentity(1, 10, 77), RootIdentity(1, 11, 77)
ACCEPTED = Root().observed(HOME).listed_now().judged(accepts=True)


def test_the_first_directory_has_to_be_listed_and_judged() -> None:
    seen = Root().observed(HOME)
    assert not seen.is_listed
    listed = seen.listed_now()
    assert (listed.is_listed, listed.is_accepted, listed.is_expected) == (True, False, False)
    assert (ACCEPTED.is_accepted, ACCEPTED.expected) == (True, HOME)
    assert ACCEPTED.observed(HOME) is ACCEPTED


def test_another_directory_is_not_accepted_and_neither_is_the_first_when_it_is_back_until_it_is_listed() -> (
    None
):
    away = ACCEPTED.observed(OTHER)
    assert (away.is_accepted, away.is_listed, away.is_expected) == (False, False, False)
    back = away.listed_now().judged(accepts=False).observed(HOME)
    assert (back.is_accepted, back.is_listed, back.is_expected, back.is_refused) == (
        False,
        False,
        True,
        False,
    )
    assert back.listed_now().judged(accepts=True).is_accepted


def test_a_directory_stays_refused_until_it_is_accepted() -> None:
    refused = ACCEPTED.observed(OTHER).listed_now().judged(accepts=False)
    assert refused.is_refused
    assert refused.observed(HOME).observed(OTHER).is_refused
    accepted = refused.judged(accepts=True)
    assert (accepted.is_refused, accepted.is_accepted, accepted.expected) == (False, True, OTHER)


def test_after_an_interruption_the_same_directory_has_to_be_listed_again() -> None:
    doubted = ACCEPTED.doubted()
    assert (doubted.is_accepted, doubted.is_listed, doubted.is_expected) == (False, False, True)


def test_what_the_catalog_expects_is_expected_after_a_start_and_after_another_watcher_led() -> None:
    assert not Root().begun(HOME).is_expected, "nothing was seen yet"
    started = Root().begun(HOME).observed(HOME)
    assert (started.is_expected, started.is_accepted) == (True, False)
    assert ACCEPTED.begun(HOME).is_accepted
    assert ACCEPTED.begun(None).is_accepted, "a Redis that was emptied knows nothing better"
    led_by_another = ACCEPTED.begun(OTHER)
    assert (led_by_another.is_accepted, led_by_another.is_expected) == (False, False)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (RootIdentity(1, 10, 77), True),
        (RootIdentity(9, 10, 77), True),
        (RootIdentity(1, 10, 78), False),
        (RootIdentity(1, 11, 77), False),
        (RootIdentity(1, 10, 0), True),
        (RootIdentity(9, 10, 0), False),
    ],
)
def test_a_directory_is_known_again_by_its_filesystem_or_else_by_its_device(
    other: RootIdentity, same: bool
) -> None:
    assert HOME.is_same(other) is same
    assert other.is_same(HOME) is same


def test_an_identity_survives_as_text_and_anything_else_is_none() -> None:
    parsed = RootIdentity.parse(str(HOME))
    assert parsed is not None
    assert (parsed.device, parsed.inode, parsed.filesystem) == (1, 10, 77)
    largest = RootIdentity((1 << 64) - 1, (1 << 64) - 1, (1 << 64) - 1)
    assert RootIdentity.parse(str(largest)) == largest
    for text in ("", "1:2", "1:2:3:4", "a:b:c", "1:2:-3", "1:2:\N{SUPERSCRIPT TWO}", f"1:2:{'9' * 5000}"):
        assert RootIdentity.parse(text) is None
