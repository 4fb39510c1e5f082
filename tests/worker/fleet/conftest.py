"""Settings and options of an embedded stack that meets no other; a catalog, and a worker that follows it."""

import dataclasses
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from loradrop.catalog.store import Connection, Publisher
from loradrop.worker.fleet.embedded import StackOptions
from loradrop.worker.serving.reconciler import Reconciler
from loradrop.worker.settings import WorkerSettings
from testkit.servers import ValkeyServer, free_port, valkey
from tests.worker.fleet.followers import Follower, following
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


@pytest.fixture(scope="module")
def own_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A Valkey to kill."""
    with valkey(tmp_path_factory.mktemp("own-valkey")) as server:
        yield server


@pytest.fixture
async def follower(redis_url: str, reconciler: Reconciler) -> AsyncIterator[Follower]:
    async with following(redis_url, reconciler) as follower:
        yield follower


@pytest.fixture
async def publisher(connection: Connection) -> Publisher:
    publisher = Publisher(connection, owner="watcher-1")
    await publisher.lead()
    await publisher.complete()
    return publisher
