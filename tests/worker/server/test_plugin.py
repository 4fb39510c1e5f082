"""The endpoint plugin: idle unless asked for, and then part of the server."""

import argparse
import asyncio
import io
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from loradrop.catalog.settings import SettingsInvalid
from loradrop.catalog.store import Connection, Publisher, Reports
from loradrop.worker.server.answers import AnswerMiddleware
from loradrop.worker.server.plugin import LoradropPlugin
from loradrop.worker.settings import NAMED, add_flags
from testkit.waiting import wait_until
from tests.worker.vllm_parts import FakeClient, KVTransferConfig, serving_models


def arguments(*flags: str, **others: Any) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    values = {"api_key": None, "middleware": [], "host": "127.0.0.1", "port": 8000, "ssl_certfile": None}
    return argparse.Namespace(**(vars(parser.parse_args(list(flags))) | values | others))


def attached(args: argparse.Namespace) -> FastAPI:
    app = FastAPI()
    app.state.args = args
    LoradropPlugin().attach_router(app)
    return app


def routes(app: FastAPI) -> set[str]:
    return set(app.openapi()["paths"])


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("VLLM_PLUGINS", "VLLM_API_KEY", "LORADROP_API_KEY", "LORADROP_REDIS_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "0")


@pytest.fixture(autouse=True)
def _restored_loggers() -> Any:
    ours = logging.getLogger("loradrop")
    before = ours.handlers, ours.propagate, ours.level
    yield
    ours.handlers, ours.propagate = before[0], before[1]
    ours.setLevel(before[2])


def test_without_a_word_of_ours_nothing_is_added() -> None:
    app = attached(arguments())
    assert routes(app) == set()
    assert app.state.args.api_key is None


def test_with_a_prefix_our_routes_are_there() -> None:
    app = attached(arguments("--lora-dir-prefix", "/loras"))
    assert {"/v1/models", "/v1/refresh_lora_discovery", "/v1/lora_adapters"} <= routes(app)
    assert AnswerMiddleware in [middleware.cls for middleware in app.user_middleware]


def test_started_by_name_without_a_prefix_vllm_keeps_its_own_models() -> None:
    app = attached(arguments(**{NAMED: True}))
    assert "/v1/models" not in routes(app)
    assert "/v1/refresh_lora_discovery" in routes(app)


def test_variables_ask_for_us_as_flags_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORADROP_REDIS_URL", "redis://r")
    assert "/v1/models" in routes(attached(arguments()))


def test_a_bad_setting_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORADROP_API_PORT", "65536")
    with pytest.raises(SettingsInvalid, match="LORADROP_API_PORT"):
        attached(arguments("--lora-dir-prefix", "/loras"))


@pytest.mark.parametrize(
    ("theirs", "variable", "merged"),
    [
        (None, None, ["ours-1", "ours-2"]),
        (["theirs"], None, ["theirs", "ours-1", "ours-2"]),
        (None, "from-variable", ["from-variable", "ours-1", "ours-2"]),
        (["theirs"], "from-variable", ["theirs", "ours-1", "ours-2"]),
    ],
)
def test_our_keys_are_added_to_vllms(
    theirs: list[str] | None, variable: str | None, merged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORADROP_API_KEY", "ours-1,ours-2")
    if variable:
        monkeypatch.setenv("VLLM_API_KEY", variable)
    app = attached(arguments("--lora-dir-prefix", "/loras", api_key=theirs))
    assert app.state.args.api_key == merged


@pytest.mark.parametrize("flags", [(), ("--lora-dir-prefix", "/loras")], ids=["by name", "with a prefix"])
async def test_what_is_logged_of_the_key_file_goes_where_vllms_log_goes(
    flags: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("first\n")
    monkeypatch.setenv("LORADROP_API_KEY_FILE", str(keys))
    shown = io.StringIO()
    handler = logging.StreamHandler(shown)
    vllms = logging.getLogger("vllm")
    vllms.addHandler(handler)
    try:
        app = attached(arguments(*flags, **{NAMED: True}))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://me") as client:
            keys.write_text("first\nsecond\n")
            await client.get("/v1/lora_adapters", headers={"Authorization": "Bearer second"})
            keys.unlink()
            await client.get("/v1/lora_adapters", headers={"Authorization": "Bearer second"})
    finally:
        vllms.removeHandler(handler)
    assert shown.getvalue().splitlines() == [
        f"API keys were read again path={keys} count=2",
        f"API keys stay as they were path={keys} reason=The key file {keys} cannot be read: "
        "No such file or directory.",
    ]


async def test_a_server_without_a_catalog_starts_no_worker() -> None:
    state = SimpleNamespace()
    await LoradropPlugin().init_state(FakeClient(), state, arguments(**{NAMED: True}))
    await LoradropPlugin().init_state(None, state, arguments("--lora-dir-prefix", "/loras"))
    assert not hasattr(state, "loradrop")


async def test_a_server_without_lora_ends_with_a_sentence() -> None:
    client = FakeClient()
    models = serving_models(client)
    client.vllm_config.lora_config = None
    state = SimpleNamespace(openai_serving_models=models)
    with pytest.raises(RuntimeError, match="--enable-lora"):
        await LoradropPlugin().init_state(client, state, arguments("--lora-dir-prefix", "/loras"))


@asynccontextmanager
async def running(redis_url: str, client: FakeClient, *flags: str, **others: Any) -> AsyncIterator[Reports]:
    """Run a worker of an empty catalog in the server of `client`."""
    async with Connection(redis_url) as connection:
        publisher = Publisher(connection, owner="watcher-1")
        await publisher.lead()
        await publisher.publish([], catalog_size=0)
        state = SimpleNamespace(openai_serving_models=serving_models(client))
        args = arguments("--redis-url", redis_url, *flags, **others)
        await LoradropPlugin().init_state(client, state, args)
        (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "loradrop"]
        try:
            yield Reports(connection)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.mark.parametrize(("certificate", "scheme"), [(None, "http"), ("/tls/server.pem", "https")])
async def test_the_workers_url_is_what_its_server_speaks(
    redis_url: str, tmp_path: Path, certificate: str | None, scheme: str
) -> None:
    client = FakeClient(model=str(tmp_path))
    flags = ("--lora-cache-dir", str(tmp_path / "cache"), "--worker-id", "me:1")
    async with running(redis_url, client, *flags, ssl_certfile=certificate) as reports:

        async def is_reported() -> bool:
            return "me:1" in await reports.workers()

        await wait_until(is_reported, timeout=5, description="the worker reports")
        assert (await reports.workers())["me:1"].url == f"{scheme}://me:1"


async def test_a_kv_connector_that_may_mix_up_adapters_is_warned_of(
    redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = FakeClient(model=str(tmp_path))
    client.vllm_config.kv_transfer_config = KVTransferConfig(
        kv_connector="LMCacheConnectorV1", kv_role="kv_both"
    )
    async with running(redis_url, client, "--lora-cache-dir", str(tmp_path / "cache")):
        assert "44250 kv_connectors=LMCacheConnectorV1" in caplog.text


async def test_a_worker_runs_with_the_server_and_ends_with_it(redis_url: str, tmp_path: Path) -> None:
    from redis.asyncio import Redis

    from tests.catalog.values import an_adapter

    async with Connection(redis_url) as connection:
        publisher = Publisher(connection, owner="watcher-1")
        await publisher.lead()
        await publisher.publish([an_adapter("sql")], catalog_size=1)
        client = FakeClient(model=str(tmp_path))
        state = SimpleNamespace(openai_serving_models=serving_models(client))
        plugin = LoradropPlugin()
        flags = ("--redis-url", redis_url, "--lora-cache-dir", str(tmp_path / "cache"), "--worker-id", "me")
        await plugin.init_state(client, state, arguments(*flags))
        assert [adapter.name for adapter in state.loradrop.reconciler.listed()] == ["sql"]
        assert state.openai_serving_models.resolve_lora != type(state.openai_serving_models).resolve_lora

        (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "loradrop"]
        task.cancel()  # as the end of vLLM's event loop does
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await Reports(connection).workers() == {}
    async with Redis.from_url(redis_url) as raw:
        assert await raw.exists("loradrop:{default}:adapters"), "the catalog outlives its workers"


def test_what_is_logged_beside_vllm_is_escaped_and_vllms_own_log_is_left_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    theirs = logging.getLogger("vllm")
    theirs.addHandler(handler)
    try:
        attached(arguments("--lora-dir-prefix", "/loras"))
        for name in ("loradrop.worker.x", "vllm.x"):
            logging.getLogger(name).error("named %s", "a\nb\x1b[2J")
    finally:
        theirs.removeHandler(handler)
    assert capsys.readouterr().err.endswith("named a\\nb\\x1b[2J\nnamed a\nb\x1b[2J\n")


async def test_a_store_that_cannot_be_made_ends_the_start(redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    client = FakeClient(model=str(tmp_path))
    state = SimpleNamespace(openai_serving_models=serving_models(client))
    flags = ("--redis-url", redis_url, "--lora-cache-dir", str(tmp_path / "file"))
    with pytest.raises(OSError, match="file"):
        await LoradropPlugin().init_state(client, state, arguments(*flags))
