"""No bad adapter kills the engine, poisons it or is served: every kind, one by one and all together."""

import contextlib
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from testkit.waiting import wait_until_sync
from tests.e2e.bad_adapters import BAD, Bad, owned_file, write_good_pickle
from tests.e2e.conftest import AllInOne

pytestmark = pytest.mark.e2e

GOOD = {"good-one": 31, "good-two": 32}
UPDATES = {"truncated", "config-pipe", "bigger-model"}
POISONOUS = [bad for bad in BAD if bad.poisonous]


class Ground:
    """The server with two good adapters, and what base and good adapters answer."""

    def __init__(self, all_in_one: AllInOne) -> None:
        self.server = all_in_one.server
        self.prefix = all_in_one.prefix
        self.api = httpx.Client(base_url=all_in_one.api_url, timeout=60)
        wait_until_sync(self.is_up, timeout=30, description="the API is ready")
        for name, seed in GOOD.items():
            self.prefix.rename_in(name, seed=seed)
        self.refresh(*GOOD)
        self.references = {name: self.server.ask(name).tokens for name in ("tiny", *GOOD)}
        assert len({tuple(tokens) for tokens in self.references.values()}) == len(self.references)

    def is_up(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return self.api.get("/readyz").is_success
        return False

    def drop(self, bad: Bad, name: str) -> None:
        bad.write(self.prefix.aside / name)
        (self.prefix.aside / name).rename(self.prefix.directory / name)

    def clear(self, name: str) -> None:
        path = self.prefix.directory / name
        path.unlink() if path.is_symlink() else shutil.rmtree(path)

    def refresh(self, *names: str, confirm: bool = False) -> None:
        body = {"names": list(names), "confirm_removals": confirm, "timeout": 30}
        answer = self.api.post("/v1/refresh_lora_discovery", json=body)
        assert answer.json()["status"] == "converged", answer.text

    def shown(self, name: str) -> dict[str, Any]:
        adapter: dict[str, Any] = self.api.get(f"/v1/lora_adapters/{name}").json()
        return adapter

    def reasons(self, name: str) -> str:
        adapter = self.shown(name)
        reasons = [adapter["reason"], *(worker["reason"] for worker in adapter["workers"].values())]
        return " ".join(reason["code"] for reason in reasons if reason)

    def loads(self, name: str) -> int:
        return sum(worker["loads"] for worker in self.shown(name)["workers"].values())

    def check_answers(self) -> None:
        for name, tokens in self.references.items():
            assert self.server.ask(name).tokens == tokens, name

    def check_refused(self, bad: Bad, name: str) -> None:
        answer = self.server.ask(name)
        assert answer.status in {httpx.codes.BAD_REQUEST, httpx.codes.CONFLICT}, (name, answer)
        if answer.status == httpx.codes.CONFLICT:
            assert int(answer.headers["Retry-After"]) > 0, name
        assert len(answer.error) > 20, (name, answer.error)
        wait_until_sync(
            lambda: bad.code in self.reasons(name),
            timeout=5,
            description=f"{name} shows {bad.code}, not {self.reasons(name)!r}",
        )
        assert self.loads(name) == 0, name


@pytest.fixture(scope="module")
def ground(all_in_one: AllInOne) -> Iterator[Ground]:
    ground = Ground(all_in_one)
    yield ground
    for name in GOOD:
        ground.prefix.remove(name)
    ground.refresh(confirm=True)  # all at once: held back otherwise, and with them what the next test removes
    ground.api.close()


def test_each_bad_kind_is_refused_with_its_reason_and_no_other_request_notices(ground: Ground) -> None:
    for bad in BAD:
        ground.drop(bad, bad.name)
        ground.refresh(bad.name)
        ground.check_refused(bad, bad.name)
        ground.check_answers()
        ground.clear(bad.name)
    assert not owned_file(ground.prefix.directory / "any").exists()


def test_all_bad_kinds_at_once_are_refused_while_others_are_served(ground: Ground) -> None:
    names = {f"crowd-{bad.name}": bad for bad in BAD}
    for name, bad in names.items():
        ground.drop(bad, name)
    ground.refresh(*names)
    before = ground.server.log.count("adapter loaded")

    with ThreadPoolExecutor(8) as pool:
        served = [pool.submit(ground.check_answers) for _ in range(10)]
        refused = [pool.submit(ground.check_refused, bad, name) for name, bad in names.items()]
        for check in (*served, *refused):
            check.result()

    assert ground.server.log.count("adapter loaded") == before
    assert ground.server.is_ready()
    for name in names:
        ground.clear(name)


def test_poisonous_weights_never_reach_the_engine(ground: Ground) -> None:
    for bad in POISONOUS:
        ground.drop(bad, f"poison-{bad.name}")
    ground.refresh(*(f"poison-{bad.name}" for bad in POISONOUS))
    for bad in POISONOUS * 5:
        answer = ground.server.ask(f"poison-{bad.name}", max_tokens=200)
        assert answer.status == httpx.codes.BAD_REQUEST, bad.name

    right = sum(ground.server.ask("tiny").tokens == ground.references["tiny"] for _ in range(100))

    assert right == 100
    for bad in POISONOUS:
        assert ground.loads(f"poison-{bad.name}") == 0
        ground.clear(f"poison-{bad.name}")


def test_a_bad_update_leaves_the_old_revision_in_place_and_shows_the_reason(ground: Ground) -> None:
    for bad in (
        *POISONOUS,
        *(bad for bad in BAD if bad.name in {"truncated", "config-pipe", "bigger-model"}),
    ):
        name = f"updated-{bad.name}"
        ground.prefix.rename_in(name, seed=33)
        ground.refresh(name)
        before = ground.server.ask(name).tokens
        ground.clear(name)
        ground.drop(bad, name)
        ground.refresh(name)

        wait_until_sync(
            lambda name=name, bad=bad: bad.code in ground.reasons(name),  # type: ignore[misc]
            timeout=10,
            description=f"{name} shows {bad.code}",
        )
        assert ground.server.ask(name).tokens == before, name
        ground.clear(name)
    ground.check_answers()


def test_a_pickle_of_plain_tensors_is_served(ground: Ground) -> None:
    write_good_pickle(ground.prefix.aside / "pickled").rename(ground.prefix.directory / "pickled")
    ground.prefix.rename_in("unpickled", seed=9)
    ground.refresh("pickled", "unpickled")

    assert ground.server.ask("pickled").tokens == ground.server.ask("unpickled").tokens
