"""`python -m watcher`: flags, environment, logs, metrics, and how it ends."""

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from loradrop.catalog.adapter import AdapterState
from loradrop.catalog.store import Connection
from loradrop.watcher.__main__ import main
from testkit.adapters import publish_adapter, write_adapter
from testkit.waiting import wait_until_sync
from tests.watcher.running import Catalog

MIRROR = "loradrop.watcher.publish.catalog_mirror"


@contextmanager
def running(*flags: str, env: dict[str, str] | None = None, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as stderr:
        child = subprocess.Popen(
            [sys.executable, "-m", "loradrop.watcher", *flags],
            stderr=stderr,
            env={**os.environ, **(env or {})},
        )
        try:
            yield child
        finally:
            child.kill()
            child.wait()


def until_logged(log: Path, text: str) -> None:
    wait_until_sync(lambda: text in log.read_text(), timeout=20, description=f"{text!r} is logged")


async def test_every_setting_is_an_environment_variable_too(
    tmp_path: Path, redis_url: str, connection: Connection
) -> None:
    environment = {
        "LORADROP_LORA_DIR_PREFIX": str(tmp_path),
        "LORADROP_REDIS_URL": redis_url,
        "LORADROP_POOL": "blue",
        "LORADROP_NOTIFIER": "none",
        "LORADROP_LORA_DISCOVERY_INTERVAL": "0.2",
        "LORADROP_LORA_SETTLE": "0.1",
        "LORADROP_ALLOW_PICKLE": "0",
    }
    write_adapter(tmp_path / "sql")
    (write_adapter(tmp_path / "bin") / "adapter_model.safetensors").rename(
        tmp_path / "bin" / "adapter_model.bin"
    )
    with running(env=environment, log=tmp_path / ".log"):
        async with Connection(redis_url, pool="blue") as blue:
            catalog = Catalog(blue)
            await catalog.until("sql", AdapterState.READY)
            await catalog.until("bin", AdapterState.REJECTED, code="pickle_not_allowed")
            status = await catalog.status()
            assert status is not None
            assert (status.mode, status.interval_seconds) == ("rescan", 0.2)
    assert await Catalog(connection).adapters() == {}


def test_what_happens_is_logged_once_in_constant_words(tmp_path: Path, redis_url: str) -> None:
    log = tmp_path / ".log"
    with running("--lora-dir-prefix", str(tmp_path), "--redis-url", redis_url, log=log) as child:
        until_logged(log, f"INFO {MIRROR}: Watcher leads epoch=")
        publish_adapter(tmp_path, "sql")
        until_logged(log, f"INFO {MIRROR}: Adapter is published name=sql type=added revision=")
        write_adapter(tmp_path / "bad", use_dora=True)
        until_logged(log, f"WARNING {MIRROR}: Adapter is rejected name=bad reason=dora_unsupported: ")
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 0
        until_logged(log, "INFO loradrop.watcher.watcher: Watcher has stopped owner=")
        assert log.read_text().count("name=sql") == 1
        assert "Traceback" not in log.read_text()


def test_metrics_are_served_where_a_port_is_given(tmp_path: Path, redis_url: str) -> None:
    log = tmp_path / ".log"
    write_adapter(tmp_path / "bad", use_dora=True)
    flags = ["--lora-dir-prefix", str(tmp_path), "--redis-url", redis_url, "--metrics-port", "0"]
    with running(*flags, log=log) as child:
        until_logged(log, "Metrics are served host=127.0.0.1 port=")
        port = log.read_text().split("port=")[1].split()[0]
        until_logged(log, "name=bad")
        publish_adapter(tmp_path, "sql")
        until_logged(log, "name=sql")

        def metrics() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
                text: str = response.read().decode()
                return text

        for line in (
            'loradrop_watcher_adapters{reason="",state="ready"} 1.0',
            'loradrop_watcher_adapters{reason="dora_unsupported",state="rejected"} 1.0',
            'loradrop_watcher_publish_seconds_bucket{le="+Inf"} 1.0',
            'loradrop_watcher_scan_seconds_bucket{le="60.0"} ',
            "loradrop_watcher_notifications_total ",
            "loradrop_watcher_degraded_seconds_total 0.0",
            "loradrop_watcher_examined_total ",
            "loradrop_watcher_examined_seconds_total ",
            "loradrop_watcher_digested_bytes_total ",
        ):
            assert line in metrics()
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 0


def test_a_degraded_watcher_shows_its_reason_in_the_metrics(tmp_path: Path, redis_url: str) -> None:
    log = tmp_path / "log"
    flags = ["--lora-dir-prefix", str(tmp_path / "nothing"), "--redis-url", redis_url, "--metrics-port", "0"]
    with running(*flags, log=log):
        until_logged(log, "Watcher is degraded source=prefix reason=prefix_missing: ")
        port = log.read_text().split("port=")[1].split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
            assert b'loradrop_watcher_degraded{reason="prefix_missing"} 1.0' in response.read()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([], "--lora-dir-prefix is missing"),
        (["--lora-dir-prefix", "/p", "--lora-settle", "-1"], "--lora-settle"),
        (["--lora-dir-prefix", "/p", "--pool", "a:b"], "--pool"),
        (["--lora-dir-prefix", "/p", "--notifier", "magic"], "--notifier"),
        (["--lora-dir-prefix", "/p", "--log-level", "loud"], "--log-level"),
        (["--lora-dir-prefix", "/p\udcff"], "must be a path in UTF-8"),
        (["--lora-dir", "/p"], "--lora-dir"),
        (["--lora-dir-prefix", "/p", "--redis-url", "http://x"], "is not a Redis URL"),
        (
            ["--lora-dir-prefix", "/p", "--metrics-host", "192.0.2.1", "--metrics-port", "9"],
            "--metrics-port 9 cannot be opened",
        ),
    ],
)
def test_flags_that_cannot_work_end_it_with_a_sentence(
    flags: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(flags)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_it_can_be_stopped_while_redis_is_away(tmp_path: Path) -> None:
    log = tmp_path / ".log"
    with running(
        "--lora-dir-prefix", str(tmp_path), "--redis-url", "redis://127.0.0.1:1/0", log=log
    ) as child:
        until_logged(log, "Watcher waits for Redis reason=catalog_unavailable: ")
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 0


def test_a_read_that_hangs_does_not_hold_up_the_end(tmp_path: Path, redis_url: str) -> None:
    """A thread that never comes back, as in a read from a dead mount."""
    code = (
        "import sys, threading, loradrop.watcher.monitor.evaluation as j; "
        "j.look_at = lambda *_: threading.Event().wait(); "
        "from loradrop.watcher.__main__ import main; main()"
    )
    write_adapter(tmp_path / "sql")
    flags = ["--lora-dir-prefix", str(tmp_path), "--redis-url", redis_url]
    child = subprocess.Popen([sys.executable, "-c", code, *flags], stderr=subprocess.DEVNULL)
    with redis.Redis.from_url(redis_url) as client:
        wait_until_sync(
            lambda: bool(client.hget("loradrop:{default}:watcher", "last_scan_at")),
            timeout=20,
            description="it has scanned",
        )
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) == 0
