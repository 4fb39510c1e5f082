"""Streams of tokens from a server, with the moments that decide which revision was to answer."""

import json
import time
import uuid
from dataclasses import dataclass, field

import httpx

from testkit.vllm_server import PROMPT


@dataclass
class Stream:
    """One greedy completion, streamed. Times are `time.time()`, the clock of the watcher's events.

    `sent` is when it was asked for, `first` when its first token came: it had started by then. vLLM logs it
    under `request_id`.
    """

    model: str
    sent: float
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    first: float = 0.0
    done: float = 0.0
    status: int = 0
    error: str = ""
    tokens: list[int] = field(default_factory=list)
    longest_gap_seconds: float = 0.0

    @property
    def started(self) -> float:
        """The latest moment at which it can have started."""
        return self.first or self.done


async def stream(client: httpx.AsyncClient, model: str, *, max_tokens: int, prompt: str = PROMPT) -> Stream:
    """Ask `model` and read the whole stream; what goes wrong is in the result."""
    body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "min_tokens": max_tokens}
    body |= {"temperature": 0, "stream": True, "return_token_ids": True}
    made = Stream(model, time.time())
    try:
        headers = {"X-Request-Id": made.request_id}
        async with client.stream("POST", "/v1/completions", json=body, headers=headers) as response:
            made.status = response.status_code
            if response.status_code != httpx.codes.OK:
                made.error = (await response.aread()).decode()
            async for line in response.aiter_lines():
                _take(made, line)
    except httpx.HTTPError as error:
        made.error = repr(error)
    made.done = time.time()
    return made


def _take(made: Stream, line: str) -> None:
    data = line.removeprefix("data: ")
    if data in {line, "[DONE]"}:
        return
    event = json.loads(data)
    if "error" in event:
        made.error = data
        return
    now = time.time()
    if made.tokens:
        made.longest_gap_seconds = max(made.longest_gap_seconds, now - made.done)
    made.first = made.first or now
    made.done = now
    for choice in event["choices"]:
        made.tokens += choice.get("token_ids") or []
