"""docker/users.acl: each role does all of its work as its user, and can do nothing else."""

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from loradrop.catalog.errors import CatalogDenied
from loradrop.catalog.http.queries import Queries
from loradrop.catalog.http.refresh_views import RefreshBody
from loradrop.catalog.store import Connection, Publisher
from testkit.adapters import publish_adapter
from testkit.servers import ValkeyServer, valkey
from tests.catalog.roles import ROLES, USERS, WORK, connected, url
from tests.watcher.running import watching

OPERATOR = "user operator on >pw ~* &* +@all"

WRITES = {
    "meta": ("HSET", "field", "value"),
    "adapters": ("HDEL", "field"),
    "events": ("XADD", "*", "field", "value"),
    "refreshes": ("XADD", "*", "field", "value"),
    "refresh:r1": ("HSET", "field", "value"),
    "watcher": ("HSET", "field", "value"),
    "workers": ("ZADD", "1", "member"),
    "worker:w:1": ("HSET", "field", "value"),
    "worker:w:1:adapters": ("HSET", "field", "value"),
}
MAY_WRITE = {
    "watcher": {"meta", "adapters", "events", "watcher", "refresh:r1"},
    "worker": {"workers", "worker:w:1", "worker:w:1:adapters", "refreshes", "refresh:r1"},
    "api": {"refreshes", "refresh:r1"},
}
MAY_NOT_READ = {"watcher": {"workers", "worker:w:1", "worker:w:1:adapters"}, "worker": set(), "api": set()}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A Valkey with our users, each with a password, and an operator."""
    directory = tmp_path_factory.mktemp("users")
    users = USERS.read_text().replace(" on resetpass ", " on resetpass >pw ")
    (directory / "users.acl").write_text(f"{users}{OPERATOR}\n")
    with valkey(directory, "--aclfile", str(directory / "users.acl")) as server:
        yield server


@pytest.fixture
async def operator(server: ValkeyServer) -> AsyncIterator["Redis[str]"]:
    async with Redis.from_url(url(server, "operator"), decode_responses=True) as client:
        await client.flushall()
        await client.script_flush()
        await client.execute_command("ACL", "LOG", "RESET")
        yield client


async def test_the_file_lets_no_user_in_before_passwords_are_given(tmp_path: Path) -> None:
    (tmp_path / "users.acl").write_text(USERS.read_text())
    with valkey(tmp_path, "--aclfile", str(tmp_path / "users.acl")) as server:
        for user in ("", "loradrop-watcher:", "loradrop-worker:", "loradrop-api:pw", "default:"):
            async with Connection(f"redis://{user}@127.0.0.1:{server.port}/0") as connection:
                with pytest.raises(CatalogDenied, match="user and password in --redis-url"):
                    await connection.ping()


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_does_all_of_its_work(role: str, server: ValkeyServer, operator: "Redis[str]") -> None:
    await WORK[role](server, operator)
    assert await denied_to(operator, role) == set()


async def test_a_real_watcher_does_all_of_its_work(
    server: ValkeyServer, operator: "Redis[str]", tmp_path: Path
) -> None:
    prefix = tmp_path / "loras"
    prefix.mkdir()
    async with (
        connected(server, "watcher") as connection,
        connected(server, "api") as asking,
        watching(connection, prefix, interval_seconds=0) as catalog,
    ):
        publish_adapter(prefix, "good")
        await catalog.until_served({"good"})
        refresh_id = await Queries(asking).start_refresh(RefreshBody())
        await Queries(asking).finished_refresh(refresh_id, timeout_seconds=20)
        (prefix / "good").rename(tmp_path / "gone")
        await catalog.until_gone("good")
    assert await denied_to(operator, "watcher") == set()


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_needs_every_command_it_may_run(
    role: str, server: ValkeyServer, operator: "Redis[str]"
) -> None:
    for command in sorted(allowed_commands(role)):
        await operator.flushall()
        await operator.script_flush()
        await operator.execute_command("ACL", "LOG", "RESET")
        rule = "clearselectors" if command == "evalsha" and role != "watcher" else f"-{command}"
        await operator.execute_command("ACL", "SETUSER", f"loradrop-{role}", rule)
        with suppress(Exception):
            await WORK[role](server, operator)
        denied = await denied_to(operator, role)
        await operator.execute_command("ACL", "LOAD")
        assert command in denied


@pytest.mark.parametrize("role", ROLES)
async def test_every_other_command_of_the_server_is_denied(role: str, operator: "Redis[str]") -> None:
    allowed = allowed_commands(role)
    admitted = set()
    for command, arguments in await every_command(operator):
        answer = await operator.execute_command("ACL", "DRYRUN", f"loradrop-{role}", *arguments)
        if answer == "OK" or "no permissions to run" not in answer:
            admitted.add(command)
    assert admitted - {"auth", "hello", "quit", "reset"} == allowed


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_reads_and_writes_its_own_keys_and_no_others(
    role: str, server: ValkeyServer, operator: "Redis[str]"
) -> None:
    for pool, (name, (command, *arguments)) in product(("default", "blue"), WRITES.items()):
        key = f"loradrop:{{{pool}}}:{name}"
        assert await may(operator, role, command, key, *arguments) == (name in MAY_WRITE[role]), name
        assert await may(operator, role, "HGETALL", key) == (name not in MAY_NOT_READ[role]), name
    for key in ("another:key", "loradrop", "loradrop:{default}:other"):
        assert not await may(operator, role, "HGETALL", key)
        assert not await may(operator, role, "HSET", key, "field", "value")


@pytest.mark.parametrize("role", ["worker", "api"])
async def test_who_only_reads_the_catalog_can_publish_nothing_not_even_by_a_script_of_their_own(
    role: str, server: ValkeyServer, operator: "Redis[str]"
) -> None:
    async with connected(server, role) as connection:
        with pytest.raises(CatalogDenied, match="ACL LOG"):
            await Publisher(connection, owner="intruder").lead()
        script = await connection.commands.script_load("return redis.call('HSET', KEYS[1], 'owner', 'me')")
        with pytest.raises(NoPermissionError):
            await connection.commands.evalsha(script, 1, "loradrop:{default}:meta")
        with suppress(Exception):
            await connection.commands.evalsha(script, 1, "loradrop:{default}:watcher")
    assert await operator.keys("*") == []


@pytest.mark.parametrize("lacking", ["-hset", "-evalsha", "resetkeys"])
async def test_a_missing_permission_is_named_with_advice(
    lacking: str, server: ValkeyServer, operator: "Redis[str]"
) -> None:
    rules = next(line for line in USERS.read_text().splitlines() if "loradrop-watcher" in line).split()[2:]
    await operator.execute_command("ACL", "SETUSER", "narrowed", *rules, ">pw", lacking)
    async with Connection(url(server, "narrowed")) as connection:
        with pytest.raises(CatalogDenied) as denied:
            await Publisher(connection, owner="watcher-1").lead()
    await operator.execute_command("ACL", "DELUSER", "narrowed")
    named = "to access a key" if lacking == "resetkeys" else f"to run the '{lacking[1:]}' command"
    assert named in denied.value.message
    assert "docker/users.acl" in denied.value.message


async def may(operator: "Redis[str]", role: str, *command: str) -> bool:
    answer = await operator.execute_command("ACL", "DRYRUN", f"loradrop-{role}", *command)
    assert answer == "OK" or "no permissions" in answer.lower(), answer
    return bool(answer == "OK")


def allowed_commands(role: str) -> set[str]:
    """Return the commands the file grants a role, its selectors' among them."""
    [line] = [line for line in USERS.read_text().splitlines() if f"loradrop-{role} " in line]
    words = line.replace("(", " ").replace(")", " ").split()
    return {word.removeprefix("+") for word in words if word.startswith("+")}


async def denied_to(operator: "Redis[str]", role: str) -> set[str]:
    """Return the commands and keys the server has denied a role."""
    return {entry["object"] for entry in await operator.acl_log() if entry["username"] == f"loradrop-{role}"}


async def every_command(operator: "Redis[str]") -> list[tuple[str, list[str]]]:
    """Return every command and subcommand of the server, each with as many arguments as it needs."""
    operator.set_response_callback("COMMAND", lambda reply, **_: reply)  # as it came, subcommands and all
    found: list[tuple[str, list[str]]] = []
    for name, arity, *_, subcommands in await operator.execute_command("COMMAND"):
        for command, count in [(sub[0], sub[1]) for sub in subcommands] or [(name, arity)]:
            words = command.split("|")
            found.append((command, words + ["1"] * (abs(count) - len(words))))
    return found
