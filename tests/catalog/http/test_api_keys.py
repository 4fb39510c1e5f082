"""API keys: several, from a variable and a file, each good for reading or for everything."""

import logging
import os
from pathlib import Path

import pytest

from loradrop.catalog.errors import AdminKeyNeeded, KeyNeeded, KeysInvalid
from loradrop.catalog.http.api_keys import ApiKey, KeyFile, KeyRing, Scope, keys_from

RING = KeyRing(keys_from(["first", "zweiter-schlüssel", "third read", "fourth read grafana", "5th admin ci"]))


def rewrite(path: Path, text: str) -> None:
    """Replace a file as careful editors do."""
    aside = path.with_suffix(".new")
    aside.write_text(text)
    aside.rename(path)


def test_a_key_without_a_scope_is_an_admins() -> None:
    assert RING.keys == (
        ApiKey("first", Scope.ADMIN, "key-1"),
        ApiKey("zweiter-schlüssel", Scope.ADMIN, "key-2"),
        ApiKey("third", Scope.READ, "key-3"),
        ApiKey("fourth", Scope.READ, "grafana"),
        ApiKey("5th", Scope.ADMIN, "ci"),
    )


@pytest.mark.parametrize(
    ("authorization", "label"),
    [
        ("Bearer first", "key-1"),
        ("bearer first", "key-1"),
        ("Bearer  first ", "key-1"),
        ("Bearer zweiter-schlüssel", "key-2"),
        ("Bearer fourth", "grafana"),
    ],
)
def test_any_of_the_keys_may_read(authorization: str, label: str) -> None:
    assert RING.admit(authorization.encode(), needed=Scope.READ).label == label


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Basic first",
        "first",
        "Bearer first,third",
        "Bearer third read",
    ],
)
@pytest.mark.parametrize("needed", Scope)
def test_anything_else_may_do_nothing(authorization: str, needed: Scope) -> None:
    with pytest.raises(KeyNeeded, match="LORADROP_API_KEY"):
        RING.admit(authorization.encode(), needed=needed)


def test_a_read_key_does_not_change_what_is_served() -> None:
    assert RING.admit(b"Bearer 5th", needed=Scope.ADMIN).label == "ci"
    with pytest.raises(AdminKeyNeeded, match="admin"):
        RING.admit(b"Bearer third", needed=Scope.ADMIN)


def test_a_key_given_twice_is_good_for_the_most_it_was_given_for() -> None:
    ring = KeyRing(keys_from(["same read", "same admin deploy"]))
    assert ring.admit(b"Bearer same", needed=Scope.ADMIN).label == "deploy"


@pytest.mark.parametrize(
    "entry", ["secret write", "secret reads", "secret read label more", "secret label read"]
)
def test_what_is_no_key_is_refused_without_showing_it(entry: str, tmp_path: Path) -> None:
    with pytest.raises(KeysInvalid, match="Entry 2 of LORADROP_API_KEY") as refused:
        keys_from(["good", entry])
    assert "secret" not in str(refused.value)
    (tmp_path / "keys").write_text(f"# ours\n{entry}\n")
    with pytest.raises(KeysInvalid, match="Line 2 of ") as refused:
        KeyFile(tmp_path / "keys")
    assert "secret" not in str(refused.value)


def test_a_key_is_in_no_representation_of_it() -> None:
    assert "secret" not in repr(keys_from(["secret read label"]))


def test_a_file_holds_one_key_a_line_and_comments(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# the dashboard\n  one read grafana  \n\n   # no key\ntwo\n")
    assert KeyFile(path).current() == (
        ApiKey("one", Scope.READ, "grafana"),
        ApiKey("two", Scope.ADMIN, "line-5"),
    )


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(b"\xef\xbb\xbffirst read\r\nsecond\r\n")
    ring = KeyRing(file=KeyFile(path))
    assert ring.admit(b"Bearer first", needed=Scope.READ).scope is Scope.READ
    assert ring.admit(b"Bearer second", needed=Scope.ADMIN)


@pytest.mark.parametrize("secret", ["hush\ufeff", "\u200bhush", "hush\udcff", "hush\x00"])
def test_a_key_that_no_client_could_send_is_refused_without_showing_it(secret: str, tmp_path: Path) -> None:
    with pytest.raises(KeysInvalid, match="Entry 1 of LORADROP_API_KEY") as refused:
        keys_from([secret])
    assert "hush" not in str(refused.value)
    (tmp_path / "keys").write_bytes(secret.encode(errors="surrogateescape"))
    with pytest.raises(KeysInvalid, match=str(tmp_path)):
        KeyFile(tmp_path / "keys")


@pytest.mark.parametrize("content", [None, b"", b"# nothing\n\n", b"\xff\xfe"])
def test_a_file_without_keys_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(KeysInvalid, match=str(path)):
        KeyFile(path)


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("old\n")
    ring = KeyRing(keys_from(["always"]), file=KeyFile(path))
    assert ring.admit(b"Bearer old", needed=Scope.ADMIN)
    rewrite(path, "new read\n")
    assert ring.admit(b"Bearer new", needed=Scope.READ)
    assert ring.admit(b"Bearer always", needed=Scope.ADMIN)
    with pytest.raises(KeyNeeded):
        ring.admit(b"Bearer old", needed=Scope.READ)


def test_a_file_behind_a_link_is_read_again_when_the_link_moves(tmp_path: Path) -> None:
    """How Kubernetes updates a mounted secret."""
    for name in ("old", "new"):
        (tmp_path / name).write_text(f"{name}\n")
        os.utime(tmp_path / name, (0, 0))
    link = tmp_path / "keys"
    link.symlink_to("old")
    keys = KeyFile(link)
    (tmp_path / "keys.new").symlink_to("new")
    (tmp_path / "keys.new").rename(link)
    assert [key.secret for key in keys.current()] == ["new"]


@pytest.mark.parametrize("becomes", ["missing", "empty", "wrong"])
def test_a_file_that_cannot_be_used_any_more_leaves_its_keys_and_says_so_once(
    becomes: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys"
    path.write_text("hushhush read\n")
    keys = KeyFile(path)
    if becomes == "missing":
        path.unlink()
    else:
        rewrite(path, "" if becomes == "empty" else "hushhush write\n")
    with caplog.at_level(logging.INFO):
        assert [keys.current(), keys.current()] == [(ApiKey("hushhush", Scope.READ, "line-1"),)] * 2
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "hushhush" not in caplog.text
    rewrite(path, "later\n")
    assert [key.secret for key in keys.current()] == ["later"]


def test_without_keys_everything_is_open(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("one\n")
    assert KeyRing().is_open
    assert not RING.is_open
    assert not KeyRing(file=KeyFile(tmp_path / "keys")).is_open
