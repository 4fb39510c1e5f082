"""Opening files while a writer exchanges directories and links, and by every kind of link."""

import os
import socket
from contextlib import closing
from pathlib import Path

import pytest

from loradrop.catalog.lora import open_files
from loradrop.catalog.lora.faults import Rejected
from loradrop.catalog.lora.open_files import Roots, open_file, opened_directory
from tests.faults.exchange import Ground, exchanging, outcomes


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    (tmp_path / "prefix" / "sql").mkdir(parents=True)
    (tmp_path / "prefix" / "sql" / "file").write_text("inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("outside")
    return tmp_path / "prefix"


@pytest.fixture(params=["openat2", "the check of what is open"])
def _kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test with openat2 as far as the kernel has it, and as on one that has none."""
    if request.param != "openat2":
        monkeypatch.setattr(open_files, "_libc", None)


def read(prefix: Path, name: str, *allowed: Path, file: str = "file") -> str:
    roots = Roots((prefix, *allowed))
    with opened_directory(prefix, name, roots) as directory:
        descriptor, _ = open_file(directory, file, roots)
    try:
        return os.read(descriptor, 100).decode()
    finally:
        os.close(descriptor)


pytestmark = pytest.mark.usefixtures("_kernel")


def test_links_inside_the_prefix_are_followed(prefix: Path) -> None:
    (prefix / "relative").symlink_to("sql")
    (prefix / "absolute").symlink_to(prefix / "sql")
    (prefix / "other").mkdir()
    (prefix / "other" / "file").symlink_to("../sql/file")
    (prefix / "mounted").mkdir()
    (prefix / "mounted" / "..v1").symlink_to(prefix / "sql")
    (prefix / "mounted" / "..data").symlink_to("..v1")
    (prefix / "mounted" / "file").symlink_to("..data/file")
    for name in ("relative", "absolute", "other", "mounted"):
        assert read(prefix, name) == "inside"


def test_a_prefix_may_be_a_link_itself(prefix: Path) -> None:
    link = prefix.parent / "link"
    link.symlink_to(prefix)
    (prefix / "absolute").symlink_to(link / "sql")
    (prefix / "real").symlink_to(prefix / "sql")
    assert read(link, "sql") == read(link, "absolute") == read(link, "real") == "inside"


def test_a_link_names_its_root_as_it_is_configured_or_really_is(prefix: Path) -> None:
    link = prefix.parent / "link"
    link.symlink_to(prefix)
    (prefix / "absolute").symlink_to(link / "sql")
    with pytest.raises(Rejected, match="link_escapes"):
        read(prefix, "absolute")
    assert read(prefix, "absolute", link) == "inside"


def test_an_allowed_directory_may_be_a_link_itself(prefix: Path) -> None:
    allowed = prefix.parent / "allowed"
    allowed.symlink_to("outside")
    (prefix / "linked").symlink_to(allowed)
    assert read(prefix, "linked", allowed) == "outside"


@pytest.mark.parametrize(
    "target", ["../outside", "{}/outside", "sql/../../outside", "/proc/self/cwd", "/proc/self/root", "/"]
)
def test_a_directory_outside_is_refused(prefix: Path, target: str) -> None:
    (prefix / "linked").symlink_to(target.format(prefix.parent))
    with pytest.raises(Rejected, match="link_escapes"):
        read(prefix, "linked")


@pytest.mark.parametrize(
    "target", ["../../outside/file", "{}/outside/file", "/dev/zero", "/proc/self/environ"]
)
def test_a_file_outside_is_refused_whatever_it_is(prefix: Path, target: str) -> None:
    (prefix / "sql" / "linked").symlink_to(target.format(prefix.parent))
    with pytest.raises(Rejected, match="link_escapes"):
        read(prefix, "sql", file="linked")


def test_whether_a_file_outside_exists_is_not_told(prefix: Path) -> None:
    for number, target in enumerate(["../../outside/file", "../../outside/nothing", "/root/x/y", "/nowhere"]):
        (prefix / "sql" / str(number)).symlink_to(target)
        with pytest.raises(Rejected, match="link_escapes"):
            read(prefix, "sql", file=str(number))


def test_a_root_whose_name_only_begins_alike_is_another(prefix: Path) -> None:
    (prefix.parent / "prefix-private").mkdir()
    (prefix.parent / "prefix-private" / "file").write_text("private")
    (prefix / "linked").symlink_to("../prefix-private")
    with pytest.raises(Rejected, match="link_escapes"):
        read(prefix, "linked")


def test_a_pipe_is_refused_without_waiting_for_its_writer(prefix: Path) -> None:
    os.mkfifo(prefix / "sql" / "pipe")
    (prefix / "sql" / "linked").symlink_to(prefix / "sql" / "pipe")
    for name in ("pipe", "linked"):
        with pytest.raises(Rejected, match="not_a_file"):
            read(prefix, "sql", file=name)


def test_a_socket_is_refused_like_any_other_file_that_is_none(
    prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(prefix / "sql")  # the path of a socket is short
    with closing(socket.socket(socket.AF_UNIX)) as bound:
        bound.bind("socket")
        with pytest.raises(Rejected, match="not_a_file"):
            read(prefix, "sql", file="socket")


@pytest.mark.parametrize("name", ["sql", "sql/file"])
def test_a_link_to_itself_is_an_error_of_the_disk(prefix: Path, name: str) -> None:
    (prefix / "sql" / "file").unlink()
    (prefix / "sql" / "file").symlink_to("file")
    with pytest.raises(OSError, match="symbolic links"):
        read(prefix, "sql")


def test_what_is_not_there_is_gone(prefix: Path) -> None:
    for name, file in (("nothing", "file"), ("sql", "nothing")):
        with pytest.raises(FileNotFoundError):
            read(prefix, name, file=file)


def test_no_descriptor_is_left_open(prefix: Path) -> None:
    (prefix / "linked").symlink_to("../outside")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        assert read(prefix, "sql") == "inside"
        with pytest.raises(Rejected):
            read(prefix, "linked")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("kind", ["validate", "copy"])
def test_exchanging_a_directory_and_a_link_never_leads_outside(tmp_path: Path, kind: str) -> None:
    ground = Ground(tmp_path)
    with exchanging(ground.prefix / "mine", ground.link):
        found = outcomes(getattr(ground, kind), tries=1000)
    assert found["link_escapes"], "the link was met"
    assert found["ready"] + found["copied"], "and the directory"
