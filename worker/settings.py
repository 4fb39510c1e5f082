"""What an operator decides about a worker: flags on vLLM's command line, or LORADROP_... variables.

One table names every setting; the flag wins over the variable, the variable over the default. The
plugin is asked for when a prefix or a Redis is given; otherwise vLLM runs as if we were not there.
"""

import argparse
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from loradrop.catalog.redis_keys import DEFAULT_POOL
from loradrop.worker import flag_parsers as texts

_ENVIRONMENT_PREFIX = "LORADROP_"

NAMED = "loradrop"
"""The attribute by which our own command line says so in the parsed arguments."""


class SettingsError(ValueError):
    """A flag or a variable has a value that cannot be used; the message names it and says what can."""


def _cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "loradrop"


def _state_home() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "loradrop"


def _flag(flag: str, parse: Callable[[str], Any], text: str) -> dict[str, Any]:
    return {"flag": flag, "parse": parse, "help": text}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """The settings of one worker, and of the watcher and API it starts when it has no Redis to join."""

    lora_dir_prefix: Path | None = field(
        default=None,
        metadata=_flag(
            "--lora-dir-prefix",
            texts.directory,
            "Directory whose subdirectories are LoRA adapters; each is served under its name.",
        ),
    )
    lora_discovery_interval: float = field(
        default=30.0,
        metadata=_flag(
            "--lora-discovery-interval",
            texts.at_least(0),
            "Seconds between rescans of the prefix, behind the notifications; 0: none. Default: 30.",
        ),
    )
    redis_url: str | None = field(
        default=None,
        metadata=_flag(
            "--redis-url",
            str,
            "Join a fleet: the Redis its watcher publishes to. Left out: an embedded Valkey, a watcher and "
            "the API are started as children.",
        ),
    )
    pool: str = field(
        default=DEFAULT_POOL,
        metadata=_flag("--pool", str, f"Name of the fleet. Default: {DEFAULT_POOL}."),
    )
    worker_id: str | None = field(
        default=None,
        metadata=_flag("--worker-id", str, "Name of this worker in reports. Default: host name and port."),
    )
    notifier: str = field(
        default="auto",
        metadata=_flag(
            "--notifier",
            texts.notifier,
            "How changes are noticed: auto, inotify, watchdog or none (rescans only). Default: auto.",
        ),
    )
    lora_settle: float = field(
        default=1.0,
        metadata=_flag(
            "--lora-settle",
            texts.at_least(0),
            "Seconds an adapter's files must be still before it is served. Default: 1.",
        ),
    )
    lora_cache_dir: Path = field(
        default_factory=_cache_home,
        metadata=_flag(
            "--lora-cache-dir",
            texts.directory,
            "Local directory for private copies of adapters. Default: ~/.cache/loradrop.",
        ),
    )
    lora_cache_size: float = field(
        default=50.0,
        metadata=_flag(
            "--lora-cache-size",
            texts.at_least(0.001),
            "GiB the private copies may take; those in use never count as spare. Default: 50.",
        ),
    )
    lora_copy_bandwidth: float = field(
        default=0.0,
        metadata=_flag(
            "--lora-copy-bandwidth",
            texts.at_least(0),
            "MB/s that all copies from the prefix may take, in each API process; 0: no bound. Default: 0.",
        ),
    )
    lora_state_dir: Path = field(
        default_factory=_state_home,
        metadata=_flag(
            "--lora-state-dir",
            texts.directory,
            "Where the embedded Valkey keeps its append-only file. Default: ~/.local/state/loradrop.",
        ),
    )
    lora_preload: int | None = field(
        default=0,
        metadata=_flag(
            "--lora-preload",
            texts.preload,
            "Adapters to load ahead of their first request: none, all, or how many. Default: none.",
        ),
    )
    api_host: str = field(
        default="127.0.0.1",
        metadata=_flag("--api-host", str, "Where the API listens. Default: 127.0.0.1."),
    )
    api_port: int = field(
        default=8001, metadata=_flag("--api-port", texts.port, "The API's port. Default: 8001.")
    )
    allow_pickle: bool = field(
        default=True,
        metadata=_flag(
            "--allow-pickle",
            texts.switch,
            "Admit adapter_model.bin after a check of what it would run; --no-allow-pickle refuses it.",
        ),
    )
    allow_symlinks_to: tuple[Path, ...] = field(
        default=(),
        metadata=_flag(
            "--allow-symlinks-to",
            texts.directories,
            "Links under the prefix may lead into this directory, too. May be given again.",
        ),
    )
    api_keys: tuple[str, ...] = ()
    """Open everything under /v1 here and on the API: `KEY`, or `KEY SCOPE LABEL`; from LORADROP_API_KEY."""
    named: bool = False
    """Whether we were started by name (`loradrop serve`, VLLM_PLUGINS), even if nothing else is given."""

    @property
    def has_catalog(self) -> bool:
        """Whether there is a prefix to discover, or a fleet to join."""
        return self.lora_dir_prefix is not None or self.redis_url is not None

    @property
    def asked_for(self) -> bool:
        """Whether anything tells us to be there at all."""
        return self.named or self.has_catalog

    def identity(self, *, host: str | None, port: int, process_rank: int) -> str:
        """Return this process's worker id: host and port, `#N` for each further API process."""
        name = self.worker_id or f"{_reachable(host)}:{port}"
        return name if process_rank == 0 else f"{name}#{process_rank}"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add our flags to `parser`, in a group of their own. They stay None unless given."""
    group = parser.add_argument_group("loradrop", "Serve the LoRA adapters under a directory.")
    for setting in _flags():
        flag, text = setting.metadata["flag"], setting.metadata["help"]
        if setting.metadata["parse"] is texts.switch:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        elif setting.metadata["parse"] is texts.directories:
            group.add_argument(flag, action="append", default=None, help=text)
        else:
            group.add_argument(flag, default=None, help=text)


def settings_from(arguments: argparse.Namespace, environment: Mapping[str, str]) -> WorkerSettings:
    """Return the settings given by flags and variables; raises SettingsError."""
    keys = environment.get(f"{_ENVIRONMENT_PREFIX}API_KEY", "").split(",")
    plugins = environment.get("VLLM_PLUGINS", "").split(",")
    given: dict[str, Any] = {
        "api_keys": tuple(key.strip() for key in keys if key.strip()),
        "named": getattr(arguments, NAMED, False) or "loradrop" in plugins,
    }
    for setting in _flags():
        variable = _ENVIRONMENT_PREFIX + setting.name.upper()
        value = getattr(arguments, setting.name, None)
        source = setting.metadata["flag"]
        if value is None:
            value, source = environment.get(variable), variable
        if value is None or value == "":
            continue
        if isinstance(value, list):
            value = os.pathsep.join(value)
        try:
            given[setting.name] = value if isinstance(value, bool) else setting.metadata["parse"](str(value))
        except ValueError as error:
            raise SettingsError(f"{source} {value!r}: {error}.") from error
    return WorkerSettings(**given)


def _flags() -> list[Field[Any]]:
    return [setting for setting in fields(WorkerSettings) if setting.metadata]


def _reachable(host: str | None) -> str:
    return socket.gethostname() if host in {None, "", "0.0.0.0", "::"} else str(host)
