"""The settings of one worker: from vLLM's parsed arguments and the environment.

What can be set, and how, is declared in `catalog.settings`. The plugin is asked for when a prefix or a Redis
is given; otherwise vLLM runs as if it were not there.
"""

import argparse
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from loradrop.catalog.settings import Process, SettingsInvalid, declared, read_values
from loradrop.catalog.settings import add_flags as add_declared

NAMED = "loradrop"
"""The attribute by which `loradrop serve` says so in the parsed arguments."""

_GRPC = "Leave out --grpc: vLLM's gRPC server runs no plugin, and would serve no adapter."


def _cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "loradrop"


def _state_home() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "loradrop"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """The settings of one worker, and of the watcher and API it starts when it has no Redis to join."""

    lora_dir_prefix: Path | None = None
    lora_discovery_interval: float = declared.LORA_DISCOVERY_INTERVAL.default_value
    redis_url: str | None = field(default=None, repr=False)
    pool: str = declared.POOL_NAME.default_value
    worker_id: str | None = None
    notifier: str = declared.NOTIFIER.default_value
    lora_settle: float = declared.LORA_SETTLE.default_value
    lora_cache_dir: Path = field(default_factory=_cache_home)
    lora_cache_size: float = declared.LORA_CACHE_SIZE.default_value
    lora_copy_bandwidth: float = declared.LORA_COPY_BANDWIDTH.default_value
    lora_state_dir: Path = field(default_factory=_state_home)
    lora_preload: int | None = declared.LORA_PRELOAD.default_value
    """None: all."""
    api_host: str = declared.API_HOST.default_value
    api_port: int = declared.API_PORT.default_value
    api_allowed_hosts: tuple[str, ...] = ()
    allow_pickle: bool = declared.ALLOW_PICKLE.default_value
    allow_symlinks_to: tuple[Path, ...] = ()
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    """Entries of LORADROP_API_KEY, as `catalog.http.api_keys` reads them."""
    api_key_file: Path | None = None
    named: bool = False
    """Whether `loradrop serve` or VLLM_PLUGINS named the plugin, even if nothing else is given."""

    @property
    def has_catalog(self) -> bool:
        """Whether there is a prefix to discover, or a fleet to join."""
        return self.lora_dir_prefix is not None or self.redis_url is not None

    @property
    def asked_for(self) -> bool:
        """Whether the plugin has anything to do."""
        return self.named or self.has_catalog

    def identity(self, *, host: str | None, port: int, process_rank: int) -> str:
        """Return this process's worker id: host and port, `#N` for each further API process."""
        name = self.worker_id or f"{_reachable(host)}:{port}"
        return name if process_rank == 0 else f"{name}#{process_rank}"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add our flags to `parser`, in a group of their own."""
    group = parser.add_argument_group("loradrop", "Serve the LoRA adapters under a directory.")
    add_declared(group, declared.settings_of(Process.SERVE), Process.SERVE)


def settings_from(arguments: argparse.Namespace, environment: Mapping[str, str]) -> WorkerSettings:
    """Return the settings given by flags and variables; raises SettingsInvalid."""
    values = read_values(declared.settings_of(Process.SERVE), Process.SERVE, arguments, environment)
    named_plugins = environment.get("VLLM_PLUGINS", "").split(",")
    settings = WorkerSettings(
        lora_dir_prefix=values.given(declared.LORA_DIR_PREFIX),
        lora_discovery_interval=values[declared.LORA_DISCOVERY_INTERVAL],
        redis_url=values.given(declared.REDIS_URL),
        pool=values[declared.POOL_NAME],
        worker_id=values.given(declared.WORKER_ID),
        notifier=values[declared.NOTIFIER],
        lora_settle=values[declared.LORA_SETTLE],
        lora_cache_dir=values.given(declared.LORA_CACHE_DIR) or _cache_home(),
        lora_cache_size=values[declared.LORA_CACHE_SIZE],
        lora_copy_bandwidth=values[declared.LORA_COPY_BANDWIDTH],
        lora_state_dir=values.given(declared.LORA_STATE_DIR) or _state_home(),
        lora_preload=values[declared.LORA_PRELOAD],
        api_host=values[declared.API_HOST],
        api_port=values[declared.API_PORT],
        api_allowed_hosts=values.given(declared.API_ALLOWED_HOST) or (),
        allow_pickle=values[declared.ALLOW_PICKLE],
        allow_symlinks_to=values.given(declared.ALLOW_SYMLINKS_TO) or (),
        api_keys=values.given(declared.API_KEY) or (),
        api_key_file=values.given(declared.API_KEY_FILE),
        named=getattr(arguments, NAMED, False) or "loradrop" in named_plugins,
    )
    fault = _GRPC if getattr(arguments, "grpc", False) else environment_fault(environment)
    if settings.has_catalog and fault:
        raise SettingsInvalid(fault)
    return settings


def environment_fault(environment: Mapping[str, str]) -> str | None:
    """Return which variable of vLLM's keeps it from serving what is discovered, or None."""
    if environment.get("VLLM_USE_RUST_FRONTEND", "0").strip() not in {"", "0"}:
        return (
            "Unset VLLM_USE_RUST_FRONTEND: vLLM's Rust front end runs no plugin, and would serve no adapter."
        )
    if environment.get("VLLM_SKIP_MODEL_NAME_VALIDATION", "0").strip().lower() in {"1", "true"}:
        return "Unset VLLM_SKIP_MODEL_NAME_VALIDATION: vLLM would answer for adapters from the base weights."
    return None


def _reachable(host: str | None) -> str:
    return socket.gethostname() if host in {None, "", "0.0.0.0", "::"} else str(host)
