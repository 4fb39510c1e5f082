"""Several embedded stacks on one machine: each has its prefix, its catalog and its ports."""

import dataclasses
import socket
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from loradrop.worker.fleet.embedded import (
    StackOptions,
    embedded_stack,
)
from loradrop.worker.fleet.state_directory import StateDirectory
from loradrop.worker.settings import WorkerSettings
from testkit.adapters import write_adapter
from testkit.waiting import wait_until

pytestmark = pytest.mark.faults


async def until_api_lists(settings: WorkerSettings, *names: str) -> None:
    """Wait until the API that belongs to the prefix lists exactly these adapters."""
    async with httpx.AsyncClient() as client:

        async def lists() -> bool:
            try:
                answer = await client.get(f"{StateDirectory(settings).url_of('api')}/v1/lora_adapters")
            except httpx.TransportError:
                return False
            return answer.is_success and [each["id"] for each in answer.json()["data"]] == list(names)

        await wait_until(lists, timeout=30, description=f"the API lists {names}")


def on_another_prefix(settings: WorkerSettings, directory: Path) -> WorkerSettings:
    directory.mkdir()
    return dataclasses.replace(settings, lora_dir_prefix=directory)


async def test_two_servers_on_two_prefixes_with_the_same_defaults_keep_them_apart(
    settings: WorkerSettings, options: StackOptions, tmp_path: Path
) -> None:
    other = on_another_prefix(settings, tmp_path / "others")
    write_adapter(tmp_path / "loras" / "sql")
    write_adapter(tmp_path / "others" / "poet")
    defaults = dataclasses.replace(options, default_api_port=settings.api_port)
    async with embedded_stack(settings, defaults) as one, embedded_stack(other, defaults) as two:
        assert one != two
        await until_api_lists(settings, "sql")
        await until_api_lists(other, "poet")


async def test_a_server_on_another_prefix_neither_shows_nor_removes_what_the_first_one_published(
    settings: WorkerSettings, options: StackOptions, idle: StackOptions, tmp_path: Path
) -> None:
    other = on_another_prefix(settings, tmp_path / "others")
    write_adapter(tmp_path / "loras" / "sql")
    async with embedded_stack(settings, options):
        await until_api_lists(settings, "sql")
    write_adapter(tmp_path / "others" / "poet")
    async with embedded_stack(other, options):
        await until_api_lists(other, "poet")
    async with embedded_stack(settings, idle) as url, Redis.from_url(url, decode_responses=True) as raw:
        assert await raw.hkeys("loradrop:{default}:adapters") == ["sql"]


async def test_an_api_port_that_an_operator_chose_is_kept_though_it_is_taken(
    settings: WorkerSettings, idle: StackOptions
) -> None:
    with socket.create_server(("127.0.0.1", settings.api_port)):
        async with embedded_stack(settings, idle):
            assert StateDirectory(settings).url_of("api") == f"http://127.0.0.1:{settings.api_port}"
        defaults = dataclasses.replace(idle, default_api_port=settings.api_port)
        async with embedded_stack(settings, defaults):
            assert StateDirectory(settings).url_of("api") != f"http://127.0.0.1:{settings.api_port}"
