"""Which entries of a prefix are adapters, by their names alone."""

import pytest

from loradrop.watcher.prefix.naming import NameCollisions, folded, is_ignored, unusable


@pytest.mark.parametrize(
    "name",
    [
        ".hidden",
        "..data",
        "..2026_01_01",
        "sql~",
        "sql.tmp",
        "sql.part",
        "sql.aside",
        "#sql#",
        "lost+found",
        "a.swp",
    ],
)
def test_hidden_and_temporary_names_are_ignored(name: str) -> None:
    assert is_ignored(name)


@pytest.mark.parametrize("name", ["sql", "sql.v2", "org_sql-adapter", "tmp", "part", "0"])
def test_ordinary_names_are_not_ignored(name: str) -> None:
    assert not is_ignored(name)


@pytest.mark.parametrize(
    "name", ["sql adapter", "-sql", "_sql", "a" * 129, "café", "caf\udce9", "a\nb", "a/b", "a:b"]
)
def test_a_name_that_cannot_be_typed_is_rejected_with_advice(name: str) -> None:
    reason = unusable(name)
    assert reason is not None
    assert reason.code == "name_unusable"
    assert "Use up to 128" in reason.message


def test_usable_names_have_no_reason() -> None:
    assert unusable("Llama-3.1_sql") is None


def test_names_that_differ_only_in_case_are_collisions() -> None:
    names = {"Sql", "sql", "SQL", "other"}
    collisions = NameCollisions(names)
    assert collisions.of("sql", names.__contains__) == ("SQL", "Sql")
    assert collisions.of("SQL", names.__contains__) == ("Sql", "sql")
    assert collisions.of("other", names.__contains__) == ()


def test_a_name_that_left_collides_no_more() -> None:
    collisions = NameCollisions(["Sql", "SQL"])
    collisions.discard("Sql")
    collisions.discard("never there")
    assert collisions.of("SQL", {"SQL"}.__contains__) == ()
    collisions.discard("SQL")
    assert collisions.of("sql", {"sql"}.__contains__) == ()


def test_names_that_cannot_be_served_collide_with_none() -> None:
    names = {"sql", "\N{LATIN SMALL LETTER LONG S}ql"}
    assert folded("\N{LATIN SMALL LETTER LONG S}ql") == "sql"
    collisions = NameCollisions(names)
    assert collisions.of("sql", names.__contains__) == ()
    assert collisions.of("\N{LATIN SMALL LETTER LONG S}ql", names.__contains__) == ()
