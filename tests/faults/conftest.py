"""Marks what is here as faults, and prints the table of what the scenarios measured."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from loradrop.catalog.store import Connection
from testkit.servers import ValkeyServer, valkey
from tests.faults.table import Row, Table

_TABLE = pytest.StashKey[Table]()
_PROPERTY = "fault scenario"


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TABLE] = Table()
    config.pluginmanager.register(_Collector(config.stash[_TABLE]))


class _Collector:
    """Takes the rows out of the reports, which reach the main process from wherever a test ran."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            rows = (value for name, value in report.user_properties if name == _PROPERTY)
            self._table.rows.extend(Row(**row) for row in rows if isinstance(row, dict))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.faults)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    table = config.stash[_TABLE]
    if table.rows:
        terminalreporter.section("fault scenarios")
        for line in table.lines():
            terminalreporter.write_line(line)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A Valkey of this test's own, to be killed and frozen; what it acknowledged is on the disk."""
    directory = tmp_path / "valkey"
    directory.mkdir()
    with valkey(directory, "--appendfsync", "always") as server:
        yield server


@pytest.fixture
async def own(server: ValkeyServer) -> AsyncIterator[Connection]:
    async with Connection(server.url) as connection:
        yield connection


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Iterator[Row]:
    """The line of this scenario in the table; its counts must be 0 in the end."""
    scenario = Row(request.node.name.removeprefix("test_").replace("_", " "))
    yield scenario
    request.node.user_properties.append((_PROPERTY, asdict(scenario)))
    assert not any(scenario.faults().values()), scenario.faults()


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    path = tmp_path / "prefix"
    path.mkdir()
    return path
