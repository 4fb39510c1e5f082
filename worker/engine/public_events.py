"""Public names instead of the engine's own (`handle.inner_name`) in KV cache events.

Routers read them, match adapters by `lora_name` and key blocks by it and by `extra_keys`. They come from the
engine's process, through one publisher.
"""

import functools
from typing import Any

from vllm.distributed import kv_events

from loradrop.worker.engine.handle import public_name, without_inner_names

_MARK = "_loradrop"


def publish_public_names() -> None:
    """Publish public names in the KV events of this process's engine; idempotent."""
    factory = kv_events.EventPublisherFactory
    if not hasattr(factory.create, _MARK):
        factory.create = classmethod(_making_publishers(factory.create))


def _making_publishers(create: Any) -> Any:
    @functools.wraps(create)
    def making(_factory: Any, *values: Any, **named: Any) -> Any:
        publisher = create(*values, **named)
        publish = publisher.publish

        def publish_publicly(batch: Any) -> None:
            for event in batch.events:
                _make_public(event)
            publish(batch)

        publisher.publish = publish_publicly
        return publisher

    setattr(making, _MARK, True)
    return making


def _make_public(event: Any) -> None:
    """Put the public name where `event`, if it is about stored blocks, has the engine's."""
    name = getattr(event, "lora_name", None)
    if not name:
        return
    event.lora_name = public_name(name)
    if event.extra_keys:
        event.extra_keys = [keys and tuple(map(_public_key, keys)) for keys in event.extra_keys]


def _public_key(key: Any) -> Any:
    if isinstance(key, str):
        return without_inner_names(key)
    return tuple(map(_public_key, key)) if isinstance(key, tuple) else key
