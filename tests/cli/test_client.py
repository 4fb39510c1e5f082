"""What goes wrong on the way to the API: one sentence that says what to do, and an exit code."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from loradrop.cli import tables
from loradrop.cli.bodies import AdapterBody, is_like
from testkit.servers import free_port
from tests.api.processes import ApiProcess, api_process
from tests.cli.conftest import Loradrop


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    """An API that wants a key, and whose Redis is not there."""
    log: Path = tmp_path_factory.mktemp("guarded") / "api.log"
    arguments = ("--redis-url", f"redis://127.0.0.1:{free_port()}/0")
    with api_process(log, *arguments, environment={"LORADROP_API_KEY": "one read,two"}) as api:
        yield api


@pytest.mark.parametrize("command", ["ls", "status", "refresh"])
async def test_where_nothing_listens_it_says_what_to_start(loradrop: Loradrop, command: str) -> None:
    result = await loradrop(command, "--api-url", f"http://127.0.0.1:{free_port()}")
    assert result.exit_code == 3
    assert "loradrop api" in result.stderr
    assert "--api-url" in result.stderr


@pytest.mark.parametrize("command", [("ls",), ("status",), ("refresh",), ("wait", "sql")])
@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8001",
        "ftp://x",
        "http://",
        "http://h:port",
        "http://[::1",
        "http://]",
        "http://user:secret@127.0.0.1:8001",
        "ftp://user:secret@h",
        "http://user:secret@[::1",
        "http://h\x1b[2J",
    ],
)
async def test_a_url_that_is_none_is_a_usage_error(
    loradrop: Loradrop, url: str, command: tuple[str, ...]
) -> None:
    result = await loradrop(*command, "--api-url", url)
    assert result.exit_code == 2
    assert "http://127.0.0.1:8001" in result.stderr
    assert "secret" not in result.stderr
    assert "\x1b[2J" not in result.stderr
    assert "Traceback" not in result.stderr


async def test_a_missing_or_wrong_key_is_a_usage_error(loradrop: Loradrop, guarded: ApiProcess) -> None:
    for key in ("", "wrong"):
        result = await loradrop("ls", "--api-url", guarded.url, LORADROP_API_KEY=key)
        assert result.exit_code == 2
        assert "LORADROP_API_KEY" in result.stderr


async def test_a_key_that_may_only_read_is_a_usage_error_of_a_refresh(
    loradrop: Loradrop, guarded: ApiProcess
) -> None:
    result = await loradrop("refresh", "--api-url", guarded.url, LORADROP_API_KEY="one")
    assert result.exit_code == 2
    assert "scope is admin" in result.stderr


async def test_with_a_key_it_is_redis_that_is_away(
    loradrop: Loradrop, guarded: ApiProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in ("ls", "refresh"):
        result = await loradrop(
            command, "--api-url", f"{guarded.url}/", LORADROP_API_KEY="two admin ci, other"
        )
        assert result.exit_code == 3
        assert "Redis is not available" in result.stderr
    result = await loradrop("status", "--api-url", guarded.url)
    assert result.exit_code == 1
    assert "Redis is not available" in result.output


@pytest.mark.parametrize(
    ("answer", "exit_code", "said"),
    [
        ("|200|<html>|", 3, "really a loradrop API"),
        ("|200|[]|", 3, "is not a loradrop API"),
        ('|200|{"data": 3}|', 3, "is not a loradrop API"),
        ('|200|{"data": [{"id": "x"}]}|', 3, "is not a loradrop API"),
        (f"|200|{'[' * 5000}|", 3, "really a loradrop API"),
        ('|400|{"detail": "Wipe \\u001b[2J"}|', 2, "Wipe \\x1b[2J"),
        ('|400|{"detail": ["odd"]}|', 2, "odd"),
        ("|500||", 1, "answered GET with 500"),
        ("|500|[]|", 1, "answered GET with 500"),
        ('|502|{"detail": "Redis refuses this user."}|', 3, "Redis refuses this user."),
        ('|400|{"detail": "No prefix is configured."}|', 2, "No prefix is configured."),
    ],
)
async def test_any_other_answer_is_told_as_it_is(
    loradrop: Loradrop, any_server: str, answer: str, exit_code: int, said: str
) -> None:
    result = await loradrop("ls", "--api-url", any_server + quote(answer))
    assert (result.exit_code, said in result.stderr) == (exit_code, True)


def test_a_size_beyond_any_disk_is_of_another_shape() -> None:
    adapter = {"id": "sql", "state": "ready", "revision": None, "reason": None, "rank": None, "workers": {}}
    sizes = (1 << 62, -1, 10**400)
    assert [is_like(adapter | {"size_bytes": size}, AdapterBody) for size in sizes] == [True, False, False]


def test_a_time_that_is_in_no_calendar_is_shown_as_unknown() -> None:
    assert [tables.age(f"{day}T00:00:00Z") for day in ("2026-02-30", "2026-13-01", "0000-01-01")] == ["?"] * 3


async def test_https_is_spoken_where_the_url_says_so(loradrop: Loradrop, any_server: str) -> None:
    result = await loradrop("ls", "--api-url", any_server.replace("http:", "https:"))
    assert result.exit_code == 3
    assert "SSL" in result.stderr


@pytest.mark.parametrize("command", [("ls",), ("status",), ("refresh",), ("wait", "sql", "--timeout", "9")])
@pytest.mark.parametrize(
    "body", ["[]", "{}", "3", "null", '"x"', '{"data": {}}', '{"checks": []}', '{"state": 1}']
)
async def test_json_of_another_shape_is_no_answer_and_never_a_no(
    loradrop: Loradrop, any_server: str, command: tuple[str, ...], body: str
) -> None:
    result = await loradrop(*command, "--api-url", f"{any_server}{quote(f'|200|{body}|')}")
    assert result.exit_code == 3
    assert "is not a loradrop API" in result.stderr
    assert result.exception is None or isinstance(result.exception, SystemExit)
