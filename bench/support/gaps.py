"""The gaps between a running stream's tokens, told apart by what went on meanwhile."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

PROMPT = "hello world, the quick brown fox"
_MAX_TOKENS = 1500


class Gaps:
    """Reads one endless stream. `seconds` are the gaps, by phase; a gap counts for the phase it ends in.

    `longest` are, by phase, the longest of each time it was gone through.
    """

    def __init__(self, client: httpx.AsyncClient, model: str) -> None:
        """Ask `model` over `client`, again and again."""
        self._client = client
        self._model = model
        self._phase = ""
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.longest: dict[str, list[float]] = defaultdict(list)
        self._tokens = asyncio.Condition()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Gaps"]:
        """Stream for the length of the block."""
        task = asyncio.create_task(self._stream())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait([task])

    @asynccontextmanager
    async def during(self, phase: str) -> AsyncIterator[None]:
        """Count the gaps of the block, and of the two tokens after it, for `phase`."""
        await self._next_tokens(2)
        self._phase = phase
        known = len(self.seconds[phase])
        yield
        await self._next_tokens(2)
        self._phase = ""
        self.longest[phase].append(max(self.seconds[phase][known:]))

    async def quiet(self, tokens: int, phase: str = "quiet") -> None:
        """Count `tokens` gaps of nothing being done by us."""
        async with self.during(phase):
            await self._next_tokens(tokens)

    async def _next_tokens(self, count: int) -> None:
        async with self._tokens:
            for _ in range(count):
                await self._tokens.wait()

    async def _stream(self) -> None:
        body = {"model": self._model, "prompt": PROMPT, "max_tokens": _MAX_TOKENS, "min_tokens": _MAX_TOKENS}
        while True:
            async with self._client.stream(
                "POST", "/v1/completions", json=body | {"stream": True}
            ) as response:
                before: float | None = None
                async for line in response.aiter_lines():
                    if not line.startswith("data: {"):
                        continue
                    now = time.perf_counter()
                    if before is not None and self._phase:
                        self.seconds[self._phase].append(now - before)
                    before = now
                    async with self._tokens:
                        self._tokens.notify_all()
