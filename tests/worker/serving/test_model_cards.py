"""Cards of adapters: of those asked for, whatever they were before, and made once."""

import json
from datetime import UTC, datetime
from typing import Any

from loradrop.worker.serving.model_cards import ModelCards
from tests.catalog.values import NOON, an_adapter, revision


def read(pieces: tuple[bytes, ...]) -> list[dict[str, Any]]:
    cards: list[dict[str, Any]] = json.loads(b"[%b]" % b",".join(pieces))
    return cards


def test_a_card_has_openais_shape() -> None:
    (card,) = read(ModelCards("tiny").of([an_adapter("sql", path="v2/sql")]))
    assert card == {
        "id": "sql",
        "object": "model",
        "created": NOON.timestamp(),
        "owned_by": "loradrop",
        "root": "v2/sql",
        "parent": "tiny",
        "max_model_len": None,
        "permission": [],
    }


def test_the_same_adapters_are_not_serialised_again() -> None:
    cards = ModelCards("tiny")
    one, two = an_adapter("one"), an_adapter("two")
    first = cards.of([one, two])
    assert cards.of([one, two]) is first
    assert [card["id"] for card in read(first)] == ["one", "two"]


def test_other_adapters_have_other_cards() -> None:
    cards = ModelCards("tiny")
    one, two = an_adapter("one"), an_adapter("two")
    for adapters in ([one], [one, two], [two], [], [one]):
        assert [card["id"] for card in read(cards.of(adapters))] == [adapter.name for adapter in adapters]


def test_a_change_of_one_field_is_another_card() -> None:
    cards = ModelCards("tiny")
    cards.of([an_adapter("sql")])
    later = datetime(2027, 1, 1, tzinfo=UTC)
    (card,) = read(cards.of([an_adapter("sql", revision=revision("b"), discovered_at=later)]))
    assert card["created"] == later.timestamp()


def test_names_need_not_be_plain() -> None:
    (card,) = read(ModelCards('ti"ny').of([an_adapter("sql", path='drafts/ä"ö')]))
    assert (card["root"], card["parent"]) == ('drafts/ä"ö', 'ti"ny')
