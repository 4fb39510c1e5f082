"""What makes a record in Redis the one that was published, and what workers say is bounded as well."""

from dataclasses import replace
from typing import Any

import pytest

from loradrop.catalog.adapter import AdapterState, Reason
from loradrop.catalog.status import WorkerAdapter, WorkerState
from loradrop.catalog.wire import (
    decode_worker_adapter,
    encode_adapter,
    encode_worker_adapter,
    is_published_as,
)
from tests.catalog.values import NOON, TRUNCATED, an_adapter, revision

LONG = Reason("weights_truncated", "m" * 10_000)


def test_a_record_is_the_published_one_whatever_its_times() -> None:
    later = NOON.replace(year=2027)
    record = encode_adapter(an_adapter(updated_at=later, discovered_at=later, reason=LONG))
    assert is_published_as(an_adapter(reason=LONG), record)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"prefix": "/mnt/loras"},
        {"path": "elsewhere"},
        {"revision": revision("b")},
        {"state": AdapterState.SETTLING},
        {"reason": TRUNCATED},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_record_that_says_something_else_is_not(changes: dict[str, Any]) -> None:
    assert not is_published_as(an_adapter(), encode_adapter(an_adapter(**changes)))


@pytest.mark.parametrize("record", ["", "{", "{}", "[]"])
def test_what_is_no_record_was_not_published(record: str) -> None:
    assert not is_published_as(an_adapter(), record)


def test_the_reason_a_worker_gives_is_shortened() -> None:
    adapter = WorkerAdapter(state=WorkerState.REJECTED, reason=LONG)
    record = encode_worker_adapter(adapter)
    assert len(record) < 4_000
    found = decode_worker_adapter(record)
    assert found.reason is not None
    assert found.reason.message.endswith("…")
    assert replace(found, reason=None) == replace(adapter, reason=None)
