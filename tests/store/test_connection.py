"""Settings of every connection, and what a refusal of SQLite becomes."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from relaymesh.errors import RelayMeshError, RootError, StoreError
from relaymesh.store.connection import BUSY_TIMEOUT_MS, Durability, connect, write_transaction
from relaymesh.store.error import (
    PragmaMismatchError,
    RootCorruptError,
    RootReadOnlyError,
    StoreBusyError,
    StoreDefectError,
    StoreFullError,
    StoreIOError,
    translate,
)
from relaymesh.store.root import DATABASE
from relaymesh.store.store import Store
from tests.store.bench import NOON, Bench

PRAGMAS = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "temp_store")


def settings_of(conn: sqlite3.Connection) -> list[object]:
    return [conn.execute(f"PRAGMA {pragma}").fetchone()[0] for pragma in PRAGMAS]


@pytest.mark.parametrize(("durability", "synchronous"), [(Durability.FULL, 2), (Durability.FAST, 1)])
def test_every_connection_has_every_setting(tmp_path: Path, durability: Durability, synchronous: int) -> None:
    stores = [Store.open(tmp_path / "root", now_ms=NOON, durability=durability) for _ in range(3)]

    for store in stores:
        assert settings_of(store.conn) == ["wal", synchronous, 1, BUSY_TIMEOUT_MS, 2]
        store.close()


def test_full_durability_is_the_default(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "root", now_ms=NOON)

    assert settings_of(store.conn)[1] == 2
    store.close()


def test_a_setting_that_sqlite_does_not_take_stops_the_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What a file system without shared memory does: the journal stays what it was, and nobody is told.
    class Deaf(sqlite3.Connection):
        def execute(self, sql: str, *values: object) -> sqlite3.Cursor:  # type: ignore[override]
            return super().execute("SELECT 'delete'" if sql == "PRAGMA journal_mode" else sql, *values)

    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: real(*args, factory=Deaf, **options))

    with pytest.raises(PragmaMismatchError) as caught:
        connect(tmp_path / "some.db")

    assert (caught.value.pragma, caught.value.wanted, caught.value.found) == ("journal_mode", "wal", "delete")


def test_a_foreign_key_really_holds(bench: Bench) -> None:
    with pytest.raises(StoreDefectError), bench.store.write():
        bench.store.conn.execute(
            "INSERT INTO steps(step_id, namespace, task_id, agent_id, status, created_at_ms, updated_at_ms)"
            " VALUES ('s', 'default', 'nobody', 'echo', 'PENDING', 1, 1)"
        )


def test_a_writer_that_waits_too_long_is_told_so_and_nothing_is_stored(bench: Bench) -> None:
    other = connect(bench.root / DATABASE, durability=Durability.FAST)
    other.execute("BEGIN IMMEDIATE")
    bench.store.conn.execute("PRAGMA busy_timeout=30")

    with (
        pytest.raises(StoreBusyError) as caught,
        write_transaction(bench.store.conn, bench.root / DATABASE, wait_ms_max=60),
    ):
        bench.store.add_counter("x", 1)

    assert caught.value.waited_ms >= 60
    assert str(caught.value.waited_ms) in str(caught.value)
    other.execute("ROLLBACK")
    other.close()
    assert bench.rows("SELECT * FROM counters") == []


def test_an_unknown_wait_is_not_called_a_wait_of_0_ms(bench: Bench) -> None:
    other = connect(bench.root / DATABASE, durability=Durability.FAST)
    other.execute("BEGIN IMMEDIATE")
    bench.store.conn.execute("PRAGMA busy_timeout=0")
    try:
        bench.store.conn.execute("INSERT INTO counters(name, value) VALUES ('x', 1)")
    except sqlite3.OperationalError as busy:
        error = translate(busy, "r")
    other.execute("ROLLBACK")
    other.close()

    assert isinstance(error, StoreBusyError)
    assert str(error).startswith("another process holds the database (is one of them stopped?): ")


def test_a_writer_waits_beyond_one_busy_timeout(bench: Bench) -> None:
    other = connect(bench.root / DATABASE, durability=Durability.FAST)
    other.execute("BEGIN IMMEDIATE")
    bench.store.conn.execute("PRAGMA busy_timeout=10")
    held = threading.Timer(0.1, lambda: other.execute("COMMIT"))
    held.start()

    with bench.store.write():
        bench.store.add_counter("x", 1)

    held.join()
    other.close()
    assert bench.rows("SELECT value FROM counters") == [{"value": 1}]


def fill_up(bench: Bench) -> None:
    """Let the database not grow any more, as on a full disk."""
    (pages,) = bench.store.conn.execute("PRAGMA page_count").fetchone()
    bench.store.conn.execute(f"PRAGMA max_page_count={pages}")


def test_a_full_disk_changes_nothing_and_work_goes_on_when_there_is_room_again(bench: Bench) -> None:
    step_id = bench.one(payload="before")
    (lease,) = bench.claim()
    fill_up(bench)
    before = bench.rows("SELECT * FROM steps"), bench.rows("SELECT * FROM tasks")

    with pytest.raises(StoreFullError) as caught:
        bench.submit(*(bench.new_task(payload="x" * 60_000) for _ in range(20)))
    with pytest.raises(StoreFullError):
        bench.succeed(lease, "y" * 60_000)

    assert not bench.store.conn.in_transaction
    assert (bench.rows("SELECT * FROM steps"), bench.rows("SELECT * FROM tasks")) == before
    assert "nothing was stored" in str(caught.value)
    bench.store.conn.execute("PRAGMA max_page_count=1000000")
    bench.succeed(lease, "y" * 60_000)
    assert bench.task_of(step_id)["status"] == "SUCCESS"


def test_an_error_in_the_middle_of_a_transaction_leaves_nothing_of_it(bench: Bench) -> None:
    class Surprise(Exception):
        pass

    with pytest.raises(Surprise), bench.store.write():
        bench.store.submit([bench.new_task()], now_ms=NOON)
        raise Surprise

    assert bench.rows("SELECT * FROM tasks") == bench.rows("SELECT * FROM steps") == []
    bench.one()


def test_a_batch_with_one_impossible_task_stores_none_of_it(bench: Bench) -> None:
    good, bad = bench.new_task(), bench.new_task()
    twice = bench.new_task()

    with pytest.raises(StoreError):
        bench.submit(good, bad, twice, twice.__class__(bad.task_id, "another key", bad.trace_id, twice.steps))

    assert bench.rows("SELECT * FROM tasks") == []


def raw(name: str, text: str = "something") -> sqlite3.Error:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("name", "kind", "code"),
    [
        ("SQLITE_BUSY", StoreBusyError, "store_busy"),
        ("SQLITE_BUSY_SNAPSHOT", StoreBusyError, "store_busy"),
        ("SQLITE_LOCKED", StoreBusyError, "store_busy"),
        ("SQLITE_FULL", StoreFullError, "store_full"),
        ("SQLITE_IOERR_WRITE", StoreIOError, "store_io"),
        ("SQLITE_IOERR_FSYNC", StoreIOError, "store_io"),
        ("SQLITE_PROTOCOL", StoreIOError, "store_io"),
        ("SQLITE_READONLY", RootReadOnlyError, "root_read_only"),
        ("SQLITE_READONLY_DIRECTORY", RootReadOnlyError, "root_read_only"),
        ("SQLITE_CANTOPEN", RootReadOnlyError, "root_read_only"),
        ("SQLITE_CORRUPT", RootCorruptError, "root_corrupt"),
        ("SQLITE_NOTADB", RootCorruptError, "root_corrupt"),
        ("SQLITE_CONSTRAINT_FOREIGNKEY", StoreDefectError, "store_defect"),
    ],
)
def test_every_refusal_of_sqlite_has_a_code_and_one_sentence(name: str, kind: type[RelayMeshError], code: str) -> None:
    error = translate(raw(name), "some/relaymesh.db")

    assert type(error) is kind
    assert error.code == code
    assert isinstance(error, StoreError | RootError)
    assert "\n" not in str(error) and str(error)[0].islower()


def test_a_sentence_about_a_refusal_is_bounded(bench: Bench) -> None:
    assert len(str(translate(raw("SQLITE_ERROR", "x" * 10_000), "p"))) < 400
