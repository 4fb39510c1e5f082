"""Everything changes under load: no request fails, none is answered with other weights, nothing leaks."""

import asyncio
import fcntl
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from loradrop.catalog.store import Connection, Reports
from loradrop.worker.store.copying import digest_copy
from testkit.servers import free_port
from testkit.vllm_server import TINY_FLAGS, Server, running
from testkit.waiting import wait_until
from tests.e2e.answers.record import Record
from tests.e2e.answers.verdict import assert_all_right, judged
from tests.e2e.answers.worker_log import timed_logging
from tests.e2e.churn import Churn
from tests.e2e.prefix import Prefix
from tests.e2e.stream import Stream, stream

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]  # half a minute of it is load on a quiet machine

NAMES = [f"tenant-{number}" for number in range(6)]
STREAMS = 8
CHANGES = 200
TOKENS = 16
ANSWERS_PER_CHANGE = 2
LIMITS = ["--enable-lora", "--max-lora-rank", "8", "--max-loras", "2", "--max-cpu-loras", "2"]


class Ground:
    """A server of its own, its prefix, its Redis and its private store."""

    def __init__(self, server: Server, prefix: Prefix, directory: Path, api_url: str) -> None:
        self.server = server
        self.prefix = prefix
        self.api_url = api_url
        self.redis_url = next((directory / "state/loradrop").glob("default-*/redis.url")).read_text().strip()
        self.store = directory / "cache/loradrop"

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.server.client.base_url, timeout=60)

    def in_engine(self) -> str:
        body = self.server.client.post("/collective_rpc", json={"method": "list_loras"}).json()
        return str(body["results"][0])

    def reason(self, name: str) -> str:
        adapter = httpx.get(f"{self.api_url}/v1/lora_adapters/{name}").json()
        return str((adapter.get("reason") or {}).get("code"))


