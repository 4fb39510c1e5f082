"""Settings and options of an embedded stack that meets no other."""

import dataclasses
from pathlib import Path

import pytest

from loradrop.worker.fleet.embedded import (
    StackOptions,
)
from loradrop.worker.settings import WorkerSettings
from testkit.servers import free_port
from tests.worker.fleet.stacks import IdleCommands


@pytest.fixture
def options() -> StackOptions:
    """The real children, on a port that no other test uses."""
    return StackOptions(redis_port=free_port(), first_restart_seconds=0.05)


@pytest.fixture
def idle(options: StackOptions) -> StackOptions:
    """A real Valkey, and nothing else."""
    return dataclasses.replace(options, commands=IdleCommands())


@pytest.fixture
def settings(tmp_path: Path) -> WorkerSettings:
    """Settings of a server that keeps everything under `tmp_path`."""
    (tmp_path / "loras").mkdir()
    return WorkerSettings(
        lora_dir_prefix=tmp_path / "loras",
        lora_state_dir=tmp_path / "state",
        lora_discovery_interval=0.2,
        lora_settle=0.1,
        api_port=free_port(),
    )
