"""What clients are shown holds nothing of what the files hold, and no request reaches beyond the prefix."""

import json
import struct
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from loradrop.catalog.http.auth import REFRESH_PATH
from loradrop.catalog.store import Connection
from loradrop.watcher.validation.inspection import inspect_adapter
from testkit.adapters import CONFIG, safetensors_bytes, write_adapter
from tests.watcher.bad_adapters import BAD, Bad, config_only, config_text, header, weights
from tests.watcher.running import watching

SECRET = "hf_QkRmS0VYQU1QTEVUT0tFTg"
LINE = f'"hf_token": "{SECRET}"'
SOWN = [
    Bad("secret_in_broken_json", config_text(b"{" + LINE.encode() + b",}"), "rejected", "config_invalid"),
    Bad("secret_for_an_object", config_text(json.dumps(SECRET).encode()), "rejected", "config_invalid"),
    Bad("secret_and_no_json", config_text(SECRET.encode()), "rejected", "config_invalid"),
    Bad("secret_not_utf8", config_text(b"\xff" + SECRET.encode()), "rejected", "config_invalid"),
    Bad("secret_in_header", header(b"{" + LINE.encode() + b",}"), "rejected", "header_invalid"),
    Bad("secret_in_metadata", header({"__metadata__": {"a": 1, "t": SECRET}}), "rejected", "header_invalid"),
    Bad("secret_for_weights", weights(SECRET.encode()), "rejected", "header_too_large"),
]


HOLDING_FILES = [bad for bad in BAD if bad.code != "directory_empty"]


@pytest.mark.parametrize("bad", [*SOWN, *HOLDING_FILES], ids=lambda bad: bad.kind)
def test_no_reason_tells_what_a_file_holds_beside_what_it_is_judged_by(bad: Bad, tmp_path: Path) -> None:
    """Every bad kind there is, with a secret in its configuration, its metadata and its directory."""
    path = tmp_path / "adapter"
    bad.write(path)
    sow(path)
    found = inspect_adapter(path, with_revision=True)
    assert (found.state, found.reason and found.reason.code) == (bad.state, bad.code)
    assert SECRET not in str(found.reason)


@pytest.mark.parametrize("field", [*CONFIG, "rank_pattern", "alpha_pattern", "modules_to_save", "use_dora"])
def test_of_a_value_that_is_objected_to_a_reason_quotes_its_beginning_at_most(
    field: str, tmp_path: Path
) -> None:
    value = "".join(map(str, range(200)))
    config_only(**{field: value})(tmp_path / "adapter")
    reason = str(inspect_adapter(tmp_path / "adapter", with_revision=True).reason)
    assert value[:61] not in reason


def test_of_a_tensor_that_is_objected_to_a_reason_quotes_the_beginning_of_its_name_at_most(
    tmp_path: Path,
) -> None:
    name = "".join(map(str, range(200)))
    weights(safetensors_bytes({name: ("F32", [1, 1], struct.pack("<f", 1))}))(tmp_path / "adapter")
    assert name[:121] not in str(inspect_adapter(tmp_path / "adapter").reason)


async def test_a_request_names_nothing_beyond_the_prefix(
    api: httpx.AsyncClient, connection: Connection, tmp_path: Path
) -> None:
    outside = write_adapter(tmp_path / "outside")
    write_adapter(tmp_path / "loras" / "inside")
    names = ["../outside", str(outside), "inside/../../outside", ".", "..", "", "\0", "inside\0/../outside"]
    async with watching(connection, tmp_path / "loras", interval_seconds=0) as catalog:
        await catalog.until_served({"inside"})
        for dry_run in (False, True):
            answer = await api.post(REFRESH_PATH, json={"names": names, "dry_run": dry_run, "timeout": 20})
            body = answer.json()
            assert (answer.status_code, body["status"]) == (200, "converged")
            assert body["discovered_adapters"] == body["updated_adapters"] == body["rejected_adapters"] == []
        assert set(await catalog.adapters()) == {"inside"}
        for name in names[:3]:
            assert (await api.get(f"/v1/lora_adapters/{quote(name, safe='')}")).status_code == 404, name


def sow(directory: Path) -> None:
    """Add a secret to the configuration, where there is one that can hold it, and beside it."""
    if directory.is_symlink():
        return
    (directory / "notes.txt").write_text(SECRET)
    config = directory / "adapter_config.json"
    if config.is_symlink() or not config.is_file():
        return
    try:
        fields = json.loads(config.read_bytes())
    except (ValueError, RecursionError):
        return
    if isinstance(fields, dict):
        config.write_text(json.dumps(fields | {"hf_token": SECRET}))
