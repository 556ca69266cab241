"""The write-ahead log has its length before commits need it, and what lies behind its frames means nothing."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections import namedtuple
from pathlib import Path

import pytest

from relaymesh.store import log_file
from relaymesh.store.log_file import LOG_AHEAD_BYTES, LOG_KEPT_BYTES, log_bytes, make_room
from relaymesh.store.root import DATABASE
from relaymesh.store.store import Store
from tests.store.bench import NOON, Bench

Usage = namedtuple("Usage", "total used free")


def reopened(root: Path) -> Bench:
    return Bench(root, Store.open(root, now_ms=NOON))


def copy_as_after_a_crash(root: Path, to: Path) -> Path:
    """Copy database and log as a power cut would leave them: nobody closed, and there is no index of the log."""
    to.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(root / f"{DATABASE}{suffix}", to / f"{DATABASE}{suffix}")
    return to


def test_a_log_that_was_made_longer_keeps_every_commit_over_a_crash(bench: Bench, tmp_path: Path) -> None:
    bench.one(payload="before")
    bench.store.make_room_in_log()
    assert log_bytes(bench.root / DATABASE) == LOG_AHEAD_BYTES
    bench.one(payload="after")
    assert log_bytes(bench.root / DATABASE) == LOG_AHEAD_BYTES, "the commit went into the room that was made"

    crashed = copy_as_after_a_crash(bench.root, tmp_path / "crashed")

    conn = sqlite3.connect(crashed / DATABASE)
    assert conn.execute("SELECT payload FROM steps ORDER BY id").fetchall() == [("before",), ("after",)]
    assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    conn.close()


def test_a_log_without_a_frame_that_is_all_zeros_is_an_empty_log(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "root")
    bench.one(payload="kept")
    bench.store.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert log_bytes(bench.root / DATABASE) == 0
    bench.store.make_room_in_log()

    crashed = copy_as_after_a_crash(bench.root, tmp_path / "crashed")

    conn = sqlite3.connect(crashed / DATABASE)
    assert conn.execute("SELECT payload FROM steps").fetchall() == [("kept",)]
    conn.close()
    bench.one(payload="more")
    assert len(bench.rows("SELECT 1 FROM steps")) == 2
    bench.close()


def test_another_process_in_the_middle_of_a_commit_is_waited_for(bench: Bench) -> None:
    bench.one()
    other = sqlite3.connect(bench.root / DATABASE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    bench.store.conn.execute("PRAGMA busy_timeout=1")

    with pytest.raises(sqlite3.OperationalError, match="locked"):
        make_room(bench.store.conn, bench.root / DATABASE)

    assert log_bytes(bench.root / DATABASE) < LOG_AHEAD_BYTES
    other.execute("ROLLBACK")
    other.close()


def test_room_is_made_once(bench: Bench) -> None:
    bench.one()
    bench.store.make_room_in_log()
    changed_at = os.stat(bench.root / f"{DATABASE}-wal").st_mtime_ns

    bench.store.make_room_in_log()

    assert os.stat(bench.root / f"{DATABASE}-wal").st_mtime_ns == changed_at


def test_on_a_disk_that_is_nearly_full_no_room_is_made(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.one()
    before = log_bytes(bench.root / DATABASE)
    monkeypatch.setattr(log_file.shutil, "disk_usage", lambda _: Usage(1, 1, 1024))

    bench.store.make_room_in_log()

    assert log_bytes(bench.root / DATABASE) == before


def test_a_disk_that_fills_up_meanwhile_gets_back_what_was_written(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.one(payload="kept")
    before = log_bytes(bench.root / DATABASE)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log_file.os, "fsync", full)
    bench.store.make_room_in_log()
    monkeypatch.undo()

    assert log_bytes(bench.root / DATABASE) == before
    bench.one(payload="goes on")


def test_a_long_log_is_cut_when_nothing_goes_on_and_a_short_one_is_kept(bench: Bench) -> None:
    database = bench.root / DATABASE
    bench.store.conn.execute("PRAGMA wal_autocheckpoint=0")
    while log_bytes(database) <= LOG_KEPT_BYTES:
        bench.submit(*(bench.new_task(payload="x" * 60_000) for _ in range(100)))

    bench.store.checkpoint(idle=False)
    assert log_bytes(database) > LOG_KEPT_BYTES
    bench.store.checkpoint(idle=True)
    assert log_bytes(database) == LOG_AHEAD_BYTES
    bench.one()
    bench.store.checkpoint(idle=True)
    assert log_bytes(database) == LOG_AHEAD_BYTES
    assert len(bench.rows("SELECT 1 FROM steps")) % 100 == 1
