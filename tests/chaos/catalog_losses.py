"""What Redis can lose or garble of a catalog. Each but the lost events is mended by a new epoch."""

import random
from collections.abc import Awaitable, Callable
from typing import Final

from redis.asyncio import Redis

from loradrop.catalog.redis_keys import Keys

_KEYS = Keys()
_SOME = 3

Loss = Callable[["Redis[str]", random.Random], Awaitable[object]]


async def records(raw: "Redis[str]", _dice: random.Random) -> None:
    await raw.delete(_KEYS.adapters)


async def some_records(raw: "Redis[str]", dice: random.Random) -> None:
    await raw.hdel(_KEYS.adapters, *await _some_names(raw, dice))


async def garbled_records(raw: "Redis[str]", dice: random.Random) -> None:
    await raw.hset(_KEYS.adapters, mapping=dict.fromkeys(await _some_names(raw, dice), "{"))


async def records_of_another_type(raw: "Redis[str]", _dice: random.Random) -> None:
    async with raw.pipeline(transaction=True) as pipeline:
        await pipeline.delete(_KEYS.adapters).set(_KEYS.adapters, "text").execute()


async def meta(raw: "Redis[str]", _dice: random.Random) -> None:
    await raw.delete(_KEYS.meta)


async def seq(raw: "Redis[str]", dice: random.Random) -> None:
    if dice.random() < 0.5:
        await raw.hdel(_KEYS.meta, "seq")
    else:
        await raw.hset(_KEYS.meta, "seq", "many")


async def events(raw: "Redis[str]", _dice: random.Random) -> None:
    await raw.delete(_KEYS.events)


async def _some_names(raw: "Redis[str]", dice: random.Random) -> list[str]:
    return dice.sample(sorted(await raw.hkeys(_KEYS.adapters)), _SOME)


EVENTS_LOST: Final = "events_lost"
LOSSES: Final[dict[str, Loss]] = {
    "records_lost": records,
    "some_records_lost": some_records,
    "records_garbled": garbled_records,
    "records_of_another_type": records_of_another_type,
    "meta_lost": meta,
    "seq_lost": seq,
    EVENTS_LOST: events,
}
