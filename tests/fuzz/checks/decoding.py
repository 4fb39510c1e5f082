"""Targets: what comes out of Redis, a key file, a body and a command line. None of it can be trusted."""

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pydantic

from loradrop.catalog.errors import CatalogRefused, KeysInvalid, RecordInvalid
from loradrop.catalog.events import EventType, RefreshRequest
from loradrop.catalog.http.api_keys import KeyFile, KeyRing, Scope
from loradrop.catalog.http.refresh_views import RefreshBody
from loradrop.catalog.status import RefreshResult, RefreshStatus, WatcherStatus, WorkerState, WorkerStatus
from loradrop.catalog.status import WorkerAdapter as OnWorker
from loradrop.catalog.store import Connection
from loradrop.catalog.store.address import without_password
from loradrop.catalog.wire import (
    decode_adapter,
    decode_event,
    decode_place,
    decode_worker_adapter,
    encode_adapter,
    encode_worker_adapter,
    from_fields,
    to_fields,
)
from tests.catalog.values import NOON, TRUNCATED, a_watcher, a_worker, an_adapter, revision
from tests.fuzz.checks.scratch import emptied
from tests.fuzz.target import Disagreement, Target

_KINDS: tuple[type[Any], ...] = (RefreshRequest, RefreshResult, WatcherStatus, WorkerStatus)
_JSON = (b'"', b"null", b"true", b"{", b"}", b"[", b"]", b":", b",", b"\\ud800", b"1e400", b"-0", b"NaN")
_LINE = b"\n"
_TELLING = 6
"""Characters of a password that no word of an error's message has by chance."""
_MARK = b"\xef\xbb\xbf"


def check_record(data: bytes) -> None:
    """A record of the catalog is refused, or is the same however often it is written again."""
    with suppress(RecordInvalid):
        written = encode_adapter(decode_adapter(_text(data)))
        _same(encode_adapter(decode_adapter(written)), written)


def check_worker_record(data: bytes) -> None:
    """So is a record of what a worker has made of an adapter."""
    with suppress(RecordInvalid):
        written = encode_worker_adapter(decode_worker_adapter(_text(data)))
        _same(encode_worker_adapter(decode_worker_adapter(written)), written)


def check_entry(data: bytes) -> None:
    """An entry of the event stream is refused, or both ways of reading it see the same place."""
    fields = _fields(data)
    with suppress(RecordInvalid):
        event = decode_event(fields)
        _same(decode_place(fields), (event.epoch, event.seq))


def check_fields(data: bytes) -> None:
    """Flat fields are refused, or are the same value after they were written again."""
    kind = _KINDS[data[0] % len(_KINDS) if data else 0]
    with suppress(RecordInvalid):
        value = from_fields(kind, _fields(data[1:]))
        _same(from_fields(kind, to_fields(value)), value)


def check_key_file(data: bytes) -> None:
    """A key file is refused, or each of its keys opens."""
    path = emptied("keys") / "keys"
    path.write_bytes(data)
    try:
        ring = KeyRing((), file=KeyFile(path))
    except KeysInvalid:
        return
    keys = ring.keys
    for key in keys[:10]:
        admitted = ring.admit(b"Bearer " + key.secret.encode(), needed=Scope.READ)
        _same(admitted.secret, key.secret)
    if data.count(_MARK) == 1 and keys[0].secret.startswith(_MARK.decode()):
        raise Disagreement("a byte order mark is taken for a part of a key, which then opens nothing")


def check_refresh_body(data: bytes) -> None:
    """A refresh's body is refused, or its request travels through Redis as it is."""
    with suppress(pydantic.ValidationError, ValueError, RecursionError):  # the web framework's answer: 422
        body = RefreshBody.model_validate(json.loads(data))
        request = RefreshRequest(
            id="0" * 16,
            at=NOON,
            names=tuple(body.names),
            dry_run=body.dry_run,
            confirm_removals=body.confirm_removals,
            timeout_seconds=body.timeout,
        )
        _travel(request)


def check_redis_url(data: bytes) -> None:
    """A Redis URL is refused, or makes a client; its password is shown in neither case."""
    url = _text(data)
    shown = without_password(url)
    try:
        Connection(url)
    except CatalogRefused as error:
        shown += error.message
    secret = _password(url)
    if len(secret) >= _TELLING and url.count(secret) == 1 and secret in shown:
        raise Disagreement(f"the password {secret!r} of {url!r} is shown: {shown!r}")


