"""Ids that several API processes of a server have: a real second process takes them."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loradrop.worker.engine.engine import Engine
from loradrop.worker.engine.handle import Handle
from loradrop.worker.engine.shared_ids import SharedIds
from loradrop.worker.outcomes import Rejected
from tests.catalog.values import revision
from tests.worker.vllm_parts import FakeClient

HANDLE = Handle.of("sql", revision("a"), Path("/store/a"), attempt=0)
OTHER = Handle.of("sql", revision("b"), Path("/store/b"), attempt=0)

OTHER_PROCESS = """
import asyncio, pathlib, sys
from loradrop.worker.engine.shared_ids import SharedIds
ids = SharedIds(pathlib.Path(sys.argv[1]))
for line in sys.stdin:
    what, lora_id = line.split()
    done = getattr(ids, what)(int(lora_id))
    if what == "take":
        asyncio.run(done)
    print(done is not False, flush=True)
"""


class _OtherProcess:
    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OTHER_PROCESS, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def does(self, what: str, handle: Handle = HANDLE) -> bool:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{what} {handle.lora_id}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline() == "True\n"


@pytest.fixture
def other(tmp_path: Path) -> Iterator[_OtherProcess]:
    other = _OtherProcess(tmp_path / "ids")
    yield other
    with other.process:
        other.process.kill()


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def engine(client: FakeClient, tmp_path: Path) -> Engine:
    return Engine(client, static_count=0, ids=SharedIds(tmp_path / "ids"))


async def test_an_id_that_another_process_has_is_not_unloaded(
    engine: Engine, client: FakeClient, other: _OtherProcess
) -> None:
    await engine.load(HANDLE)
    assert other.does("take")
    await engine.unload(HANDLE)
    assert client.removed == []
    assert other.does("give_up"), "the last one unloads it"


async def test_an_id_is_unloaded_once_no_other_process_has_it(
    engine: Engine, client: FakeClient, other: _OtherProcess
) -> None:
    assert other.does("take", OTHER)
    for leaving in ("release", "killed"):
        await engine.load(HANDLE)
        other.does("take")
        if leaving == "killed":
            other.process.kill()
            other.process.wait()
        else:
            other.does("release")
        await engine.unload(HANDLE)
        assert client.removed.count(HANDLE.lora_id) == 1
        client.removed.clear()


async def test_a_load_waits_while_another_process_loads_or_unloads_the_id(
    engine: Engine, client: FakeClient, other: _OtherProcess
) -> None:
    assert other.does("take")
    load = asyncio.create_task(engine.load(HANDLE))
    await engine.load(OTHER)
    assert set(client.loaded) == {OTHER.lora_id}, "its weights may be what a failed load left"
    other.does("share")
    await load
    assert set(client.loaded) == {OTHER.lora_id, HANDLE.lora_id}


async def test_a_load_that_failed_leaves_the_id_to_others(
    engine: Engine, client: FakeClient, other: _OtherProcess
) -> None:
    client.refusals.append(ValueError("no such module"))
    with pytest.raises(Rejected):
        await engine.load(HANDLE)
    assert client.removed == [HANDLE.lora_id]
    assert other.does("take")
    assert other.does("give_up"), "no one else has it"


async def test_the_processes_of_a_server_share_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    await SharedIds.of_server(2).take(HANDLE.lora_id)
    assert len(list(tmp_path.iterdir())) == 1


def test_one_process_alone_needs_no_file() -> None:
    assert SharedIds.of_server(1).give_up(HANDLE.lora_id)
