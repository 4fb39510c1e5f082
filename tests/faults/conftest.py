"""Marks what is here as faults, and prints the table of what the scenarios measured."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.table import Row, Table

_TABLE = pytest.StashKey[Table]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TABLE] = Table()


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
def row(request: pytest.FixtureRequest) -> Iterator[Row]:
    """The line of this scenario in the table; its counts must be 0 in the end."""
    scenario = Row(request.node.name.removeprefix("test_").replace("_", " "))
    yield scenario
    request.config.stash[_TABLE].rows.append(scenario)
    assert (scenario.lost, scenario.partial, scenario.false_removals) == (0, 0, 0)
