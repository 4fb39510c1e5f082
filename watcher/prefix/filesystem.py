"""Which filesystem the prefix is on, as far as it matters: do notifications and file times hold there?

inotify tells of what this kernel did. What another host writes to NFS, SMB, Ceph or a FUSE mount is never
told, and its file times are another clock's. So such a prefix is rescanned, and only our own clock decides
when files have settled.
"""

import os
from pathlib import Path

_SHARED_TYPES = frozenset({
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "lustre", "9p", "virtiofs", "gpfs", "beegfs", "afs",
    "orangefs",
})  # fmt: skip
_MOUNTS = Path("/proc/self/mountinfo")
_POINT = 4
"""Which field of a line says where a filesystem is mounted."""


def filesystem_type(path: str | Path, *, mounts: Path = _MOUNTS) -> str | None:
    """Return the type of the filesystem that holds `path` (`ext4`, `nfs4`, `fuse.sshfs`), None if unknown.

    `mounts` is the table of mounts, as in /proc/self/mountinfo.
    """
    try:
        # Not `splitlines`: the kernel escapes only some of what that takes for the end of a line.
        lines = mounts.read_text(errors="surrogateescape").split("\n")
    except OSError:
        return None
    return filesystem_type_in(lines, os.path.realpath(path))


def filesystem_type_in(mountinfo: list[str], real_path: str) -> str | None:
    """Return the type of the filesystem that holds `real_path`, given the lines of a mountinfo file."""
    best, found = -1, None
    for line in mountinfo:
        fields, _, rest = line.partition(" - ")
        place = fields.split(" ")
        if len(place) <= _POINT or not rest:
            continue
        point = _unescaped(place[_POINT])
        inside = real_path == point or real_path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:  # a later mount on the same point covers an earlier one
            best, found = len(point), rest.split(" ")[0]
    return found


def is_shared(kind: str | None) -> bool:
    """Return whether other hosts may write to a filesystem of this type without this kernel knowing."""
    return kind is not None and (kind in _SHARED_TYPES or kind.startswith("fuse"))


def _unescaped(point: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        point = point.replace(code, character)
    return point
