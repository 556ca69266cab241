"""The log of a node."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaymesh import log as module
from relaymesh.log import FILES_MAX, Log, LogFileError, start_log

NAME = "relaymesh_test"
log = logging.getLogger(f"{NAME}.part")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "node.log"


@pytest.fixture
def as_json(file: Path) -> Iterator[Log]:
    started = start_log("json", "info", file, logger=NAME)
    yield started
    started.stop()


def lines(started: Log, file: Path) -> list[dict[str, object]]:
    started.stop()
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_a_record_is_one_json_object_with_the_ids_it_is_about(as_json: Log, file: Path) -> None:
    ids = {"task_id": "tsk_1", "step_id": "stp_1", "trace_id": "0af7651916cd43dd8448eb211c80319c", "attempt": 2}

    log.warning("two\nlines of %s", "größe", extra=ids)

    (line,) = lines(as_json, file)
    assert (line["level"], line["logger"], line["message"]) == ("warning", log.name, "two\nlines of größe")
    assert {name: line[name] for name in ids} == ids
    assert str(line["timestamp"]).endswith("Z") and line["pid"] == os.getpid()


def test_text_is_one_line_for_each_record(file: Path) -> None:
    started = start_log("text", "info", file, logger=NAME)

    log.error("two\nlines", extra={"task_id": "tsk_1", "code": "agent_error"})
    started.stop()

    (line,) = file.read_text(encoding="utf-8").splitlines()
    assert line.endswith(f"error   {log.name}: two\\nlines task_id=tsk_1 code=agent_error")


def test_what_is_below_the_level_is_left_out_and_the_level_is_given_back(as_json: Log, file: Path) -> None:
    log.debug("never")
    log.info("this")

    assert [line["message"] for line in lines(as_json, file)] == ["this"]
    assert logging.getLogger(NAME).level == logging.NOTSET


def test_secrets_are_masked_in_sentences_and_tracebacks(as_json: Log, file: Path) -> None:
    log.warning("could not log in with password=hunter2 and Authorization: Bearer abcdef123456789")
    log.warning("an agent chose its code", extra={"code": "token=hunter2"})
    try:
        raise ValueError("token=s3cr3t-value")
    except ValueError:
        log.exception("it failed")

    text = json.dumps(lines(as_json, file))
    assert "hunter2" not in text and "abcdef123456789" not in text and "s3cr3t-value" not in text
    assert "ValueError" in text and "test_log.py" in text


def test_the_file_is_for_its_owner_and_is_rotated(file: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "FILE_BYTES_MAX", 200)
    started = start_log("json", "info", file, logger=NAME)
    if os.name == "posix":
        assert file.stat().st_mode & 0o777 == 0o600

    for number in range(50):
        log.info("record %d", number)
    started.stop()

    assert len(list(file.parent.iterdir())) == FILES_MAX + 1


def test_a_file_that_cannot_be_written_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LogFileError, match="choose another --log-file"):
        start_log("text", "info", tmp_path / "nowhere" / "node.log", logger=NAME)


def test_nobody_waits_for_a_reader_that_does_not_read_and_what_was_dropped_is_counted(monkeypatch) -> None:
    monkeypatch.setattr(module, "QUEUE_RECORDS_MAX", 5)
    gate, held = threading.Event(), threading.Event()

    class Stuck(io.StringIO):
        def write(self, text: str) -> int:
            held.set()
            gate.wait(10)
            return super().write(text)

    stuck = Stuck()
    monkeypatch.setattr(sys, "stderr", stuck)
    started = start_log("text", "info", logger=NAME)
    log.info("first")
    assert held.wait(10)

    for number in range(20):  # would hang here if the writer were waited for
        log.info("record %d", number)
    gate.set()
    while started._handler._waiting.qsize():
        gate.wait(0.001)
    log.info("last")
    started.stop()

    text = stuck.getvalue()
    assert "record 4" in text and "record 5 " not in text
    assert "15 records before this one were dropped" in text and "last" in text
