"""What the watcher knows of one prefix: one record a name, and which directory the prefix is.

Facts come in from hints, scans and examinations. What to write to the catalog is decided by `plan`, which
changes nothing; once that is written, `commit` takes it for known. So a write that fails loses nothing, and a
dry run is a plan made on a copy.

    scan ─────────────► observe_listing ┐
    hint ─────────────► observe_hint    ├─► names, dirty, lost ─► plan ─► Redis ─► commit
    examination ──────► learn           ┘

Not here: input and output, and any clock: times are passed in, in monotonic seconds.
"""

from collections.abc import Collection, Iterable, Mapping, Set
from copy import copy

from loradrop.catalog.backoff import Backoff
from loradrop.catalog.printable import printable
from loradrop.watcher.prefix.findings import Absent, Examined, Finding, RootIdentity, Unreadable
from loradrop.watcher.prefix.naming import NameCollisions, is_ignored
from loradrop.watcher.state.name_state import NameState
from loradrop.watcher.state.plan import Plan
from loradrop.watcher.state.removal import RemovalRule, miss, miss_anew
from loradrop.watcher.state.root import Root

_FIRST_RETRY_SECONDS = 1.0
_LAST_RETRY_SECONDS = 30.0


class PrefixState:
    """One prefix as it was last seen. Invariant: nothing is concluded from an error or another directory.

    `held` are the names of a mass removal that is held back.
    """

    def __init__(self, prefix: str, rule: RemovalRule) -> None:
        """Know nothing of `prefix` yet."""
        self.prefix = prefix
        self.rule = rule
        self.held: frozenset[str] = frozenset()
        self.root = Root()
        self._names: dict[str, NameState] = {}
        # Two indexes of it, so that publishing costs what has changed and not what there is.
        self._dirty: dict[str, int] = {}
        self._lost: set[str] = set()
        self._marks = 0
        self._collisions = NameCollisions()

    def copy(self) -> "PrefixState":
        """Return an independent copy, to plan a dry run on."""
        copied = copy(self)
        copied._names = {name: state.copy() for name, state in self._names.items()}
        copied._dirty, copied._lost = dict(self._dirty), set(self._lost)
        copied._collisions = self._collisions.copy()
        return copied

    @property
    def names(self) -> Mapping[str, NameState]:
        """Everything known, by name."""
        return self._names

    @property
    def dirty(self) -> Mapping[str, int]:
        """The names whose record may have to change, and a mark that grows each time one is named again."""
        return self._dirty

    @property
    def lost(self) -> Set[str]:
        """The names that may be gone: missing from the last listing, or examined and not found."""
        return self._lost

    def finding(self, name: str) -> Finding | None:
        """Return what was last read of `name`."""
        state = self._names.get(name)
        return None if state is None else state.finding

    def has_finding(self, name: str) -> bool:
        """Return whether anything has been read of `name`."""
        return self.finding(name) is not None

    def is_unsettled(self, name: str) -> bool:
        """Return whether another examination of `name` soon may find something else."""
        state = self._names.get(name)
        return state is not None and state.is_unsettled

    def is_open(self, name: str) -> bool:
        """Return whether `name` has still to settle, to be published, or to be proven gone."""
        state = self._names.get(name)
        if state is None:
            return False
        may_be_removed = state.is_lost and name not in self.held and self.root.is_accepted
        return name in self._dirty or state.is_unsettled or may_be_removed

    def doubtful(self) -> list[str]:
        """Return the names that every scan examines anew: unreadable, or not found."""
        return [name for name, state in self._names.items() if state.unreadable or state.is_lost]

    def colliding(self, name: str) -> tuple[str, ...]:
        """Return the other names of the prefix that differ from `name` only in case or Unicode form."""
        return self._collisions.of(name, self.has_finding)

    def examinable(self, names: Iterable[str], listed: Collection[str]) -> set[str]:
        """Return those of `names`, which a client may have chosen, that are known, or `listed` adapters."""
        return {name for name in names if name in self._names or (name in listed and not is_ignored(name))}

    def begin_session(self, recorded: Iterable[str], root: RootIdentity | None = None) -> None:
        """Note that the catalog, listed just now, holds `recorded` and expects `root`; nothing is dirty."""
        self.root = self.root.begun(root)
        self._dirty.clear()
        for name in recorded:
            self._names.setdefault(name, NameState()).is_recorded = True

    def observe_root(self, identity: RootIdentity) -> bool:
        """Note which directory the prefix is; return whether it is another one than last time."""
        before, self.root = self.root, self.root.observed(identity)
        return self.root.seen is not before.seen

    def doubt_root(self) -> None:
        """Note that the prefix could not be read, or was replaced for an instant."""
        self.root = self.root.doubted()

    def observe_listing(self, names: Collection[str]) -> None:
        """Note which of the known names are missing from `names`, all that the prefix holds."""
        self.root = self.root.listed_now()
        recorded = {printable(name) for name in names if not name.isprintable()}  # as the catalog spells them
        self._lost.clear()
        for name, state in self._names.items():
            state.is_missing = name not in names and name not in recorded
            if state.is_lost:
                self._lost.add(name)

    def observe_scan(self, names: Set[str]) -> None:
        """Note that a scan saw `names`: what was never examined may be served."""
        self.observe_listing(names)
        for name in names:
            state = self._names.get(name)
            if state is None:
                self._names[name] = NameState(is_unexamined=True)
            elif state.finding is None and state.unreadable is None:
                state.is_unexamined = True

    def observe_hint(self, name: str, *, now: float, arrived: bool) -> None:
        """Note a hint of `name`; of several before it is published, the first counts."""
        state = self._names.setdefault(name, NameState())
        state.arrived = arrived
        if state.hinted_at is None:
            state.hinted_at = now

    def take_arrived(self, name: str) -> bool:
        """Return whether the last hint of `name` was a rename of the whole directory; it counts once."""
        state = self._names.get(name)
        if state is None:
            return False
        arrived, state.arrived = state.arrived, False
        return arrived

    def put_back_arrived(self, name: str) -> None:
        """Take back what `take_arrived` told: the examination did not come to `name`."""
        if (state := self._names.get(name)) is not None:
            state.arrived = True

    def learn(self, name: str, examined: Examined, *, now: float) -> float | None:
        """Keep what an examination found, and return when to examine `name` again, if ever."""
        state = self._names.setdefault(name, NameState())
        if examined is state.finding:
            state.hinted_at = None  # it led to nothing
        look_again = None
        match examined:
            case Unreadable():
                state.retry = state.retry or Backoff(_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS)
                state.unreadable, state.is_unexamined = examined, False
                look_again = now + state.retry.pause_seconds()
            case Absent():
                self._learn_absent(name, state, now)
            case Finding():
                self._learn_finding(name, state, examined, now)
                look_again = examined.look_again_at
        if name in self._names:
            self.mark_dirty((name, *self.colliding(name)))
        return look_again

    def mark_dirty(self, names: Iterable[str]) -> None:
        """Note that the records of `names` may have to change."""
        for name in names:
            self._marks += 1
            self._dirty[name] = self._marks

    def commit(self, plan: Plan) -> list[float]:
        """Take `plan`, which was written, for known; return when the first hints came of what it published.

        What was learnt while it was written stays dirty; a name that came back meanwhile is not forgotten.
        """
        self.held = plan.held
        if plan.accepts_root is not None and plan.judged_root == self.root.listed:
            self.root = self.root.judged(accepts=plan.accepts_root)
        for name, mark in plan.considered.items():
            if self._dirty.get(name) == mark:
                del self._dirty[name]
        published = [self._take_hint(name) for name in plan.published]
        for name in plan.records:
            self._names[name].is_recorded = True
        for name, absence in plan.removals.items():
            if self._names[name].absence == absence:
                self._forget(name)
        return [at for at in published if at is not None]

    def _take_hint(self, name: str) -> float | None:
        state = self._names[name]
        hinted_at, state.hinted_at = state.hinted_at, None
        return hinted_at

    def _learn_absent(self, name: str, state: NameState, now: float) -> None:
        state.unreadable = state.retry = None
        is_known = state.finding is not None or state.is_unexamined or state.is_recorded
        if not is_known and name not in self._dirty:  # what is dirty may just be written
            self._forget(name)  # a hint, or a client's word, of nothing
        elif self.root.is_accepted:
            state.absence = miss(state.absence, now=now)
            self._lost.add(name)

    def _learn_finding(self, name: str, state: NameState, found: Finding, now: float) -> None:
        if state.is_lost and self.held:
            self._miss_anew(now)
        if state.finding is None:
            self._collisions.add(name)
        state.finding = found
        state.unreadable = state.retry = state.absence = None
        state.is_missing = state.is_unexamined = False
        self._lost.discard(name)

    def _miss_anew(self, now: float) -> None:
        """Forget how often names were not found: one that vanished with them is back; they may be late."""
        for name in self._lost:
            state = self._names[name]
            if state.absence is not None:
                state.absence = miss_anew(now=now)
        self.held = frozenset()

    def _forget(self, name: str) -> None:
        """Drop all that is known of `name`."""
        others = self.colliding(name)
        del self._names[name]
        self._collisions.discard(name)
        self._lost.discard(name)
        self._dirty.pop(name, None)
        self.mark_dirty(others)
