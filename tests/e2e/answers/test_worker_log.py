"""The log that the judge reads: what names were pointed to, and what requests were admitted with."""

import json
import logging
import logging.config
from pathlib import Path

import pytest

from tests.e2e.answers.judge import Pointing
from tests.e2e.answers.worker_log import admissions, pointings, timed_logging

LOG = """\
(APIServer pid=7) INFO [loading.py] at=100.250000 adapter loaded name=a revision=fd7144b262af seconds=0.031
2026-11-26 07:26:55,345 INFO loradrop.watcher: Adapter is published name=a type=added revision=be1ad6eefa23
(APIServer pid=7) INFO [loading.py] at=101.500000 adapter loaded name=b revision=be1ad6eefa23 seconds=0.074
(APIServer pid=7) INFO [residency.py] at=102.750000 adapter draining name=a revision=fd7144b262af
(APIServer pid=7) DEBUG [room.py] at=103.125000 adapter made room name=b
"""
REQUEST = "at=103.5 Received request cmpl-{}-0: params: SamplingParams(n=1, stop=[]), lora_request: {}.\n"


def test_what_names_were_pointed_to_is_read_with_its_times() -> None:
    assert pointings(LOG) == {
        "a": [Pointing(100.25, "fd7144b262af"), Pointing(102.75, None)],
        "b": [Pointing(101.5, "be1ad6eefa23"), Pointing(103.125, None, for_room=True)],
    }


def test_what_a_request_was_admitted_with_is_read_from_the_directory_of_its_copy() -> None:
    lora = f"LoRARequest(lora_name='a@b', lora_int_id=7, lora_path='/store/revisions/{'c' * 64}')"
    assert admissions(REQUEST.format("f1", lora) + REQUEST.format("f2", "None")) == {
        "f1": Pointing(103.5, "c" * 12)
    }


def test_the_logging_configuration_makes_lines_that_can_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads(Path(timed_logging(tmp_path)).read_text())
    config["loggers"] = {"tests.timed": config["loggers"]["vllm"]}
    logging.config.dictConfig(config)
    logger = logging.getLogger("tests.timed")
    logger.info("adapter loaded name=%s revision=%s seconds=%.3f", "a", "fd7144b262af", 0.1)
    logger.handlers.clear()
    found = pointings(capsys.readouterr().out)["a"]
    assert [pointing.revision for pointing in found] == ["fd7144b262af"]
