"""What one scan of a prefix tells, and which directory it says the prefix was."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from loradrop.catalog.errors import DiscoveryError
from loradrop.catalog.lora.open_files import Roots
from loradrop.watcher.prefix.findings import Signature
from loradrop.watcher.prefix.scan import (
    PrefixMissing,
    PrefixNotADirectory,
    identity_of,
    list_names,
    open_root,
    scan,
)
from loradrop.watcher.prefix.signature import Look, look_at
from testkit.adapters import write_adapter


@dataclass(frozen=True)
class Known:
    """A name that was seen before."""

    signature: Signature | None


def known_of(prefix: Path, *names: str) -> dict[str, Known]:
    known = {}
    with open_root(prefix) as (root_fd, _):
        for name in names:
            look = look_at(name, root_fd, Roots((prefix,)))
            assert isinstance(look, Look)
            known[name] = Known(look.signature)
    return known


def test_what_was_never_examined_is_changed_and_what_looks_the_same_is_not(tmp_path: Path) -> None:
    for name in ("old", "new", "hinted"):
        write_adapter(tmp_path / name)
    found = scan(tmp_path, {**known_of(tmp_path, "old"), "hinted": Known(None)}, Roots((tmp_path,)))
    assert found.names == {"old", "new", "hinted"}
    assert set(found.changed) == {"new", "hinted"}


def test_a_scan_and_the_opened_prefix_agree_on_which_directory_it_is(tmp_path: Path) -> None:
    found = tmp_path.stat()
    with open_root(tmp_path) as (root_fd, identity):
        assert os.fstat(root_fd).st_ino == found.st_ino
        assert (identity.device, identity.inode) == (found.st_dev, found.st_ino)
        assert identity.filesystem == os.statvfs(tmp_path).f_fsid
    assert scan(tmp_path, {}, Roots((tmp_path,))).identity == identity_of(tmp_path) == identity


def test_a_prefix_that_a_link_leads_to_is_the_directory_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    assert identity_of(tmp_path / "link") == identity_of(tmp_path)


@pytest.mark.parametrize("target", ["adapter", "nothing", "file"])
def test_a_link_is_examined_wherever_it_leads(target: str, tmp_path: Path) -> None:
    write_adapter(tmp_path / "elsewhere" / "adapter")
    (tmp_path / "elsewhere" / "file").touch()
    prefix = tmp_path / "prefix"
    prefix.mkdir()
    (prefix / "sql").symlink_to(tmp_path / "elsewhere" / target)
    found = scan(prefix, {}, Roots((prefix,)))
    assert (found.names, found.changed) == ({"sql"}, ("sql",))


def test_a_name_that_cannot_be_read_is_examined(tmp_path: Path) -> None:
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "adapter_config.json").symlink_to("adapter_config.json")
    assert scan(tmp_path, {}, Roots((tmp_path,))).changed == ("sql",)


def test_a_directory_without_its_files_is_unchanged_until_something_is_put_into_it(tmp_path: Path) -> None:
    (tmp_path / "sql").mkdir()
    known = known_of(tmp_path, "sql")
    assert scan(tmp_path, known, Roots((tmp_path,))).changed == ()
    (tmp_path / "sql" / "adapter_config.json").touch()
    assert scan(tmp_path, known, Roots((tmp_path,))).changed == ("sql",)


def test_weights_of_the_other_format_are_unchanged_until_they_change(tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "sql")
    (directory / "adapter_model.safetensors").rename(directory / "adapter_model.bin")
    known = known_of(tmp_path, "sql")
    assert scan(tmp_path, known, Roots((tmp_path,))).changed == ()
    (directory / "adapter_model.bin").touch()
    assert scan(tmp_path, known, Roots((tmp_path,))).changed == ("sql",)


def test_all_names_of_a_prefix_are_listed_whatever_they_are(tmp_path: Path) -> None:
    (tmp_path / ".hidden").touch()
    (tmp_path / "sql").mkdir()
    with open_root(tmp_path) as (root_fd, _):
        assert list_names(root_fd, tmp_path) == {".hidden", "sql"}


def test_what_is_no_directory_cannot_be_listed(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        with pytest.raises(PrefixNotADirectory):
            list_names(descriptor, tmp_path / "file")
    finally:
        os.close(descriptor)


@pytest.mark.skipif(sys.platform != "linux", reason="a directory of /proc")
def test_a_directory_that_opens_and_cannot_be_listed_is_an_error_and_not_empty() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    networks = f"/proc/{child.pid}/net"  # of a process that has ended
    try:
        with pytest.raises(DiscoveryError, match="Nothing is removed because of it"):
            scan(networks, {}, Roots((networks,)))
        with pytest.raises(DiscoveryError), open_root(networks) as (root_fd, _):
            list_names(root_fd, networks)
    finally:
        child.wait()


def test_a_failure_of_the_block_is_told_and_not_what_became_of_the_prefix(tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    prefix.mkdir()
    with pytest.raises(ZeroDivisionError), open_root(prefix) as (root_fd, _):
        prefix.rmdir()
        raise ZeroDivisionError
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(root_fd)


def test_the_descriptor_is_closed_at_the_end_of_the_block(tmp_path: Path) -> None:
    with open_root(tmp_path) as (root_fd, _):
        os.fstat(root_fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(root_fd)


def test_which_directory_a_prefix_is_cannot_be_told_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(PrefixMissing):
        identity_of(tmp_path / "nothing")
    with pytest.raises(DiscoveryError, match=r"cannot be read \(File name too long\)"):
        identity_of(tmp_path / ("x" * 5000))
