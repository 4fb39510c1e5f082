"""The least a watcher can do: inotify, a hash, XADD. No proof, no settling, no catalog.

python -m bench.support.bare PREFIX REDIS_URL STREAM
"""

import asyncio
import sys
from pathlib import Path

import blake3
import redis.asyncio
from asyncinotify import Inotify, Mask

from loradrop.catalog.adapter import CONFIG_FILENAME, WeightsFormat

MASK = Mask.CLOSE_WRITE | Mask.MOVED_TO | Mask.MOVED_FROM | Mask.CREATE | Mask.DELETE
_WATCHED = "watched"


def watched(prefix: Path, adapters: list[str]) -> Inotify:
    """Return an inotify that watches the prefix and each adapter."""
    inotify = Inotify()
    inotify.add_watch(prefix, MASK)
    for name in adapters:
        inotify.add_watch(prefix / name, MASK)
    return inotify


async def publish(prefix: Path, url: str, stream: str) -> None:
    """Publish what is renamed into the prefix, for ever; the first entry says that it watches."""
    adapters = [directory.name for directory in prefix.iterdir()]
    async with redis.asyncio.Redis.from_url(url) as client:
        with watched(prefix, adapters) as inotify:
            await client.xadd(stream, {"name": _WATCHED})
            async for event in inotify:
                if Mask.MOVED_TO in event.mask and event.path is not None:
                    inotify.add_watch(event.path, MASK)
                    fields = {"name": event.path.name, "revision": digest(event.path)}
                    await client.xadd(stream, fields, maxlen=10_000)


def digest(adapter: Path) -> str:
    """Return the hash of an adapter's two files."""
    hasher = blake3.blake3()
    for file in (CONFIG_FILENAME, WeightsFormat.SAFETENSORS.filename):
        hasher.update((adapter / file).read_bytes())
    return hasher.hexdigest()


if __name__ == "__main__":
    asyncio.run(publish(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
