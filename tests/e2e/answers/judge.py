"""Which answers were right, given what the catalog held, what the worker pointed names to, and when. Pure.

The contract: the old revision answers until the new one is loaded, and from then on the new one. Three rules
follow from it:

1. An answer comes from the revision that its request was admitted with, and its name pointed to that one
   then: vLLM logs an admission in the very step in which it has looked the name up. Where its log does not
   say, it was at some moment between the request's sending and its first token.
2. A name points to what the catalog held, in the catalog's order: each time to what was published by then,
   and never to something older than before. A rollback is published anew, so it is not older.
3. A request is told that a name does not exist only where the worker may not have known it at some moment
   between sending and answer.

Not judged: how soon the new revision is loaded. What the catalog holds is no evidence by itself: the worker
hears of it at another moment than the judge, and loads it later still. An example, of one name:

    catalog:   A ----> B --> A ------------------->
    pointed:   A ----------------> B ------> A ---->
    request:                    <1>   <2>       <3>

B was rolled back in the catalog before the worker had loaded it. 1 may be answered from A or B; 2 from B
alone, although the catalog has A; and 3 from A alone.

A revision is known by the first digits of its digest. Times are seconds since the epoch, of one host.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus


@dataclass(frozen=True, slots=True)
class Offer:
    """What the catalog holds of a name (None: nothing) from `at` on."""

    at: float
    seq: int
    revision: str | None


@dataclass(frozen=True, slots=True)
class Pointing:
    """What the worker points a name to (None: nothing) from `at` on, by its own account.

    `for_room`: to nothing, since another adapter needs the place, and not since the catalog says so.
    """

    at: float
    revision: str | None
    for_room: bool = False


@dataclass(frozen=True, slots=True)
class Applied:
    """At `at` the worker had applied the catalog's changes up to `seq`, if not more."""

    at: float
    seq: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request for `name` came to.

    `sent` is when it was sent, `started` when its first token came (or its refusal). `revision` is the one
    whose text the answer is; None where it is that of no revision there ever was. `admitted` is when vLLM
    took the request, and with which revision, where it says so.
    """

    name: str
    sent: float
    started: float
    status: int = HTTPStatus.OK
    error: str = ""
    revision: str | None = None
    admitted: Pointing | None = None

    @property
    def looked_up(self) -> tuple[float, float]:
        """Between which moments vLLM looked the name up for the last time."""
        if self.admitted is not None:
            return self.admitted.at, self.admitted.at
        return self.sent, self.started


@dataclass(frozen=True, slots=True)
class History:
    """What happened, each sequence in the order of time."""

    offers: Mapping[str, Sequence[Offer]]
    pointings: Mapping[str, Sequence[Pointing]]
    applied: Sequence[Applied] = ()

    def pointed_to(self, name: str, start: float, end: float) -> set[str | None]:
        """Return what `name` pointed to at some moment from `start` to `end`; None: to nothing."""
        found = set()
        before: str | None = None
        for pointing in self.pointings.get(name, ()):
            if pointing.at > end:
                break
            if pointing.at > start:
                found.add(before)
            before = pointing.revision
        return found | {before}

    def was_known(self, name: str, start: float, end: float) -> bool:
        """Return whether the worker surely knew `name` at every moment from `start` to `end`."""
        since: Offer | None = None
        for offer in self.offers.get(name, ()):
            if offer.revision is None:
                if start <= offer.at <= end:
                    return False
                since = None if offer.at < start else since
            elif offer.at <= start:
                since = since or offer
        return since is not None and any(
            applied.at <= start and applied.seq >= since.seq for applied in self.applied
        )


def fault(answer: Answer, history: History) -> str | None:
    """Return what is wrong with `answer`, or None."""
    if answer.status == HTTPStatus.NOT_FOUND:
        known = history.was_known(answer.name, answer.sent, answer.started)
        return "refused a name that was known" if known else None
    if answer.status != HTTPStatus.OK or answer.error:
        return "failed"
    if answer.revision is None:
        return "matches no revision that ever was"
    if answer.admitted is not None and answer.admitted.revision != answer.revision:
        return "matches another revision than it was admitted with"
    if answer.revision not in history.pointed_to(answer.name, *answer.looked_up):
        return "matches a revision that its name did not point to"
    return None


def strays(history: History) -> Iterator[str]:
    """Yield each time that a name was pointed to what the catalog did not hold, or no longer."""
    for name, pointings in history.pointings.items():
        offers = history.offers.get(name, ())
        position = 0
        for pointing in (pointing for pointing in pointings if not pointing.for_room):
            # The first that fits leaves most choice to what follows.
            fits = (
                number
                for number, offer in enumerate(offers[position:], start=position)
                if offer.revision == pointing.revision and offer.at <= pointing.at
            )
            found = next(fits, None)
            if found is None:
                held = [f"{offer.at - pointing.at:+.3f} {offer.revision}" for offer in offers[position:]]
                yield f"{name} points to {pointing.revision} at {pointing.at:.3f}, the catalog: {held[:5]}"
            else:
                position = found


def evidence(answer: Answer, history: History) -> str:
    """Return all that is known of `answer` and its name around it, in seconds since it was sent."""
    lines = [
        f"{answer.name}: sent 0, started {answer.started - answer.sent:+.3f}, status {answer.status}, "
        f"answered from {answer.revision}, {answer.error[:300]}"
    ]
    if answer.admitted is not None:
        lines.append(f"  {_moment(answer, answer.admitted)} admitted with {answer.admitted.revision}")
    events = [(o.at, f"catalog seq {o.seq}: {o.revision}") for o in history.offers.get(answer.name, ())]
    events += [(p.at, f"worker: {p.revision}") for p in history.pointings.get(answer.name, ())]
    around = [(at, text) for at, text in sorted(events) if at <= answer.started + 1]
    lines += [f"  {at - answer.sent:+.3f} {text}" for at, text in around[-12:]]
    known = [applied for applied in history.applied if applied.at <= answer.started]
    lines += [f"  {_moment(answer, applied)} worker has applied seq {applied.seq}" for applied in known[-3:]]
    return "\n".join(lines)


def _moment(answer: Answer, event: Pointing | Applied) -> str:
    return f"{event.at - answer.sent:+.3f}"
