"""Drop a folder, get a model: `loradrop serve` alone, asked as clients ask it."""

import asyncio
import threading

import httpx
import pytest

from testkit.servers import free_port
from testkit.tiny_model import write_tiny_adapter
from testkit.waiting import wait_until_sync
from tests.e2e.conftest import AllInOne

pytestmark = pytest.mark.e2e


def test_a_renamed_in_adapter_is_listed_and_answers_in_its_own_way(all_in_one: AllInOne) -> None:
    all_in_one.prefix.rename_in("renamed", seed=1)
    all_in_one.wait_listed("renamed")

    answer = all_in_one.server.ask("renamed")

    assert answer.status == httpx.codes.OK
    assert answer.body["model"] == "renamed"
    assert answer.tokens != all_in_one.server.ask("tiny").tokens


def test_a_copied_in_adapter_answers_like_the_same_one_renamed_in(all_in_one: AllInOne) -> None:
    all_in_one.prefix.copy_in("copied", seed=1)
    all_in_one.prefix.rename_in("moved", seed=1)
    all_in_one.wait_listed("copied")
    all_in_one.wait_listed("moved")

    assert all_in_one.server.ask("copied").tokens == all_in_one.server.ask("moved").tokens


def test_a_link_out_of_the_prefix_is_served_where_the_operator_allows_it(all_in_one: AllInOne) -> None:
    elsewhere = all_in_one.prefix.directory.parent / "elsewhere"
    for place in (elsewhere, elsewhere.parent / "forbidden"):
        write_tiny_adapter(place / "linked", seed=4)
        (all_in_one.prefix.directory / f"linked-{place.name}").symlink_to(place / "linked")
    all_in_one.prefix.rename_in("not-linked", seed=4)
    all_in_one.wait_listed("linked-elsewhere")
    all_in_one.wait_listed("not-linked")

    answer = all_in_one.server.ask("linked-elsewhere")

    assert answer.status == httpx.codes.OK
    assert answer.tokens == all_in_one.server.ask("not-linked").tokens
    assert all_in_one.server.ask("linked-forbidden").status != httpx.codes.OK


def test_a_removed_adapter_is_gone_and_asking_for_it_is_a_404(all_in_one: AllInOne) -> None:
    all_in_one.prefix.rename_in("removed", seed=1)
    all_in_one.wait_listed("removed")
    assert all_in_one.server.ask("removed").status == httpx.codes.OK

    all_in_one.prefix.remove("removed")
    all_in_one.wait_gone("removed")

    assert all_in_one.server.ask("removed").status == httpx.codes.NOT_FOUND


def test_overwriting_an_adapters_files_changes_its_answers_and_no_request_fails_meanwhile(
    all_in_one: AllInOne,
) -> None:
    all_in_one.prefix.rename_in("other", seed=2)
    target = all_in_one.prefix.rename_in("overwritten", seed=1)
    all_in_one.wait_listed("overwritten")
    all_in_one.wait_listed("other")
    before = all_in_one.server.ask("overwritten").tokens
    after = all_in_one.server.ask("other").tokens
    assert before != after

    seen: list[tuple[int, tuple[int, ...]]] = []
    stop = threading.Event()

    def keep_asking() -> None:
        while not stop.is_set():
            answer = all_in_one.server.ask("overwritten")
            seen.append((answer.status, tuple(answer.tokens)))

    asking = threading.Thread(target=keep_asking)
    asking.start()
    for file in (all_in_one.prefix.directory / "other").iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    all_in_one.wait_answer("overwritten", after)
    stop.set()
    asking.join()

    assert {status for status, _ in seen} == {httpx.codes.OK}
    assert {tokens for _, tokens in seen} <= {tuple(before), tuple(after)}


def test_putting_the_old_bytes_back_brings_the_old_answers_back(all_in_one: AllInOne) -> None:
    all_in_one.prefix.rename_in("rolled", seed=3)
    all_in_one.wait_listed("rolled")
    old = all_in_one.server.ask("rolled").tokens
    all_in_one.prefix.rename_in("rolled", seed=4)
    wait_until_sync(
        lambda: all_in_one.server.ask("rolled").tokens != old, timeout=10, description="the new answers"
    )

    all_in_one.prefix.rename_in("rolled", seed=3)

    all_in_one.wait_answer("rolled", old)


def test_a_second_server_on_the_same_prefix_and_state_is_refused_with_a_sentence(
    all_in_one: AllInOne,
) -> None:
    from loradrop.catalog.settings import SettingsInvalid
    from loradrop.worker.fleet.embedded import embedded_stack
    from loradrop.worker.settings import WorkerSettings

    state = all_in_one.server.log_path.parent / "state" / "loradrop"
    prefix = all_in_one.prefix.directory
    settings = WorkerSettings(lora_dir_prefix=prefix, lora_state_dir=state, api_port=free_port())

    async def start() -> None:
        async with embedded_stack(settings):
            raise AssertionError("it started")

    with pytest.raises(SettingsInvalid, match="--redis-url"):
        asyncio.run(start())
