"""The API over a real Redis, without a socket in between."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from loradrop.api.app import create_app
from loradrop.api.settings import Settings


@asynccontextmanager
async def api_client(settings: Settings, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API with `settings`."""
    app = create_app(settings)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8001", headers=headers) as client,
    ):
        yield client


@pytest.fixture
async def api(redis_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API with default settings."""
    async with api_client(Settings(redis_url=redis_url)) as client:
        yield client
