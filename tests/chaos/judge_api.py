"""What must hold of what the API said, and of who said that they cannot see (I6)."""

from collections.abc import Iterator
from math import inf

from tests.chaos import catalog_losses, prefix_losses
from tests.chaos.api_client import ADAPTERS, HEALTH, READY
from tests.chaos.record import Entry

REDIS_AWAY = frozenset({"redis_killed", "redis_emptied", "redis_frozen", "network_stalled"})
STARTED_WITHOUT_PREFIX = "watchers_started_without_prefix"
PREFIX_AWAY = frozenset({*prefix_losses.LOSSES, STARTED_WITHOUT_PREFIX})
API_AWAY = "api_killed"
CATALOG_LOST = frozenset({"redis_emptied", *catalog_losses.LOSSES}) - {catalog_losses.EVENTS_LOST}

_OK, _UNAVAILABLE = 200, 503


def answers_or_says_why(entries: list[Entry]) -> Iterator[str]:
    """The API answers once it has begun to, unless it is killed: with 503 while Redis is away."""
    redis_away_since = inf
    api_away_until = min((entry["at"] for entry in entries if entry["what"] == "answer"), default=inf)
    for entry in entries:
        what, name = entry["what"], entry.get("name")
        if what == "fault":
            redis_away_since = entry["at"] if name in REDIS_AWAY else inf
            api_away_until = inf if name == API_AWAY else api_away_until
        elif what == "over":
            redis_away_since = inf
            api_away_until = entry["at"] if name == API_AWAY else api_away_until
        elif what == "silent" and entry["asked"] > api_away_until:
            yield f"no answer: {entry}"
        elif what == "answer":
            allowed = {_OK} if entry["path"] == HEALTH else {_OK, _UNAVAILABLE}
            if entry["path"] != HEALTH and entry["asked"] > redis_away_since:
                allowed = {_UNAVAILABLE}
            if entry["status"] not in allowed:
                yield f"{sorted(allowed)} were to be expected: {entry}"


def claims_nothing_is_gone(entries: list[Entry]) -> Iterator[str]:
    """I3: the API leaves out what was never removed only until a lost catalog is published again."""
    removed: set[str] = set()
    epoch, whole_since = None, inf
    for entry in entries:
        if entry["what"] == "removed":
            removed.add(entry["name"])
        elif entry["what"] == "fault" and entry["name"] in CATALOG_LOST:
            whole_since = inf
        elif entry["what"] == "holds" and entry["complete"] and entry["epoch"] != epoch:
            epoch, whole_since = entry["epoch"], entry["at"]
        is_claim = entry["what"] == "unlisted" and entry["who"] == "api" and entry["name"] not in removed
        if is_claim and entry["asked"] > whole_since:
            yield f"what was never removed is said to be gone: {entry}"


def says_when_blind(entries: list[Entry]) -> Iterator[str]:
    """I6: before what is away is back, they say so: of Redis workers and API, of the prefix the watcher."""
    workers: set[str] = set()
    stale: set[str] = set()
    said: set[str] = set()
    struck = inf
    for entry in entries:
        what, who = entry["what"], entry["who"]
        if what == "moved" and who != "api":
            workers.add(who)
        elif what == "stale":
            stale.add(who)
        elif what == "followed_again":
            stale.discard(who)
        elif what == "fault":
            struck, said = entry["at"], set()
        elif what == "answer" and entry["status"] == _UNAVAILABLE and entry["asked"] > struck:
            said.add(entry["path"])
        elif what == "degraded" and entry["asked"] > struck:
            said.add("watcher")
        elif what == "over":
            yield from (
                f"{blind} did not say so: {entry}"
                for blind in sorted(_witnesses(entry["name"], workers) - stale - said)
            )


def _witnesses(fault: str, workers: set[str]) -> set[str]:
    if fault in REDIS_AWAY:
        return workers | {ADAPTERS, READY}
    return {"watcher"} if fault in PREFIX_AWAY else set()
