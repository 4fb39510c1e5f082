"""A client of the API: what it is told, again and again, goes into the record."""

import asyncio
import random
from collections.abc import Mapping
from typing import Any, Self

import httpx
import msgspec

from loradrop.catalog.adapter import Revision
from loradrop.catalog.http.auth import REFRESH_PATH
from loradrop.catalog.status import RefreshStatus
from testkit.waiting import wait_until
from tests.chaos.processes import Api
from tests.chaos.record import Record

HEALTH, READY, ADAPTERS = "/healthz", "/readyz", "/v1/lora_adapters"

_PAUSE_SECONDS = 0.3
_LONGEST_PAUSE_SECONDS = 4.0
_REFRESH_SECONDS = 1.5
_PATIENCE_SECONDS = 60.0


class _Row(msgspec.Struct):
    id: str
    revision: Revision | None


class _Rows(msgspec.Struct):
    data: list[_Row]


class ApiClient:
    """Asks one API. Of a list the record gets what differs from the one before."""

    def __init__(self, api: Api, record: Record, *, seed: int) -> None:
        self._api, self._record = api, record
        self._dice = random.Random(f"refreshes {seed}")
        # No connection is kept, since the API closes one that is idle, maybe in the moment it is used again.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._http = httpx.AsyncClient(timeout=_PATIENCE_SECONDS, limits=limits)
        self._listed: Mapping[str, Revision] = {}
        self._position: tuple[str, int] | None = None
        self._refused: dict[str, float] = {ADAPTERS: -1.0, READY: -1.0}
        self._degraded = -1.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._http.aclose()

    async def run(self) -> None:
        """Ask for everything, for ever."""
        async with asyncio.TaskGroup() as tasks:
            for asking in (self._go_on_listing(), self._go_on_probing(), self._go_on_refreshing()):
                tasks.create_task(asking)

    async def until_alive(self) -> None:
        """Wait until the API answers at all."""
        await wait_until(self._is_alive, timeout=_PATIENCE_SECONDS, description="the API answers")

    async def until_refused(self, *, since: float) -> None:
        """Wait until the API says, to what was asked after `since`, that Redis is away."""
        await wait_until(
            lambda: min(self._refused.values()) > since,
            timeout=_PATIENCE_SECONDS,
            description="the API says that Redis is away",
        )

    async def until_degraded(self, *, since: float) -> None:
        """Wait until the API says, asked after `since`, that the watcher cannot trust the prefix."""
        await wait_until(
            lambda: self._degraded > since,
            timeout=_PATIENCE_SECONDS,
            description="the watcher says that it cannot trust the prefix",
        )

    async def until_listed(self, wanted: Mapping[str, Revision]) -> None:
        """Wait until the API lists exactly `wanted`."""

        async def is_so() -> bool:
            await self.list_adapters()
            return self._listed == wanted

        await wait_until(
            is_so, timeout=_PATIENCE_SECONDS, description=f"the API lists {len(wanted)} adapters"
        )

    async def list_adapters(self) -> None:
        """Ask for the adapters."""
        asked, response = await self._ask("GET", ADAPTERS)
        if response is None or not self._has_answered(ADAPTERS, asked, response):
            return
        rows = msgspec.json.decode(response.content, type=_Rows).data
        listed = {row.id: row.revision for row in rows if row.revision is not None}
        for name in self._listed.keys() - listed.keys():
            self._record.note("api", "unlisted", asked=asked, name=name)
        for name, revision in listed.items() - self._listed.items():
            self._record.note("api", "listed", asked=asked, name=name, revision=revision)
        self._listed = listed

    async def refresh(self, *, seconds: float) -> RefreshStatus | None:
        """Ask for a look at the disk, and return how it went; None where it was refused."""
        asked, response = await self._ask("POST", REFRESH_PATH, json={"timeout": seconds})
        if response is None or not self._has_answered(REFRESH_PATH, asked, response):
            return None
        status = RefreshStatus(response.json()["status"])
        self._record.note("api", "refreshed", asked=asked, status=status)
        return status

    async def _go_on_listing(self) -> None:
        while True:
            await self.list_adapters()
            await asyncio.sleep(_PAUSE_SECONDS)  # the pace of the lists

    async def _go_on_probing(self) -> None:
        while True:
            await self._probe()
            await asyncio.sleep(_PAUSE_SECONDS)  # the pace of the probes

    async def _go_on_refreshing(self) -> None:
        while True:
            await self.refresh(seconds=_REFRESH_SECONDS)
            await asyncio.sleep(self._dice.uniform(0, _LONGEST_PAUSE_SECONDS))  # until the next

    async def _probe(self) -> None:
        await self._is_alive()
        asked, response = await self._ask("GET", READY)
        if response is None:
            return
        body = response.json()
        if body["epoch"] is not None and (body["epoch"], body["seq"]) != self._position:
            self._position = (body["epoch"], body["seq"])
            self._record.note("api", "moved", epoch=body["epoch"], seq=body["seq"])
        if body["watcher"] is not None and body["watcher"]["degraded"] is not None:
            self._degraded = asked
            self._record.note("api", "degraded", asked=asked, code=body["watcher"]["degraded"]["code"])
        self._has_answered(READY, asked, response)

    async def _is_alive(self) -> bool:
        _, response = await self._ask("GET", HEALTH)
        return response is not None

    async def _ask(self, method: str, path: str, **more: Any) -> tuple[float, httpx.Response | None]:
        asked = self._record.now
        try:
            response = await self._http.request(method, f"{self._api.url}{path}", **more)
        except httpx.TransportError as error:
            self._record.note("api", "silent", asked=asked, path=path, why=repr(error))
            return asked, None
        self._record.note("api", "answer", asked=asked, path=path, status=response.status_code)
        return asked, response

    def _has_answered(self, path: str, asked: float, response: httpx.Response) -> bool:
        if response.status_code == httpx.codes.SERVICE_UNAVAILABLE and path in self._refused:
            self._refused[path] = asked
        return response.status_code == httpx.codes.OK
