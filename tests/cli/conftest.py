"""The `loradrop` command against a real API over a real Redis."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote

import pytest
from typer.testing import CliRunner, Result

from loradrop.cli.__main__ import app
from testkit.servers import ValkeyServer
from tests.api.processes import ApiProcess, api_process

Loradrop = Callable[..., Awaitable[Result]]


@pytest.fixture(scope="session")
def api(valkey_server: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    """One API for the whole run; what it answers from is emptied before each test."""
    log = tmp_path_factory.mktemp("api") / "api.log"
    with api_process(log, "--redis-url", valkey_server.url) as api:
        yield api


@pytest.fixture
def loradrop(api: ApiProcess, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Loradrop:
    """Run a command in a thread, so that a fleet on this loop can answer meanwhile."""
    for name in ("LORADROP_API_KEY", "LORADROP_API_URL"):
        monkeypatch.delenv(name, raising=False)
    environment = {"LORADROP_API_URL": api.url, "COLUMNS": "200"}

    async def run(*arguments: str, **more: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, arguments, env=environment | more)

    return run


class _Fixed(BaseHTTPRequestHandler):
    """Answers everything with what the path says: `|STATUS|BODY|` in front of the route."""

    def do_GET(self) -> None:
        _, status, body, *_ = unquote(self.path).split("|")
        self.send_response(int(status))
        self.end_headers()
        self.wfile.write(body.encode())

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def any_server() -> Iterator[str]:
    """The URL of a server that is no API: `URL/|STATUS|BODY|` answers with that status and body."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Fixed) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()
