"""What the watcher knows about the prefix: a finding for each name, the unreadable, the missing, the absent.

Facts come in from scans and examinations; which records the catalog should hold comes out. A name that
cannot be read keeps its last finding. A name that the last listing lacked is missing; looked for in vain, it
is absent. It keeps its finding too, until its removal is proven. A name that was seen and is not examined yet
counts as one that may be served.
"""

import time
from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime

from loradrop.catalog.adapter import Adapter, AdapterState, Reason, Revision, is_usable_name
from loradrop.watcher.prefix.findings import Absent, Examined, Finding, Unreadable
from loradrop.watcher.prefix.naming import Twins, is_ignored, shown, twin_reason
from loradrop.watcher.prefix.scan import RootIdentity
from loradrop.watcher.state.records import record_for, with_twin
from loradrop.watcher.state.removal import Absence, RemovalRule, Removals, decide_removals, miss, miss_anew

_FIRST_RETRY_SECONDS = 1.0
_LAST_RETRY_SECONDS = 30.0


@dataclass(slots=True)
class Disk:
    """One prefix as it was last seen. Keeps true: nothing is concluded from an error or another device."""

    prefix: str
    rule: RemovalRule
    findings: dict[str, Finding] = field(default_factory=dict)
    unreadable: dict[str, Unreadable] = field(default_factory=dict)
    absent: dict[str, Absence] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    unexamined: set[str] = field(default_factory=set)
    home: RootIdentity | None = None
    away: bool = False
    twins: Twins = field(default_factory=Twins)
    _pauses: dict[str, float] = field(default_factory=dict)
    _held: frozenset[str] = frozenset()

    def copy(self) -> "Disk":
        """Return an independent copy, to try something on."""
        return Disk(
            self.prefix,
            self.rule,
            dict(self.findings),
            dict(self.unreadable),
            dict(self.absent),
            set(self.missing),
            set(self.unexamined),
            self.home,
            self.away,
            Twins(self.findings),
        )

    def arrive(self, identity: RootIdentity) -> bool:
        """Note which directory the prefix is; return whether it is another one than before.

        A new directory on the same device replaces the old one. One on another device is probably what
        lies under a mount that went away: it may add and update, and it removes nothing.
        """
        if self.home is None:
            self.home = identity
        changed = identity != self.home
        if changed and identity.device == self.home.device:
            self.home = identity
        self.away = identity.device != self.home.device
        return changed

    def settle_in(self, identity: RootIdentity) -> None:
        """Take `identity` for the prefix from now on: all that is known is there, or a person said so."""
        self.home = identity
        self.away = False

    def learn(self, name: str, examined: Examined, *, hurried: bool = False) -> float | None:
        """Keep what an examination found, and return when (monotonic seconds) to look again, if ever."""
        match examined:
            case Unreadable():
                self.unexamined.discard(name)
                self.unreadable[name] = examined
                before = self._pauses.get(name, _FIRST_RETRY_SECONDS / 2)
                self._pauses[name] = min(2 * before, _LAST_RETRY_SECONDS)
                return time.monotonic() + self._pauses[name]
            case Absent():
                self._is_legible(name)
                if not self.away:
                    self.absent[name] = miss(self.absent.get(name), now=time.monotonic(), hurried=hurried)
                return None
            case Finding():
                self._is_legible(name)
                self.absent.pop(name, None)
                self.missing.discard(name)
                self.unexamined.discard(name)
                if name in self._held:
                    self._miss_anew()
                if name not in self.findings:
                    self.twins.add(name)
                self.findings[name] = examined
                return examined.look_again_at

    def forget(self, name: str) -> None:
        """Drop all that is known about a name that is proven gone."""
        self.absent.pop(name, None)
        self.missing.discard(name)
        self.unexamined.discard(name)
        self._is_legible(name)
        if self.findings.pop(name, None) is not None:
            self.twins.discard(name)

    def _miss_anew(self) -> None:
        """Forget how often names were missed: one that vanished with them is back, and they may be late."""
        now = time.monotonic()
        self.absent = {name: miss_anew(absence, now=now) for name, absence in self.absent.items()}
        self._held = frozenset()

    def _is_legible(self, name: str) -> None:
        self.unreadable.pop(name, None)
        self._pauses.pop(name, None)

    def removals(self, records: Mapping[str, Adapter], *, confirmed: bool = False) -> Removals:
        """Return which absent names are proven gone; none while another device is under the prefix."""
        self._held = frozenset()
        if not self.absent or (self.away and not confirmed):
            return Removals((), {}, ())
        served = {
            name
            for name, record in records.items()
            if record.revision is not None and record.prefix == self.prefix
        }
        removals = decide_removals(
            self.absent, served | self.unexamined, self.rule, missing=self.missing, confirmed=confirmed
        )
        if removals.held:
            self._held = frozenset({*removals.held, *self.missing})
        return removals

    def record(self, name: str, records: Mapping[str, Adapter], *, now: datetime) -> Adapter | None:
        """Return the record the catalog should hold for `name`, or None where nothing is known of it."""
        found: Finding | Unreadable | None = self.unreadable.get(name) or self.findings.get(name)
        if found is None:
            return None
        known = records.get(shown(name))
        record = record_for(name, self.prefix, found, known, now=now)
        if record.state is not AdapterState.READY:
            return record
        others = self.twins.of(name, self.findings)
        if not others or _may_stay(name, others, records):
            return record
        return with_twin(record, known, twin_reason(name, others[0]))

    def neighbours(self, name: str) -> tuple[str, ...]:
        """Return the names whose record may change because `name` came or went."""
        return self.twins.of(name, self.findings)

    def lookable(self, names: Iterable[str], records: Collection[str]) -> set[str]:
        """Return those of `names`, which a stranger may have chosen, that are no paths to somewhere else."""
        return {
            name
            for name in names
            if (is_usable_name(name) and not is_ignored(name)) or name in self.findings or name in records
        }

    def compare(self, seen: Collection[str], records: Iterable[str]) -> None:
        """Note as `missing` what is known, here or in the catalog, and not among the names that were seen."""
        legible = {shown(name) for name in seen if not name.isascii()}  # as the catalog spells them
        known = {*self.findings, *self.unexamined, *records}
        self.missing = {name for name in known if name not in seen and name not in legible}

    def is_known(self, name: str) -> bool:
        """Return whether anything has been seen of `name`."""
        return name in self.findings or name in self.unexamined

    def expect(self, seen: Set[str]) -> None:
        """Note that `seen`, all that a scan saw, is there: what nobody has examined yet may be served."""
        self.unexamined |= seen - self.findings.keys() - self.unreadable.keys()

    def is_unsettled(self, name: str) -> bool:
        """Return whether looking at `name` again soon may tell something else."""
        finding = self.findings.get(name)
        return (
            finding is not None and finding.state is AdapterState.SETTLING and not _is_endless(finding.reason)
        )


def served(records: Mapping[str, Adapter]) -> dict[str, Revision]:
    """Return name -> revision of the records that have one."""
    return {name: record.revision for name, record in records.items() if record.revision is not None}


def _may_stay(name: str, others: Iterable[str], records: Mapping[str, Adapter]) -> bool:
    """Return whether `name` was served before its twins came."""
    known = records.get(name)
    if known is None or known.revision is None:
        return False
    return not any((other := records.get(twin)) is not None and other.revision is not None for twin in others)


def _is_endless(reason: Reason | None) -> bool:
    return reason is not None and reason.code in {"unstable", "writer_active"}
