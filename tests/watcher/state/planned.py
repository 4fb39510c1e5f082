"""A catalog that takes what the state of a prefix plans, and findings to teach it."""

from datetime import UTC, datetime
from typing import Any

from loradrop.catalog.adapter import AdapterState, Reason, Revision, WeightsFormat
from loradrop.watcher.prefix.findings import Absent, Facts, Finding, RootIdentity, Unreadable
from loradrop.watcher.state.plan import Plan
from loradrop.watcher.state.planning import plan
from loradrop.watcher.state.prefix_state import PrefixState
from loradrop.watcher.state.removal import RemovalRule
from tests.catalog.values import an_adapter

NAMES = [f"a{number}" for number in range(10)]
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
HOME, OTHER = RootIdentity(1, 10), RootIdentity(1, 11)
ONE, TWO = Revision("1" * 64), Revision("2" * 64)
GONE = Absent()
BROKEN = Unreadable(Reason("disk_error", "EIO"))


def ready(revision: Revision = ONE, **changes: Any) -> Finding:
    facts = Facts(WeightsFormat.SAFETENSORS, 1234, 8, "base")
    return Finding(
        signature=revision.encode(), state=AdapterState.READY, facts=facts, revision=revision, **changes
    )


def settling(code: str = "changing") -> Finding:
    return Finding(signature=b"s", state=AdapterState.SETTLING, reason=Reason(code, "."), look_again_at=9.0)


def incomplete(message: str) -> Finding:
    return Finding(signature=b"i", state=AdapterState.INCOMPLETE, reason=Reason("weights_truncated", message))


class Catalog:
    """A catalog that takes what is planned, as Redis does."""

    def __init__(self, *names: str, grace_seconds: float = 1.0) -> None:
        self.state = PrefixState("/srv/loras", RemovalRule(grace_seconds=grace_seconds))
        self.records = {name: an_adapter(name) for name in names}
        self.now = NOON
        self.state.begin_session(self.records)
        self.state.observe_root(HOME)
        self.state.observe_listing(set(names))
        self.publish()

    def plan(self, **options: Any) -> Plan:
        return plan(self.state, self.records, self.records, now=self.now, **options)

    def publish(self, **options: Any) -> Plan:
        planned = self.plan(**options)
        self.records |= {record.name: record for record in planned.records.values()}
        for name in planned.removals:
            self.records.pop(name, None)
        self.state.commit(planned)
        return planned

    def find(self, *names: str, at: float = 0.0, finding: Finding | Unreadable | None = None) -> None:
        for name in names:
            self.state.learn(name, finding or ready(), now=at)

    def miss(self, *names: str, at: float = 0.0) -> None:
        for name in names:
            self.state.learn(name, GONE, now=at)