def _travel(request: RefreshRequest) -> None:
    try:
        fields = to_fields(request)
        for text in fields.values():
            text.encode()  # as redis-py does
    except ValueError as error:
        raise Disagreement(f"accepted, and cannot be written: {error!r}") from error
    _same(from_fields(RefreshRequest, fields), request)


def _password(url: str) -> str:
    try:
        return urlsplit(url).password or ""
    except ValueError:
        return ""


def _text(data: bytes) -> str:
    return data.decode(errors="replace")  # as our clients read it


def _fields(data: bytes) -> dict[str, str]:
    """Return the fields that lines of `key value` describe."""
    pairs = (_text(line).partition(" ") for line in data.split(_LINE))
    return {key: value for key, _, value in pairs}


def _same(one: object, other: object) -> None:
    if one != other:
        raise Disagreement(f"{one!r} is not {other!r}")


def _lines(fields: dict[str, str]) -> bytes:
    return _LINE.join(f"{key} {value}".encode() for key, value in fields.items())


def _record_seeds() -> list[bytes]:
    adapters = [an_adapter(), an_adapter(revision=None, reason=TRUNCATED, format=None)]
    return [encode_adapter(adapter).encode() for adapter in adapters]


def _worker_record_seeds() -> list[bytes]:
    adapters = [OnWorker(state=WorkerState.LISTED), OnWorker(state=WorkerState.FAILED, reason=TRUNCATED)]
    return [encode_worker_adapter(adapter).encode() for adapter in adapters]


def _entry_seeds() -> list[bytes]:
    fields = {"epoch": "e", "seq": "7", "type": "added", "name": "sql", "revision": revision("a")}
    fields |= {"state": "ready", "reason": "", "reason_code": "", "at": "2026-11-23T12:00:00Z"}
    return [_lines(fields), _lines(fields | {"type": "deleted", "reason_code": "removed", "reason": "gone"})]


def _field_seeds() -> list[bytes]:
    values = (
        RefreshRequest(id="r", at=NOON, names=("a", "b")),
        RefreshResult(id="r", status=RefreshStatus.SCANNED, at=NOON, rejected={"a": TRUNCATED}),
        a_watcher(degraded=TRUNCATED),
        a_worker(last_heartbeat=NOON, counts={"loaded": 3}),
    )
    return [bytes([number]) + _lines(to_fields(value)) for number, value in enumerate(values)]


def _texts(*texts: bytes) -> Callable[[], list[bytes]]:
    return lambda: list(texts)


def _words(words: Iterable[str]) -> tuple[bytes, ...]:
    return tuple(word.encode() for word in words)


TARGETS = (
    Target("record", check_record, _record_seeds, _JSON + _words(an_adapter().__dataclass_fields__)),
    Target("worker_record", check_worker_record, _worker_record_seeds, _JSON + _words(WorkerState)),
    Target(
        "entry", check_entry, _entry_seeds, (_LINE, b" ", *_words(EventType), b"1" * 20, b"-1", b"+00:00")
    ),
    Target("fields", check_fields, _field_seeds, (_LINE, b" ", *_JSON, *_words(RefreshStatus))),
    Target(
        "key_file",
        check_key_file,
        _texts(b"secret admin ops\n# comment\n\nother read\r\n", b"key read x\n", b"k\x00\n"),
        (b"admin", b"read", b"#", _MARK, b"\x85", b"\xe2\x80\xa8", b"\x1c", b","),
    ),
    Target(
        "refresh_body",
        check_refresh_body,
        _texts(b'{"names": ["sql"], "dry_run": true, "timeout": 5}', b"{}", b'{"confirm_removals": false}'),
        (*_JSON, b'"names"', b'"dry_run"', b'"confirm_removals"', b'"timeout"', b"600", b"1e-300"),
    ),
    Target(
        "redis_url",
        check_redis_url,
        _texts(
            b"redis://user:canary7@localhost:6379/0?socket_timeout=3",
            b"rediss://:canary7@[::1]:6380/1?ssl_ca_certs=ca.pem",
            b"redis+sentinel://u:canary7@a:26379,b:26379/main/0?sentinel_password=p",
            b"rediss+cluster://u:canary7@a:1,b:2",
            b"unix://u:canary7@/tmp/redis.sock?db=1",
        ),
        (
            b"://",
            b"@",
            b"?",
            b"&",
            b"%40",
            b"%",
            b"[",
            b"]",
            b"+sentinel",
            b"+cluster",
            b"password=",
            b"db=",
            b"#",
        ),
    ),
)
