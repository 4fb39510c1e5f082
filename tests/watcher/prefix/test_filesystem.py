"""Which filesystem a prefix is on."""

from pathlib import Path

import pytest

from loradrop.watcher.prefix.filesystem import filesystem_type, filesystem_type_in, is_shared

MOUNTINFO = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /data rw - nfs4 server:/export rw
31 30 0:41 / /data/fast rw - tmpfs tmpfs rw
32 22 0:42 / /with\\040space rw master:2 propagate_from:1 - fuse.sshfs me@host:/ rw
33 22 0:43 / /data/fast rw - xfs /dev/vdb rw
a line of no format
""".splitlines()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/home/loras", "ext4"),
        ("/data", "nfs4"),
        ("/data/loras", "nfs4"),
        ("/database", "ext4"),
        ("/data/fast/loras", "xfs"),
        ("/with space/loras", "fuse.sshfs"),
    ],
)
def test_the_innermost_latest_mount_counts(path: str, kind: str) -> None:
    assert filesystem_type_in(MOUNTINFO, path) == kind


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "fuse.s3fs", "fuse", "ceph", "lustre", "9p", "virtiofs"]
)
def test_filesystems_others_may_write_to_are_shared(kind: str) -> None:
    assert is_shared(kind)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", None])
def test_filesystems_of_this_machine_are_not_shared(kind: str | None) -> None:
    assert not is_shared(kind)


def test_this_machine_can_tell(tmp_path: Path) -> None:
    assert filesystem_type(tmp_path)
    assert filesystem_type("/proc") == "proc"


def test_a_mount_point_with_an_unescaped_control_character_spoils_no_other(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw shared:1 - ext4 /dev/vda rw\n"
        "33 22 0:43 / /mnt/a\x0bb rw shared:1 - xfs /dev/vdb rw\n"  # as the kernel writes it
    )
    assert filesystem_type("/home", mounts=mounts) == "ext4"
    assert filesystem_type("/mnt/a\x0bb/loras", mounts=mounts) == "xfs"
    assert filesystem_type_in(["33 22 - xfs"], "/home") is None


def test_without_a_mount_table_nothing_is_known(tmp_path: Path) -> None:
    assert filesystem_type(tmp_path, mounts=tmp_path / "nothing") is None