@pytest.fixture(scope="module")
def ground(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    directory = tmp_path_factory.mktemp("churn")
    prefix = Prefix(directory / "loras")
    api_port = free_port()
    command = [
        *("loradrop.worker", str(tiny_model), *TINY_FLAGS, *LIMITS, "--api-port", str(api_port)),
        *("--lora-dir-prefix", str(prefix.directory), "--lora-settle", "0.2", "--enable-log-requests"),
    ]
    logging = {"VLLM_LOGGING_CONFIG_PATH": timed_logging(directory), "VLLM_SERVER_DEV_MODE": "1"}
    with running(command, directory=directory, name="churn", **logging) as server:
        yield Ground(server, prefix, directory, f"http://127.0.0.1:{api_port}")


@asynccontextmanager
async def recorded(ground: Ground) -> Any:
    async with Connection(ground.redis_url) as connection, asyncio.TaskGroup() as tasks:
        record = Record(connection)
        recording = tasks.create_task(record.run())  # if it breaks, so does the test
        await wait_until(lambda: record.following, timeout=30, description="the catalog is followed")
        yield record
        recording.cancel()


async def keep_asking(
    client: httpx.AsyncClient, randomness: random.Random, made: list[Stream], stop: asyncio.Event
) -> None:
    while not stop.is_set():
        made.append(await stream(client, randomness.choice(NAMES), max_tokens=TOKENS))


async def churned(ground: Ground, record: Record, churn: Churn, randomness: random.Random) -> list[Stream]:
    """Make all changes under load, and return what was answered meanwhile."""
    made: list[Stream] = []
    stop = asyncio.Event()
    async with ground.client() as client, asyncio.TaskGroup() as tasks:
        for number in range(STREAMS):
            tasks.create_task(keep_asking(client, random.Random(number), made, stop))
        for number in range(1, CHANGES + 1):
            at_rest: list[str] = []

            def look(number: int = number, at_rest: list[str] = at_rest) -> bool:
                at_rest[:] = [name for name in NAMES if record.published(name) == churn.on_disk[name]]
                return bool(at_rest) and len(made) >= number * ANSWERS_PER_CHANGE

            await wait_until(look, timeout=120, description=f"change {number} can be made")
            churn.change(randomness.choice(at_rest))
        stop.set()
    return made


async def references(ground: Ground, record: Record, churn: Churn) -> dict[str, list[int]]:
    """Return what each revision answers, asked alone, under names of their own."""
    names = {f"ref-{seed}": revision for revision, seed in churn.seeds.items()}
    for name, revision in names.items():
        ground.prefix.rename_in(name, seed=churn.seeds[revision])
    await wait_until(
        lambda: all(record.published(name) == revision for name, revision in names.items()),
        timeout=120,
        description="all references are published",
    )
    async with ground.client() as client:
        answers = [await stream(client, name, max_tokens=TOKENS) for name in names]
    return {names[answer.model]: answer.tokens for answer in answers}


async def test_200_changes_under_8_streams_fail_no_request_and_leak_nothing(ground: Ground) -> None:
    randomness = random.Random(20)
    churn = Churn(ground.prefix, NAMES, randomness)
    base = ground.server.ask("tiny").tokens
    async with recorded(ground) as record:
        for name in NAMES:
            churn.change(name)
        made = await churned(ground, record, churn, randomness)
        expected = await references(ground, record, churn)
        assert len({tuple(tokens) for tokens in expected.values()}) == len(expected)

        answers, history = judged(made, expected, record, ground.server.log)
        print(f"\n{len(made)} streams, {churn.kinds}, {len(churn.seeds)} revisions")
        assert_all_right(answers, history)
        assert len(made) >= CHANGES * ANSWERS_PER_CHANGE
        assert min(churn.kinds.values()) > 0
        await wait_until(
            lambda: serves_what_is_on_disk(ground, churn, expected),
            timeout=60,
            description="each name answers from what is on disk",
        )
        assert ground.server.ask("tiny").tokens == base

        while left := churn.remove_all():
            await wait_until(
                lambda left=left: ground.server.models() == {"tiny", *left},  # type: ignore[misc]
                timeout=20,
                description=f"{len(left)} are left",
            )
    await wait_nothing_is_left(ground)


def serves_what_is_on_disk(ground: Ground, churn: Churn, expected: dict[str, list[int]]) -> bool:
    there = {name: revision for name, revision in churn.on_disk.items() if revision is not None}
    answers = {name: ground.server.ask(name, max_tokens=TOKENS) for name in there}
    return all(
        answers[name].status == httpx.codes.OK and answers[name].tokens == expected[revision]
        for name, revision in there.items()
    )


async def wait_nothing_is_left(ground: Ground) -> None:
    async with Connection(ground.redis_url) as connection:
        reports = Reports(connection)

        async def reported() -> bool:
            return not any((await reports.tables(list(await reports.workers()))).values())

        await wait_until(reported, timeout=30, description="the worker reports no adapter")
    await wait_until(lambda: ground.in_engine() == "[]", timeout=10, description="the engine has no adapter")
    assert list((ground.store / "incoming").iterdir()) == []
    for revision in (ground.store / "revisions").iterdir():
        assert digest_copy(revision) == revision.name
        assert is_unpinned(revision), revision.name


def is_unpinned(revision: Path) -> bool:
    descriptor = os.open(revision / ".pin", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


@contextmanager
def garbage_in_place_of(directory: Path) -> Iterator[None]:
    """Every adapter's files replaced, one of them by a pipe that never says anything; undone afterwards."""
    aside = directory.parent / "kept"
    directory.rename(aside)
    directory.mkdir()
    for name in NAMES[:3]:
        (directory / name).mkdir()
        (directory / name / "adapter_config.json").write_bytes(b"\x93" * 999)
        (directory / name / "adapter_model.safetensors").write_bytes(b"\x93" * 9999)
    os.mkfifo(directory / "pipe")
    (directory / NAMES[0] / "adapter_config.json").unlink()
    os.mkfifo(directory / NAMES[0] / "adapter_config.json")
    yield
    shutil.rmtree(directory)
    aside.rename(directory)


async def test_streams_go_on_while_the_prefix_is_deleted_and_replaced_by_garbage(ground: Ground) -> None:
    for number, name in enumerate(NAMES[:3]):
        ground.prefix.rename_in(name, seed=900 + number)
    await wait_until(lambda: ground.server.models() >= {*NAMES[:3]}, timeout=20, description="all are listed")
    async with ground.client() as client:
        names = ["tiny", *NAMES[:3]]
        expected = {name: (await stream(client, name, max_tokens=100)).tokens for name in names}
        made: list[Stream] = []
        stop = asyncio.Event()

        async def keep_streaming(name: str) -> None:
            while not stop.is_set():
                made.append(await stream(client, name, max_tokens=100))

        async with asyncio.TaskGroup() as tasks:
            for name in names:
                tasks.create_task(keep_streaming(name))
            with garbage_in_place_of(ground.prefix.directory):
                await client.post("/v1/refresh_lora_discovery", json={"timeout": 5})
                await wait_answers(made, len(names) * 2)
            shutil.rmtree(ground.prefix.directory)
            await wait_answers(made, len(names) * 2)
            stop.set()

    wrong = Counter(
        (each.model, each.status, each.error) for each in made if each.tokens != expected[each.model]
    )
    assert not wrong


async def wait_answers(made: list[Stream], more: int) -> None:
    before = len(made)
    await wait_until(lambda: len(made) >= before + more, timeout=300, description=f"{more} more answers")
