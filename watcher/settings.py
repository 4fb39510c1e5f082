"""The settings of one watcher: from parsed flags and the environment, as `catalog.settings` declares them."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from loradrop.catalog.lora.open_files import Roots
from loradrop.catalog.settings import SettingsInvalid, Values, declared
from loradrop.watcher.state.removal import RemovalRule
from loradrop.watcher.state.settle import SettleRule

_MIN_THREADS = 2


class NotifierChoice(StrEnum):
    """How to learn of changes between rescans."""

    AUTO = "auto"
    """inotify on Linux, watchdog elsewhere, rescans only on filesystems that other hosts may write to."""
    INOTIFY = "inotify"
    WATCHDOG = "watchdog"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One watcher's settings."""

    prefix: Path
    """The directory whose subdirectories are adapters. It may be made later."""
    redis_url: str = field(default=declared.REDIS_URL.default_value, repr=False)
    pool: str = declared.POOL_NAME.default_value
    interval_seconds: float = declared.LORA_DISCOVERY_INTERVAL.default_value
    """Between two rescans, plus or minus a quarter; 0: none."""
    notifier: NotifierChoice = NotifierChoice.AUTO
    allow_pickle: bool = declared.ALLOW_PICKLE.default_value
    allow_symlinks_to: tuple[Path, ...] = ()
    marker: str | None = None
    """A file the prefix must hold: where it is missing, the mount is taken to be away."""
    settle: SettleRule = field(default_factory=SettleRule)
    removal: RemovalRule = field(default_factory=RemovalRule)
    verify_interval_seconds: float = declared.VERIFY_INTERVAL.default_value
    """Between two readings of every byte; 0: never."""
    threads: int = 4
    """How many adapters are read at once, at most; more only helps where the disk is slow."""
    metrics_host: str = declared.METRICS_HOST.default_value
    metrics_port: int | None = None
    log_level: str = declared.LOG_LEVEL.default_value

    def __post_init__(self) -> None:
        """Make the prefix absolute; raises SettingsInvalid where there are too few threads."""
        object.__setattr__(self, "prefix", self.prefix.expanduser().absolute())
        if self.threads < _MIN_THREADS:
            raise SettingsInvalid(f"{self.threads} threads are too few: one looks and one is kept for hints.")

    @property
    def roots(self) -> Roots:
        """Where links under the prefix may lead."""
        return Roots((self.prefix, *self.allow_symlinks_to))

    @classmethod
    def of(cls, values: Values) -> "Settings":
        """Return what flags and variables say; raises SettingsInvalid."""
        return cls(
            prefix=values[declared.LORA_DIR_PREFIX],
            redis_url=values[declared.REDIS_URL],
            pool=values[declared.POOL_NAME],
            interval_seconds=values[declared.LORA_DISCOVERY_INTERVAL],
            notifier=NotifierChoice(values[declared.NOTIFIER]),
            allow_pickle=values[declared.ALLOW_PICKLE],
            allow_symlinks_to=values.given(declared.ALLOW_SYMLINKS_TO) or (),
            marker=values.given(declared.PREFIX_MARKER),
            settle=SettleRule(settle_seconds=values[declared.LORA_SETTLE]),
            removal=RemovalRule(
                grace_seconds=values[declared.REMOVAL_GRACE],
                mass_share=values[declared.MASS_REMOVAL_SHARE],
                mass_count=values[declared.MASS_REMOVAL_COUNT],
                mass_grace_seconds=values[declared.MASS_REMOVAL_GRACE],
            ),
            verify_interval_seconds=values[declared.VERIFY_INTERVAL],
            metrics_host=values[declared.METRICS_HOST],
            metrics_port=values.given(declared.METRICS_PORT),
            log_level=values[declared.LOG_LEVEL],
        )
