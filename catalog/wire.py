"""Values <-> what Redis holds: JSON records in the catalog, flat fields in streams and status hashes.

Fields are text, so that `redis-cli` shows them as they are: None is an empty string, a timestamp is
RFC 3339 in UTC, anything nested is JSON. Unknown fields are ignored, missing ones take their default,
so that neighbouring versions can share a catalog. `SCHEMA` changes only when that no longer holds.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar

import msgspec

from loradrop.catalog.adapter import Adapter, AdapterState, Reason, Revision, Timestamp
from loradrop.catalog.bounds import bounded_adapter, bounded_reason
from loradrop.catalog.errors import CatalogUnavailable, RecordInvalid
from loradrop.catalog.events import AdapterEvent, EventType
from loradrop.catalog.status import WorkerAdapter

SCHEMA = "1"
_MAX_DIGITS = 14
"""Of a number that Redis holds as text; the publishing scripts take more for damage, too."""

_Value = TypeVar("_Value")
_NESTED = (msgspec.inspect.DictType, msgspec.inspect.VarTupleType, msgspec.inspect.DataclassType)
_adapter_decoder = msgspec.json.Decoder(Adapter)
_worker_adapter_decoder = msgspec.json.Decoder(WorkerAdapter)


def encode_adapter(adapter: Adapter) -> str:
    """Return the JSON record of `adapter` without its seq, which the publishing script puts in front."""
    record = msgspec.to_builtins(bounded_adapter(adapter))
    del record["seq"]
    return msgspec.json.encode(record).decode()


def decode_adapter(record: str) -> Adapter:
    """Return the adapter a record describes; raises RecordInvalid."""
    return _decode(_adapter_decoder, record)


def is_published_as(adapter: Adapter, record: str) -> bool:
    """Return whether `record` is what publishing `adapter` leaves in Redis, but for seq and times."""
    try:
        return _facts(decode_adapter(record)) == _facts(bounded_adapter(adapter))
    except RecordInvalid:
        return False


def encode_worker_adapter(adapter: WorkerAdapter) -> str:
    """Return the JSON of an adapter's state on one worker."""
    reason = adapter.reason and bounded_reason(adapter.reason)
    return msgspec.json.encode(replace(adapter, reason=reason)).decode()


def decode_worker_adapter(record: str) -> WorkerAdapter:
    """Return an adapter's state on one worker; raises RecordInvalid."""
    return _decode(_worker_adapter_decoder, record)


def decode_event(fields: Mapping[str, str]) -> AdapterEvent:
    """Return the event a stream entry holds; raises RecordInvalid.

    The reason is flat in the stream (`reason`, `reason_code`), to be legible in `redis-cli`.
    """
    try:
        code = fields.get("reason_code", "")
        revision = fields["revision"]
        state = fields["state"]
        return AdapterEvent(
            epoch=fields["epoch"],
            seq=int(fields["seq"]),
            type=EventType(fields["type"]),
            name=fields["name"],
            revision=Revision(revision) if revision else None,
            state=AdapterState(state) if state else None,
            reason=Reason(code, fields.get("reason", "")) if code else None,
            at=msgspec.convert(fields["at"], Timestamp),
        )
    except (KeyError, ValueError, msgspec.ValidationError) as error:
        raise RecordInvalid(f"An entry of the event stream is not of our shape: {error!r}.") from error


def decode_place(fields: Mapping[str, str]) -> tuple[str, int]:
    """Return the epoch and seq of a stream entry that names an adapter; raises RecordInvalid.

    Followers need no more of an entry than that and its record; decoding the whole event costs far more.
    """
    if "name" not in fields:
        raise RecordInvalid("An entry of the event stream is not of our shape: it names no adapter.")
    try:
        return fields["epoch"], int(fields["seq"])
    except (KeyError, ValueError) as error:
        raise RecordInvalid(f"An entry of the event stream is not of our shape: {error!r}.") from error


def decode_seq(text: str | None) -> int:
    """Return the seq that a field of meta holds; raises CatalogUnavailable where it is lost or no number."""
    if text is None or len(text) > _MAX_DIGITS or not (text.isascii() and text.isdigit()):
        shown = text and text[:_MAX_DIGITS]
        raise CatalogUnavailable(
            f"The catalog in Redis is damaged: its seq is {shown!r}. The watcher replaces it in seconds."
        )
    return int(text)


def to_fields(value: Any) -> dict[str, str]:
    """Return the flat text fields of a status, a request or a result."""
    return {key: _to_text(item) for key, item in msgspec.to_builtins(value).items()}


def from_fields(kind: type[_Value], fields: Mapping[str, str]) -> _Value:
    """Return the value of dataclass `kind` that `fields` hold; raises RecordInvalid."""
    fields_of = _fields(kind)  # type: ignore[arg-type]  # every class is hashable; mypy doubts it
    try:
        raw = {
            key: msgspec.json.decode(text) if key in fields_of.nested else text
            for key, text in fields.items()
            if text or key in fields_of.text
        }
        return msgspec.convert(raw, kind, strict=False)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RecordInvalid(f"A {kind.__name__} in Redis is not of our shape: {error}.") from error


def _facts(adapter: Adapter) -> tuple[object, ...]:
    """Return what makes a record another one: the fields that the publishing script compares."""
    return adapter.name, adapter.prefix, adapter.path, adapter.revision, adapter.state, adapter.reason


def _to_text(item: Any) -> str:
    if item is None:
        return ""
    if isinstance(item, str):
        return item
    return msgspec.json.encode(item).decode()


@dataclass(frozen=True, slots=True)
class _Fields:
    """Which fields of a dataclass hold JSON, and which are text that may be empty without being None."""

    nested: frozenset[str]
    text: frozenset[str]


@cache
def _fields(kind: Hashable) -> _Fields:
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.DataclassType)  # only dataclasses travel as fields
    return _Fields(
        nested=frozenset(field.name for field in info.fields if _is_nested(field.type)),
        text=frozenset(
            field.name for field in info.fields if isinstance(field.type, msgspec.inspect.StrType)
        ),
    )


def _is_nested(kind: msgspec.inspect.Type) -> bool:
    if isinstance(kind, msgspec.inspect.UnionType):
        return any(_is_nested(member) for member in kind.types)
    return isinstance(kind, _NESTED)


def _decode(decoder: msgspec.json.Decoder[_Value], record: str) -> _Value:
    try:
        return decoder.decode(record)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RecordInvalid(f"A record in Redis is not of our shape: {error}.") from error
