"""How large values may be in Redis: what a file or a request says must not fill it.

A text is cut where it is too long, and a list where it has too many names; what was left out is counted.
Sizes are those of the JSON, in which a character takes up to six bytes. Names and paths are not cut:
filesystems bound them, and they must stay what they are. A record stays under 16 KiB.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from loradrop.catalog.adapter import Adapter, Reason
from loradrop.catalog.status import RefreshResult

MAX_NAMES_BYTES = 16 * 1024
"""Of the names in one refresh request: about a thousand adapters."""

MAX_LABEL_BYTES = 256

_MAX_MESSAGE_BYTES = 2 * 1024
_MAX_BASE_MODEL_BYTES = 256
_MAX_LIST_BYTES = 64 * 1024
"""Of each list in the result of a refresh: some thousand names, or some hundred with reasons."""

_MOST_BYTES_A_CHARACTER = 6

_LISTS = ("discovered", "updated", "removed")


def bounded_adapter(adapter: Adapter) -> Adapter:
    """Return `adapter` as it may be published."""
    base_model = adapter.base_model and shortened(adapter.base_model, _MAX_BASE_MODEL_BYTES)
    reason = adapter.reason and bounded_reason(adapter.reason)
    if base_model is adapter.base_model and reason is adapter.reason:
        return adapter
    return replace(adapter, base_model=base_model, reason=reason)


def bounded_reason(reason: Reason) -> Reason:
    """Return `reason` with a message of at most 2 KiB."""
    message = shortened(reason.message, _MAX_MESSAGE_BYTES)
    return reason if message is reason.message else replace(reason, message=message)


def bounded_result(result: RefreshResult) -> RefreshResult:
    """Return `result` as it may be kept; `omitted` counts the names that each list lost."""
    kept: dict[str, Any] = {name: _first(getattr(result, name)) for name in _LISTS}
    kept["rejected"] = _first_reasons(result.rejected)
    omitted = {name: len(getattr(result, name)) - len(names) for name, names in kept.items()}
    error = result.error and bounded_reason(result.error)
    return replace(result, error=error, omitted={name: n for name, n in omitted.items() if n}, **kept)


def shortened(text: str, max_bytes: int) -> str:
    """Return `text`, cut so that its JSON has at most `max_bytes` bytes between the quotes."""
    if len(text) * _MOST_BYTES_A_CHARACTER <= max_bytes:
        return text
    kept = text[:max_bytes]
    if kept == text and _json_bytes(text) <= max_bytes:
        return text
    while _json_bytes(f"{kept}…") > max_bytes:
        kept = kept[: len(kept) * 15 // 16]
    return f"{kept}…"


def names_bytes(names: Iterable[str]) -> int:
    """Return the size of `names` as JSON."""
    return sum(_json_bytes(name) + len('"",') for name in names)


def _first(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return as many of `names`, from the first, as a list may hold."""
    left = _MAX_LIST_BYTES
    for number, name in enumerate(names):
        left -= names_bytes([name])
        if left < 0:
            return names[:number]
    return names


def _first_reasons(rejected: Mapping[str, Reason]) -> dict[str, Reason]:
    left, kept = _MAX_LIST_BYTES, {}
    for name, reason in sorted(rejected.items()):
        bounded = bounded_reason(reason)
        left -= names_bytes([name, bounded.code, bounded.message]) + len('{"code":"message":}')
        if left < 0:
            break
        kept[name] = bounded
    return kept


def _json_bytes(text: str) -> int:
    return len(msgspec.json.encode(text)) - len('""')
