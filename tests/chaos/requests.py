"""Requests for adapters that must always be answered."""

import asyncio
import random

from tests.chaos.record import Record
from tests.faults.followers import Follower

_PAUSE_SECONDS = 0.05


async def request(followers: list[Follower], names: list[str], record: Record, *, seed: int) -> None:
    """Ask any worker for any of `names`, all of which it has served before, again and again."""
    dice = random.Random(f"requests {seed}")
    while True:
        follower, name = dice.choice(followers), dice.choice(names)
        try:
            handle = await follower.reconciler.resolve(name)
        except Exception as error:  # noqa: BLE001 - whatever it is, there was no answer
            record.note(follower.id, "refused", name=name, why=repr(error))
        else:
            record.note(follower.id, "answered", name=name, revision=handle.revision)
        await asyncio.sleep(_PAUSE_SECONDS)  # the pace of the requests
