"""What must hold of a record.

The invariants: bytes are never partial (I1), all converges (I2), nothing is dropped on doubt (I3), no
position goes back within an epoch (I4), what is loaded is loaded once (I5), no process is blind in silence
(I6), the last good one is kept (I7), nothing piles up (I8). For I2 the driver waits; a run in which it does
not come ends as a failure by itself. Not here: I6 and what else the API says (`judge_api`), and I8
(`judge_growth`).
"""

from collections import Counter, defaultdict
from collections.abc import Iterator

from tests.chaos.judge_api import answers_or_says_why, claims_nothing_is_gone, says_when_blind
from tests.chaos.judge_growth import holds_no_more_than_before, streams_are_bounded
from tests.chaos.record import Entry


def broken(entries: list[Entry]) -> list[str]:
    """Return what breaks an invariant, in words."""
    checks = (
        never_partial,
        never_dropped_on_doubt,
        never_back,
        loaded_once,
        answered_from_what_was_written,
        answers_or_says_why,
        claims_nothing_is_gone,
        says_when_blind,
        streams_are_bounded,
        holds_no_more_than_before,
    )
    return [f"{check.__name__}: {fault}" for check in checks for fault in check(entries)]


def never_partial(entries: list[Entry]) -> Iterator[str]:
    """I1: what an engine loads, and what any process lists, was once completely on disk under that name."""
    written = {(entry["name"], entry["revision"]) for entry in entries if entry["what"] == "wrote"}
    for entry in entries:
        if entry["what"] in {"loaded", "listed"} and (entry["name"], entry["revision"]) not in written:
            yield f"{entry['who']} {entry['what']} bytes never written: {entry}"
        if entry["what"] == "violation":
            yield f"{entry['who']}: {entry['why']}"


def never_dropped_on_doubt(entries: list[Entry]) -> Iterator[str]:
    """I3, I7: a name leaves a worker's list or table only once it was removed, a revision once replaced."""
    current: dict[str, str | None] = {}
    removed: set[str] = set()
    for entry in entries:
        name = entry.get("name", "")
        if entry["what"] in {"wrote", "removed"}:
            current[name] = entry.get("revision")
            removed |= {name} if entry["what"] == "removed" else set()
        elif entry["what"] == "unlisted" and entry["who"] != "api" and name not in removed:
            yield f"{entry['who']} no longer lists what was never removed: {entry}"
        elif entry["what"] in {"unloaded", "withdrawn"} and current.get(name) == entry["revision"]:
            yield f"{entry['who']} unloaded what is wanted: {entry}"


def never_back(entries: list[Entry]) -> Iterator[str]:
    """I4: within an epoch no position goes back, and no epoch comes again."""
    seen: dict[str, dict[str, int]] = defaultdict(dict)
    latest: dict[str, str] = {}
    for entry in entries:
        if entry["what"] != "moved":
            continue
        who, epoch, seq = entry["who"], entry["epoch"], entry["seq"]
        if epoch in seen[who] and (latest[who] != epoch or seq < seen[who][epoch]):
            yield f"{who} went back: {entry}"
        seen[who][epoch], latest[who] = seq, epoch


def loaded_once(entries: list[Entry]) -> Iterator[str]:
    """I5: nothing is loaded again that was not unloaded in between."""
    held: Counter[tuple[str, str, str]] = Counter()
    for entry in entries:
        if entry["what"] in {"loaded", "unloaded"}:
            key = (entry["who"], entry["name"], entry["revision"])
            held[key] += 1 if entry["what"] == "loaded" else -1
            if held[key] > 1:
                yield f"loaded twice: {entry}"


def answered_from_what_was_written(entries: list[Entry]) -> Iterator[str]:
    """I7: a request for a name that never changes is always answered from its one revision."""
    written = {entry["name"]: entry["revision"] for entry in entries if entry["what"] == "wrote"}
    for entry in entries:
        if entry["what"] == "answered" and entry["revision"] != written[entry["name"]]:
            yield f"answered from other bytes: {entry}"
        if entry["what"] == "refused":
            yield f"{entry['who']} did not answer: {entry}"
