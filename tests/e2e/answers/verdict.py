"""From streams of tokens to a verdict on them, which tells all that is known of the first that are wrong."""

from collections import Counter
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from tests.e2e.answers.judge import Answer, History, evidence, fault, strays
from tests.e2e.answers.record import Record
from tests.e2e.answers.worker_log import admissions, pointings
from tests.e2e.stream import Stream

_TOLD = 5


def judged(
    made: Sequence[Stream], references: Mapping[str, Sequence[int]], record: Record, log: str
) -> tuple[list[Answer], History]:
    """Return what was answered, and the history that it is judged by.

    `references` are the tokens that each revision answers with; `log` is the server's.
    """
    revisions = {tuple(tokens): revision for revision, tokens in references.items()}
    admitted = admissions(log)
    answers = [
        Answer(
            name=each.model,
            sent=each.sent,
            started=each.started,
            status=each.status,
            error=each.error,
            revision=revisions.get(tuple(each.tokens)),
            admitted=admitted.get(each.request_id),
        )
        for each in made
    ]
    return answers, History(record.offers, pointings(log), record.applied)


def assert_all_right(answers: Sequence[Answer], history: History) -> None:
    """Fail with the evidence unless every answer is right, and vLLM's log tells of each."""
    wrong = [(found, answer) for answer in answers if (found := fault(answer, history))]
    told = "\n".join(f"{found}: {evidence(answer, history)}" for found, answer in wrong[:_TOLD])
    assert not wrong, f"{Counter(found for found, _ in wrong)}\n{told}"
    assert not (astray := list(strays(history))), "\n".join(astray)
    assert all(answer.admitted for answer in answers if answer.status == HTTPStatus.OK)
