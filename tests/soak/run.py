"""One soak: warm a scenario up, load it in rounds, weigh everything at rest after each, and judge.

A sample costs a second or so of no load at all, so a scenario has `ROUNDS` of them however long it is.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.soak.fleet import Fleet, running_fleet
from tests.soak.judge import LEAST_SAMPLES, Growth, growths
from tests.soak.samples import Sample
from tests.soak.scenarios import Loads, Refreshes, Scenario, Updates, Writer

ROUNDS = 50

WARM_UP_UPDATES = 20_000
"""The stream of events holds at least 10,000: before that, Redis grows as it must, and a watcher's heap."""
WARM_UP_REFRESHES = 1_500
"""The stream of refreshes holds 1,000, and the scenario keeps 500 results."""
WARM_UP_LOADS = 200
"""The private store holds about a hundred of these adapters."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How many events of each kind are weighed, those of the warm-up apart; 0 leaves a scenario out."""

    updates: int = 100_000
    refreshes: int = 10_000
    loads: int = 1_000
    warm_up_updates: int = WARM_UP_UPDATES
    warm_up_refreshes: int = WARM_UP_REFRESHES
    warm_up_loads: int = WARM_UP_LOADS
    minutes: float = 90.0
    """When no further round is started; what was done until then is judged."""
    with_worker: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one scenario."""

    name: str
    events: int
    seconds: float
    growths: list[Growth]

    @property
    def is_flat(self) -> bool:
        """Whether nothing grew by more than is tolerated."""
        return all(growth.is_tolerated for growth in self.growths)


def soak(plan: Plan, directory: Path) -> Iterator[Outcome]:
    """Run every scenario of `plan` on one fleet and yield what came of each.

    Raises AssertionError where the fleet does not answer.
    """
    deadline = time.monotonic() + plan.minutes * 60
    with running_fleet(directory, with_worker=plan.with_worker) as fleet:
        writer, epoch = Writer(fleet.prefix), fleet.epoch
        updates = Updates(fleet, writer)
        updates.publish(writer.names)
        updates.make(plan.warm_up_updates)  # for every scenario: updates are part of the loads, too
        scenarios = [
            Scenario("updates", updates.make, plan.updates, warm_up=0),
            Scenario("refreshes", Refreshes(fleet, writer).make, plan.refreshes, plan.warm_up_refreshes),
        ]
        if plan.with_worker:
            loads = Loads(fleet, updates)
            scenarios.append(Scenario("loads and unloads", loads.make, plan.loads, plan.warm_up_loads))
        for scenario in scenarios:
            if scenario.events:
                yield _outcome(fleet, scenario, deadline)
                assert fleet.epoch == epoch, "the catalog was begun anew, though nothing was lost"


def _outcome(fleet: Fleet, scenario: Scenario, deadline: float) -> Outcome:
    size = max(1, scenario.events // ROUNDS)
    for _ in range(-(-scenario.warm_up // size)):
        scenario.make(size)
        fleet.until_at_rest()
    fleet.weigh()  # the first one imports and opens what the others use
    samples: list[Sample] = []
    started = time.monotonic()
    while len(samples) * size < scenario.events:
        if time.monotonic() > deadline and len(samples) >= LEAST_SAMPLES:
            break
        scenario.make(size)
        fleet.until_at_rest()
        samples.append(fleet.weigh())
    events = len(samples) * size
    return Outcome(scenario.name, events, time.monotonic() - started, growths(samples, events=events))
