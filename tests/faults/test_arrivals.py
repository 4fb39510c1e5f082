"""Many adapters at once, by every tool a writer uses: none lost or incomplete, each exactly once.

`LORADROP_TEST_ADAPTERS=1000` plays it at full size.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from loradrop.catalog.store import Connection
from testkit.adapters import lora_weights, write_adapter
from tests.faults.table import Row
from tests.faults.watchers import since, watcher_process

COUNT = int(os.environ.get("LORADROP_TEST_ADAPTERS", "60"))


def sh(command: str) -> None:
    subprocess.run(["sh", "-c", command], check=True, capture_output=True)


def by_cp(source: Path, prefix: Path) -> None:
    sh(f"cp -r {source}/. {prefix}")


def by_cp_with_times(source: Path, prefix: Path) -> None:
    sh(f"cp -a {source}/. {prefix}")


def by_rsync(source: Path, prefix: Path) -> None:
    sh(f"rsync -a {source}/ {prefix}/")


def by_tar(source: Path, prefix: Path) -> None:
    sh(f"tar -C {source} -c . | tar -C {prefix} -x")


def by_git(source: Path, prefix: Path) -> None:
    git = f"git -C {source} -c user.name=x -c user.email=x@x"
    sh(f"{git} init -q && {git} add . && {git} commit -qm x")
    sh(f"git --git-dir={source}/.git --work-tree={prefix} checkout -q -f HEAD")


def by_mv(source: Path, prefix: Path) -> None:
    sh(f"mv {source}/* {prefix}")


def by_writing(source: Path, prefix: Path) -> None:
    for adapter in sorted(source.iterdir()):
        (prefix / adapter.name).mkdir()
        for file in sorted(adapter.iterdir(), reverse=True):
            (prefix / adapter.name / file.name).write_bytes(file.read_bytes())


def by_writing_aside(source: Path, prefix: Path) -> None:
    for adapter in sorted(source.iterdir()):
        shutil.copytree(adapter, prefix / f".{adapter.name}.tmp")
        (prefix / f".{adapter.name}.tmp").rename(prefix / adapter.name)


def by_data_links(source: Path, prefix: Path) -> None:
    for adapter in sorted(source.iterdir()):
        made = prefix / adapter.name
        made.mkdir()
        shutil.copytree(adapter, made / "..2026_01_01")
        (made / "..data_tmp").symlink_to("..2026_01_01")
        (made / "..data_tmp").rename(made / "..data")
        for file in sorted(adapter.iterdir()):
            (made / file.name).symlink_to(f"..data/{file.name}")


@pytest.mark.parametrize(
    "bring",
    [
        by_cp,
        by_cp_with_times,
        pytest.param(by_rsync, marks=pytest.mark.skipif(not shutil.which("rsync"), reason="no rsync here")),
        by_tar,
        pytest.param(by_git, marks=pytest.mark.skipif(not shutil.which("git"), reason="no git here")),
        by_mv,
        by_writing,
        by_writing_aside,
        by_data_links,
    ],
)
async def test_arrival(
    bring: Callable[[Path, Path], None], connection: Connection, tmp_path: Path, row: Row
) -> None:
    row.scenario = f"{COUNT} adapters {bring.__name__.replace('_', ' ')}"
    source, prefix = tmp_path / "source", tmp_path / "prefix"
    prefix.mkdir()
    names = [f"a{number}" for number in range(COUNT)]
    flags = ("--lora-discovery-interval", "0")  # notifications alone
    async with watcher_process(connection, prefix, *flags) as (_, history):
        await history.catalog.until_scanned()
        for number, name in enumerate(names):
            weights = write_adapter(source / name) / "adapter_model.safetensors"
            weights.write_bytes(lora_weights(seed=number % 200 + 1, hidden=8 + number // 200))
            history.note(source / name)
        bring(source, prefix)
        brought = time.monotonic()
        await history.catalog.until_served(set(names))
        row.converge_seconds = since(brought)
        await history.check(row, expected=names)
        published = [name for _, name in await history.catalog.served_events()]
        assert sorted(published) == sorted(names), "each adapter is published exactly once"
