"""What an operator decides about a worker: flags on vLLM's command line, or LORADROP_... variables.

One table names every setting; the flag wins over the variable, the variable over the default. The
plugin is asked for when a prefix or a Redis is given; otherwise vLLM runs as if we were not there.
"""

import argparse
import math
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from catalog.keys import DEFAULT_POOL

_ENVIRONMENT_PREFIX = "LORADROP_"


class SettingsError(ValueError):
    """A flag or a variable has a value that cannot be used; the message names it and says what can."""


def _at_least(lowest: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = float(text)
        if not math.isfinite(value) or value < lowest:
            raise ValueError(f"must be a number, {lowest:g} or more")
        return value

    return number


def _port(text: str) -> int:
    value = int(text)
    if not 0 < value < 65536:
        raise ValueError("must be a port, 1 to 65535")
    return value


def _directory(text: str) -> Path:
    if not text:
        raise ValueError("must name a directory")
    return Path(text).expanduser().absolute()


def _preload(text: str) -> int | None:
    if text == "none":
        return 0
    if text == "all":
        return None
    value = int(text)
    if value < 0:
        raise ValueError("must be none, all, or a number of adapters")
    return value


def _notifier(text: str) -> str:
    if text not in {"auto", "inotify", "watchdog", "none"}:
        raise ValueError("must be auto, inotify, watchdog or none")
    return text


def _switch(text: str) -> bool:
    word = text.lower()
    if word not in {"1", "true", "yes", "on", "0", "false", "no", "off"}:
        raise ValueError("must be 1 or 0")
    return word in {"1", "true", "yes", "on"}


def _cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "loradrop"


def _state_home() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "loradrop"


def _setting(flag: str, parse: Callable[[str], Any], text: str, **default: Any) -> Any:
    return field(metadata={"flag": flag, "parse": parse, "help": text}, **default)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """The settings of one worker, and of the watcher and API it starts when it has no Redis to join."""

    lora_dir_prefix: Path | None = _setting(
        "--lora-dir-prefix",
        _directory,
        "Directory whose subdirectories are LoRA adapters; each is served under its name.",
        default=None,
    )
    lora_discovery_interval: float = _setting(
        "--lora-discovery-interval",
        _at_least(0),
        "Seconds between rescans of the prefix, behind the notifications. 0 turns them off. Default: 30.",
        default=30.0,
    )
    redis_url: str | None = _setting(
        "--redis-url",
        str,
        "Join a fleet: the Redis its watcher publishes to. Left out: an embedded Valkey, a watcher and the "
        "API are started as children.",
        default=None,
    )
    pool: str = _setting("--pool", str, f"Name of the fleet. Default: {DEFAULT_POOL}.", default=DEFAULT_POOL)
    worker_id: str | None = _setting(
        "--worker-id", str, "Name of this worker in reports. Default: host name and port.", default=None
    )
    notifier: str = _setting(
        "--notifier",
        _notifier,
        "How changes are noticed: auto, inotify, watchdog or none (rescans only). Default: auto.",
        default="auto",
    )
    lora_settle: float = _setting(
        "--lora-settle",
        _at_least(0),
        "Seconds an adapter's files must be still before it is served. Default: 1.",
        default=1.0,
    )
    lora_cache_dir: Path = _setting(
        "--lora-cache-dir",
        _directory,
        "Local directory for private copies of adapters. Default: ~/.cache/loradrop.",
        default_factory=_cache_home,
    )
    lora_cache_size: float = _setting(
        "--lora-cache-size",
        _at_least(0.001),
        "GiB the private copies may take; those in use never count as spare. Default: 50.",
        default=50.0,
    )
    lora_state_dir: Path = _setting(
        "--lora-state-dir",
        _directory,
        "Where the embedded Valkey keeps its append-only file. Default: ~/.local/state/loradrop.",
        default_factory=_state_home,
    )
    lora_preload: int | None = _setting(
        "--lora-preload",
        _preload,
        "Adapters to load ahead of their first request: none, all, or how many. Default: none.",
        default=0,
    )
    api_host: str = _setting(
        "--api-host", str, "Where the API listens. Default: 127.0.0.1.", default="127.0.0.1"
    )
    api_port: int = _setting("--api-port", _port, "The API's port. Default: 8001.", default=8001)
    allow_pickle: bool = _setting(
        "--allow-pickle",
        _switch,
        "Admit adapter_model.bin after a check of what it would run; --no-allow-pickle refuses it.",
        default=True,
    )

    @property
    def asked_for(self) -> bool:
        """Whether anything tells us to work at all."""
        return self.lora_dir_prefix is not None or self.redis_url is not None

    def identity(self, *, host: str | None, port: int, process_rank: int) -> str:
        """Return this process's worker id: host and port, `#N` for each further API process."""
        name = self.worker_id or f"{_reachable(host)}:{port}"
        return name if process_rank == 0 else f"{name}#{process_rank}"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add our flags to `parser`, in a group of their own. They stay None unless given."""
    group = parser.add_argument_group("loradrop", "Serve the LoRA adapters under a directory.")
    for setting in fields(WorkerSettings):
        flag, text = setting.metadata["flag"], setting.metadata["help"]
        if setting.metadata["parse"] is _switch:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            group.add_argument(flag, default=None, help=text)


def settings_from(arguments: argparse.Namespace, environment: Mapping[str, str]) -> WorkerSettings:
    """Return the settings given by flags and variables; raises SettingsError."""
    given: dict[str, Any] = {}
    for setting in fields(WorkerSettings):
        variable = _ENVIRONMENT_PREFIX + setting.name.upper()
        value = getattr(arguments, setting.name, None)
        source = setting.metadata["flag"]
        if value is None:
            value, source = environment.get(variable), variable
        if value is None or value == "":
            continue
        try:
            given[setting.name] = value if isinstance(value, bool) else setting.metadata["parse"](str(value))
        except ValueError as error:
            raise SettingsError(f"{source} {value!r}: {error}.") from error
    return WorkerSettings(**given)


def _reachable(host: str | None) -> str:
    return socket.gethostname() if host in {None, "", "0.0.0.0", "::"} else str(host)
