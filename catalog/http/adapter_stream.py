"""The list of all adapters on all workers, as JSON that is made while it is sent.

Ten thousand adapters on thirty-two workers are 70 MB. Models of them all would keep a server busy for
seconds, and its event loop with it; most of it is one answer, `listed`, for every worker of an adapter.
So each row is made of `views` and of that answer, encoded once, and the loop may turn between chunks.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping

import msgspec

from loradrop.catalog.adapter import Adapter
from loradrop.catalog.http.views import ReportedWorker, adapter_view
from loradrop.catalog.status import WorkerAdapter, WorkerState

_CHUNK_BYTES = 1 << 18
_NO_WORKERS = b'"workers":{}}'

_encode = msgspec.json.Encoder().encode


def adapter_rows(
    adapters: Iterable[Adapter], epoch: str, workers: Mapping[str, ReportedWorker]
) -> Iterator[bytes]:
    """Yield what `adapter_view` is as JSON, for each of `adapters`."""
    named = [(_encode(worker_id) + b":", worker) for worker_id, worker in workers.items()]
    for adapter in adapters:
        listed = WorkerAdapter(state=WorkerState.LISTED, revision=adapter.revision)
        encoded = _encode(listed)
        on_workers = [
            name + (encoded if state is listed else _encode(state))
            for name, worker in named
            if (state := worker.state_of(adapter, epoch, listed=listed)) is not None
        ]
        row = adapter_view(adapter, epoch, {}).model_dump_json().encode()
        assert row.endswith(_NO_WORKERS)  # the last field of the view
        yield row[:-2] + b",".join(on_workers) + b"}}"


async def listed_rows(rows: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield `rows` as one list, in OpenAI's shape, in chunks."""
    chunk, separator = bytearray(b'{"object":"list","data":['), b""
    for row in rows:
        chunk += separator + row
        separator = b","
        if len(chunk) >= _CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
            await asyncio.sleep(0)
    yield bytes(chunk + b"]}")
