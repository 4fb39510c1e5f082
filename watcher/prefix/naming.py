"""Which entries of a prefix are adapters, by their names alone.

Three kinds are none: hidden and temporary names, which every tool uses for what is not finished, are
ignored; names that could not be typed into a URL or the `model` field are reported as rejected; names
that differ only in case or Unicode form are rejected too, since half of all filesystems and readers
cannot tell them apart.
"""

import unicodedata
from collections.abc import Callable, Iterable

from loradrop.catalog.adapter import Reason, is_usable_name
from loradrop.catalog.printable import printable

TEMPORARY_SUFFIXES = (
    "~", ".tmp", ".temp", ".part", ".partial", ".crdownload", ".download", ".incomplete", ".lock", ".swp",
    ".swx", ".aria2", ".aside", ".filepart",
)  # fmt: skip
"""How editors, downloaders and copy programs end the name of what they are still writing."""

HIDDEN = (".", "#")
"""How a name begins that is no adapter's: dotfiles, `..data` of Kubernetes, editors' autosaves."""

_NOT_OURS = frozenset({"lost+found", "__pycache__", "$RECYCLE.BIN", "System Volume Information"})


def is_ignored(name: str) -> bool:
    """Return whether `name` says by itself that it is hidden, temporary or the filesystem's own."""
    return name.startswith(HIDDEN) or name.endswith(TEMPORARY_SUFFIXES) or name in _NOT_OURS


def is_entry_name(name: str) -> bool:
    """Return whether `name` can be that of an entry of a directory, and not a path to somewhere else."""
    return name not in {"", ".", ".."} and "/" not in name and "\0" not in name


def is_atomic_writer(name: str) -> bool:
    """Return whether `name` belongs to the `..data` convention: a change may concern every neighbour."""
    return name.startswith("..")


def unusable(name: str) -> Reason | None:
    """Return why `name` cannot be served, or None where it can."""
    if is_usable_name(name):
        return None
    return Reason(
        "name_unusable",
        f"The directory name {printable(name)!r} cannot be an adapter's. Use up to 128 of A-Z a-z 0-9 . _ -"
        " and begin with a letter or a digit.",
    )


def folded(name: str) -> str:
    """Return what is left of `name` where neither case nor Unicode form counts."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", name).casefold()


def collision_reason(name: str, other: str) -> Reason:
    """Return why `name` is rejected beside `other`."""
    return Reason(
        "name_twin",
        f"{printable(name)!r} and {printable(other)!r} differ only in case or Unicode form."
        " Rename one of them.",
    )


class NameCollisions:
    """Which names of one prefix fold to the same text. Keeps only names that folding changes."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """Begin with `names`."""
        self._variants: dict[str, tuple[str, ...]] = {}
        for name in names:
            self.add(name)

    def copy(self) -> "NameCollisions":
        """Return an independent copy."""
        copied = NameCollisions()
        copied._variants = dict(self._variants)
        return copied

    def add(self, name: str) -> None:
        """Note that `name` is there; one that cannot be served collides with none."""
        if not is_usable_name(name):
            return
        fold = folded(name)
        others = self._variants.get(fold, ())
        if fold != name and name not in others:
            self._variants[fold] = (*others, name)

    def discard(self, name: str) -> None:
        """Forget `name`."""
        fold = folded(name)
        others = tuple(other for other in self._variants.get(fold, ()) if other != name)
        if others:
            self._variants[fold] = others
        else:
            self._variants.pop(fold, None)

    def of(self, name: str, is_present: Callable[[str], bool]) -> tuple[str, ...]:
        """Return the other names that are present and fold to the same text as `name`, in order."""
        if not is_usable_name(name):
            return ()
        fold = folded(name)
        candidates = {fold, *self._variants.get(fold, ())} - {name}
        return tuple(sorted(other for other in candidates if is_present(other)))
