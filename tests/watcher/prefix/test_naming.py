"""Which entries of a prefix are adapters, by their names alone."""

import pytest

from loradrop.watcher.prefix.naming import (
    NameCollisions,
    collision_reason,
    folded,
    is_atomic_writer,
    is_entry_name,
    is_ignored,
    unusable,
)


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


@pytest.mark.parametrize("name", ["sql", "no spaces", ".hidden", "...", "caf\udce9", "a\nb"])
def test_whatever_a_directory_can_hold_is_the_name_of_an_entry(name: str) -> None:
    assert is_entry_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "../sql", "/etc", "sql/", "sql\0"])
def test_a_path_to_somewhere_else_is_no_name_of_an_entry(name: str) -> None:
    assert not is_entry_name(name)


def test_names_of_the_data_convention_are_told_from_other_hidden_ones() -> None:
    assert [is_atomic_writer(name) for name in ("..data", "..2026_01_01", ".git", "sql")] == [
        True,
        True,
        False,
        False,
    ]


def test_usable_names_have_no_reason() -> None:
    assert unusable("Llama-3.1_sql") is None


def test_names_that_differ_only_in_case_are_collisions() -> None:
    names = {"Sql", "sql", "SQL", "other"}
    collisions = NameCollisions(names)
    assert collisions.of("sql", names.__contains__) == ("SQL", "Sql")
    assert collisions.of("SQL", names.__contains__) == ("Sql", "sql")
    assert collisions.of("other", names.__contains__) == ()


def test_names_that_differ_only_in_unicode_form_fold_alike() -> None:
    assert folded("cafe\N{COMBINING ACUTE ACCENT}") == folded("Caf\N{LATIN SMALL LETTER E WITH ACUTE}")
    assert folded("SQL") == "sql"


def test_a_name_that_collides_is_told_with_the_other_one() -> None:
    reason = collision_reason("sql", "SQL")
    assert reason.code == "name_twin"
    assert "'sql' and 'SQL'" in reason.message


def test_a_name_that_is_not_present_collides_with_none() -> None:
    collisions = NameCollisions(["Sql", "Sql", "SQL"])
    assert collisions.of("sql", {"SQL"}.__contains__) == ("SQL",)
    collisions.discard("Sql")
    assert collisions.of("sql", {"Sql", "SQL"}.__contains__) == ("SQL",)


def test_a_copy_of_the_collisions_is_independent() -> None:
    collisions = NameCollisions(["Sql", "SQL"])
    copied = collisions.copy()
    copied.discard("Sql")
    copied.add("sQL")
    present = {"Sql", "SQL", "sQL"}
    assert collisions.of("SQL", present.__contains__) == ("Sql",)
    assert copied.of("sQL", present.__contains__) == ("SQL",)


def test_a_name_that_left_collides_no_more() -> None:
    collisions = NameCollisions(["Sql", "SQL"])
    collisions.discard("Sql")
    collisions.discard("never there")
    assert collisions.of("SQL", {"SQL"}.__contains__) == ()
    collisions.discard("SQL")
    assert collisions.of("sql", {"sql", "SQL"}.__contains__) == ()


def test_names_that_cannot_be_served_collide_with_none() -> None:
    names = {"sql", "\N{LATIN SMALL LETTER LONG S}ql"}
    assert folded("\N{LATIN SMALL LETTER LONG S}ql") == "sql"
    collisions = NameCollisions(names)
    assert collisions.of("sql", names.__contains__) == ()
    assert collisions.of("\N{LATIN SMALL LETTER LONG S}ql", names.__contains__) == ()
