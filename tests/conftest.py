"""Fixtures every test may use: a real Valkey, and a catalog in it that starts empty."""

import logging
import signal
from collections.abc import AsyncIterator, Iterator

import hypothesis
import pytest
import redis
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from loradrop.catalog.store import Connection
from testkit.servers import ValkeyServer, valkey

hypothesis.settings.register_profile("a machine that is busy elsewhere", deadline=None)
hypothesis.settings.load_profile("a machine that is busy elsewhere")

# A shell that runs us in the background has its children ignore Ctrl-C, which tests press on theirs.
signal.signal(signal.SIGINT, signal.default_int_handler)


class OneVllmAtATime(LoadScopeScheduling):
    """Spreads tests over processes as they come, but leaves all that start a vLLM to one of them."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/e2e" if nodeid.startswith("tests/e2e/") else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneVllmAtATime:
    return OneVllmAtATime(config, log)


@pytest.fixture(autouse=True)
def root_log_level() -> None:
    """Let every test begin with the level a process begins with: importing parts of vLLM sets another."""
    logging.getLogger().setLevel(logging.WARNING)


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """One Valkey for the whole run; tests that kill or freeze theirs start their own."""
    with valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def redis_url(valkey_server: ValkeyServer) -> str:
    """The URL of a real, empty Redis."""
    with redis.Redis.from_url(valkey_server.url) as client:
        client.flushall()
    return valkey_server.url


@pytest.fixture
async def connection(redis_url: str) -> AsyncIterator[Connection]:
    """A connection to a real, empty Redis."""
    async with Connection(redis_url) as connection:
        yield connection
