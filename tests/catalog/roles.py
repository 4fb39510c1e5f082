"""Everything each role does with the catalog, as its user."""

from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import httpx
from redis.asyncio import Redis

from loradrop.api.app import create_app
from loradrop.api.settings import Settings
from loradrop.catalog.http.queries import Queries
from loradrop.catalog.http.refresh_views import RefreshBody
from loradrop.catalog.status import RefreshResult, RefreshStatus, WorkerAdapter, WorkerState
from loradrop.catalog.store import Connection, Publisher, Reader, Refreshes, Reports, Withdrawal
from testkit.servers import ValkeyServer
from tests.catalog.values import GONE, NOON, a_watcher, a_worker, an_adapter

USERS = Path(__file__).parents[2] / "docker" / "users.acl"
ROLES = ("watcher", "worker", "api")


def url(server: ValkeyServer, user: str) -> str:
    """Return where `user` connects to: not the first database, since some share theirs."""
    return f"redis://{user}:pw@127.0.0.1:{server.port}/1"


def connected(server: ValkeyServer, role: str) -> Connection:
    return Connection(url(server, f"loradrop-{role}"))


async def all_a_watcher_does(server: ValkeyServer, operator: "Redis[str]") -> None:
    async with connected(server, "watcher") as connection:
        await connection.ping()
        publisher, refreshes = Publisher(connection, owner="watcher-1"), Refreshes(connection)
        await publisher.lead()
        await Reader(connection).listing()
        await publisher.publish([an_adapter("one"), an_adapter("two")], catalog_size=2)  # as a pipeline
        await publisher.publish([Withdrawal("one", GONE)], catalog_size=1)
        await publisher.complete()
        await publisher.report(a_watcher())
        await operator.hset("loradrop:{default}:meta", "seq", "0")  # Redis fell back: the catalog is replaced
        await publisher.lead()
        await refreshes.requests_after("0-0")
        await refreshes.answer(RefreshResult(id="r1", status=RefreshStatus.SCANNED, at=NOON))
        await publisher.resign()


async def all_a_worker_does(server: ValkeyServer, operator: "Redis[str]") -> None:
    async with connected(server, "worker") as connection, connected(server, "watcher") as watching_it:
        publisher, reader = Publisher(watching_it, owner="watcher-1"), Reader(connection, block_seconds=0.01)
        await connection.ping()
        await publisher.lead()
        await publisher.publish([an_adapter("good")], catalog_size=1)
        listing = await reader.listing()
        async with aclosing(reader.follow(replace(listing, complete=False))) as batches:
            await anext(batches)
            await publisher.publish([an_adapter("more")], catalog_size=2)
            await anext(batches)
        reports, loaded = Reports(connection), WorkerAdapter(state=WorkerState.LOADED)
        await reports.watcher()
        await reports.meta()
        await reports.report_worker(a_worker(), {"good": loaded}, everything=True)
        await reports.report_worker(a_worker(), {"good": None, "more": loaded})
        queries = Queries(connection)
        refresh_id = await queries.start_refresh(RefreshBody())
        await queries.finished_refresh(refresh_id, timeout_seconds=0.01)
        assert [chunk async for chunk in await queries.adapters()]
        await queries.adapter("good")
        await queries.workers()
        await reports.forget_worker("gpu-1:8000")


async def all_an_api_does(server: ValkeyServer, operator: "Redis[str]") -> None:
    async with connected(server, "watcher") as connection, connected(server, "worker") as working:
        publisher = Publisher(connection, owner="watcher-1")
        await publisher.lead()
        await publisher.publish([an_adapter("good")], catalog_size=1)
        await publisher.report(a_watcher())
        await Reports(working).report_worker(a_worker(), {})
        app = create_app(Settings(redis_url=url(server, "loradrop-api")))
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8001") as client,
        ):
            answer = await client.post("/v1/refresh_lora_discovery", json={"timeout": 0.01})
            for path in (
                f"/v1/refresh_lora_discovery/{answer.json()['refresh_id']}",
                *(
                    "/v1/lora_refreshes",
                    "/v1/lora_adapters",
                    "/v1/lora_adapters/good",
                    "/v1/lora_workers",
                    "/readyz",
                    "/metrics",
                ),
            ):
                assert (await client.get(path)).status_code == 200, path
            feed = app.state.services.feed
            start = await feed.start((await operator.xrevrange("loradrop:{default}:events"))[0][0])
            await feed.start(None)
            await publisher.publish([an_adapter("more")], catalog_size=2)
            async with aclosing(feed.stream(start)) as stream:
                assert (await anext(stream)).event == "added"
            await app.state.services.connection.ping()


WORK = {"watcher": all_a_watcher_does, "worker": all_a_worker_does, "api": all_an_api_does}
