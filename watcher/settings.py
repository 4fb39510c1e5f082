"""The watcher's settings: what each means, its unit, and why its default is what it is.

Frozen values, validated where they are made. Not here: how they are spelled on the command line and in the
environment (`__main__`).
"""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from loradrop.catalog.errors import LoradropError
from loradrop.catalog.printable import shown
from loradrop.catalog.redis_keys import DEFAULT_POOL
from loradrop.catalog.store import DEFAULT_REDIS_URL
from loradrop.watcher.state.removal import RemovalRule
from loradrop.watcher.state.settle import SettleRule

_MIN_THREADS = 2


class SettingsInvalid(LoradropError):
    """A setting has a value that cannot work."""

    code = "settings_invalid"


class NotifierChoice(StrEnum):
    """How to learn of changes between rescans."""

    AUTO = "auto"
    """inotify on Linux, watchdog elsewhere, rescans only on filesystems that other hosts may write to."""
    INOTIFY = "inotify"
    WATCHDOG = "watchdog"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One watcher's settings. Raises SettingsInvalid."""

    prefix: Path
    """The directory whose subdirectories are adapters. It may be made later."""
    redis_url: str = DEFAULT_REDIS_URL
    """The Redis that holds the catalog."""
    pool: str = DEFAULT_POOL
    """Which catalog in that Redis."""
    interval_seconds: float = 30.0
    """Between two rescans, plus or minus a quarter. They only catch what notifications missed; 0: none."""
    notifier: NotifierChoice = NotifierChoice.AUTO
    allow_pickle: bool = True
    """Admit `adapter_model.bin`, after its opcodes were checked against an allow-list."""
    allow_symlinks_to: tuple[Path, ...] = ()
    """Directories outside the prefix that links may lead into."""
    marker: str | None = None
    """A file the prefix must hold: where it is missing, the mount is taken to be away."""
    settle: SettleRule = field(default_factory=SettleRule)
    removal: RemovalRule = field(default_factory=RemovalRule)
    verify_interval_seconds: float = 0.0
    """Between two readings of every byte, for disks that change data without changing times; 0: never."""
    threads: int = 4
    """How many adapters are read at once, at most; more only helps where the disk is slow."""

    def __post_init__(self) -> None:
        """Check what the types do not say."""
        object.__setattr__(self, "prefix", self.prefix.expanduser().absolute())
        if not shown(str(self.prefix)) == str(self.prefix):
            raise SettingsInvalid(
                f"--lora-dir-prefix is {shown(str(self.prefix))}: its path is not UTF-8, or holds characters"
                " that cannot be printed. Rename the directory."
            )
        for name, value in {
            "--lora-discovery-interval": self.interval_seconds,
            "--lora-settle": self.settle.settle_seconds,
            "--removal-grace": self.removal.grace_seconds,
            "--mass-removal-grace": self.removal.mass_grace_seconds,
            "--verify-interval": self.verify_interval_seconds,
        }.items():
            if not 0 <= value < float("inf"):
                raise SettingsInvalid(f"{name} is {value:g}; it must be a number of seconds from 0 up.")
        if not 0 <= self.removal.mass_share <= 1:
            raise SettingsInvalid(
                f"--mass-removal-share is {self.removal.mass_share:g}; it must be from 0 to 1."
            )
        if self.threads < _MIN_THREADS:
            raise SettingsInvalid(f"{self.threads} threads are too few: one looks and one is kept for hints.")
        if self.marker is not None and ("/" in self.marker or not self.marker):
            raise SettingsInvalid(f"--prefix-marker is {self.marker!r}; it must be the name of a file.")
        if not self.pool or any(sign in self.pool for sign in "{}: \t\n"):
            raise SettingsInvalid(
                f"--pool is {self.pool!r}; it must be a word without braces, colons or spaces."
            )
