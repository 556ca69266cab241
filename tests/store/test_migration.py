"""Bringing a database to the schema of this release, or refusing it."""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from relaymesh.errors import RootError
from relaymesh.store.connection import connect
from relaymesh.store.error import RootCorruptError, RootMissingError, RootReadOnlyError, SchemaTooNewError
from relaymesh.store.migration import migrate, schema_number
from relaymesh.store.root import DATABASE, RootIsFileError, create_layout
from relaymesh.store.schema import MIGRATIONS, SCHEMA_VERSION, Migration
from relaymesh.store.store import Store
from tests.store.bench import NOON, Bench


class Interrupted(BaseException):
    """A process that ends between two statements."""


class Interrupting:
    """A connection that dies after so many statements."""

    def __init__(self, conn: sqlite3.Connection, after: int) -> None:
        self._conn = conn
        self._left = after

    def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
        # A rollback is what SQLite does by itself when the process is gone.
        if sql != "ROLLBACK":
            if self._left == 0:
                raise Interrupted
            self._left -= 1
        return self._conn.execute(sql, *values)

    def __getattr__(self, name: str) -> object:
        return getattr(self._conn, name)


def tables(root: Path) -> set[str]:
    with sqlite3.connect(root / DATABASE) as conn:
        found = {row[0] for row in conn.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}
    conn.close()
    return found


def test_a_fresh_root_gets_every_table_of_the_reference_and_its_folders(tmp_path: Path) -> None:
    Store.open(tmp_path / "root", now_ms=NOON).close()

    wanted = {"tasks", "steps", "step_dependencies", "messages", "idempotency", "mesh_nodes", "lease_conflicts"}
    assert wanted | {"cluster_state", "schema_migrations"} <= tables(tmp_path / "root")
    for folder in ("meta", "payload", "processing", "inbox/high", "inbox/normal", "inbox/low", "done", "dead", "retry"):
        assert (tmp_path / "root" / folder).is_dir()


@pytest.mark.parametrize("migration", MIGRATIONS, ids=lambda m: m.version)
def test_the_checksum_that_is_written_down_is_that_of_the_statements(migration: Migration) -> None:
    assert migration.checksum == hashlib.sha256(migration.up.encode()).hexdigest()


def test_every_migration_leaves_its_checksum_and_the_cluster_epoch_starts_at_one(tmp_path: Path) -> None:
    Store.open(tmp_path / "root", now_ms=NOON).close()
    bench = Bench(tmp_path / "root")

    rows = bench.rows("SELECT version, checksum, applied_at_ms, success FROM schema_migrations")

    assert rows == [
        {"version": m.version, "checksum": m.checksum, "applied_at_ms": NOON, "success": 1} for m in MIGRATIONS
    ]
    (state,) = bench.rows("SELECT state_value, version FROM cluster_state WHERE state_key='cluster_epoch'")
    assert state == {"state_value": "1", "version": 1}
    bench.close()


def test_opening_again_runs_nothing_and_keeps_everything(tmp_path: Path) -> None:
    first = Bench(tmp_path / "root")
    step_id = first.one()
    first.close()

    conn = connect(tmp_path / "root" / DATABASE)
    ran = migrate(conn, tmp_path / "root" / DATABASE, NOON)
    conn.close()

    assert ran == 0
    second = Bench(tmp_path / "root")
    assert second.step(step_id)["status"] == "PENDING"
    second.close()


def test_a_process_that_dies_at_any_statement_leaves_all_or_nothing(tmp_path: Path) -> None:
    after, done = 0, False
    while not done:
        path = tmp_path / f"{after}.db"
        conn = connect(path)
        try:
            migrate(Interrupting(conn, after), path, NOON)  # type: ignore[arg-type]
            done = True
        except Interrupted:
            pass
        conn.close()

        conn = connect(path)
        number = schema_number(conn)
        found = conn.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        assert (number > 0) == (found > 0)
        assert migrate(conn, path, NOON) == SCHEMA_VERSION - number
        assert schema_number(conn) == SCHEMA_VERSION
        conn.close()
        after += 1

    assert after > 10


def test_a_later_migration_is_applied_once_and_kept_apart(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "root")
    more = "ALTER TABLE steps ADD COLUMN more TEXT;\n"
    later = Migration(SCHEMA_VERSION + 1, "20990101_999_more", "more", "any", more)
    path = tmp_path / "root" / DATABASE

    assert migrate(bench.store.conn, path, NOON, [*MIGRATIONS, later]) == 1
    assert migrate(bench.store.conn, path, NOON, [*MIGRATIONS, later]) == 0

    assert [row["version"] for row in bench.rows("SELECT version FROM schema_migrations ORDER BY version")][-1:] == [
        later.version
    ]
    bench.close()


def refusal(root: Path) -> RootError:
    """Return the error of opening, after checking that the file was left as it was and the sentence is one."""
    before = (root / DATABASE).read_bytes()
    with pytest.raises(RootError) as caught:
        Store.open(root, now_ms=NOON)
    assert (root / DATABASE).read_bytes() == before
    sentence = str(caught.value)
    assert "\n" not in sentence and "Traceback" not in sentence and str(root) in sentence
    return caught.value


def write_database(root: Path, script: str) -> None:
    root.mkdir()
    conn = sqlite3.connect(root / DATABASE)
    conn.executescript(script)
    conn.close()


def test_a_root_of_a_later_release_is_refused_in_one_sentence_and_left_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "root")
    bench.store.conn.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    bench.store.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    bench.close()

    error = refusal(tmp_path / "root")

    assert isinstance(error, SchemaTooNewError)
    assert (error.found, error.known) == (SCHEMA_VERSION + 1, SCHEMA_VERSION)


@pytest.mark.parametrize("mode", ["wal", "delete"])
@pytest.mark.parametrize("their_version", [0, SCHEMA_VERSION, SCHEMA_VERSION + 7])
def test_a_database_of_another_program_is_refused_whatever_version_it_says_and_left_alone(
    tmp_path: Path, their_version: int, mode: str
) -> None:
    write_database(
        tmp_path / "root",
        f"PRAGMA journal_mode={mode}; CREATE TABLE notes(text); PRAGMA user_version={their_version};",
    )

    error = refusal(tmp_path / "root")

    assert isinstance(error, RootCorruptError)
    assert "another program" in str(error)


def test_a_migration_that_was_applied_in_another_form_is_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "root")
    bench.store.conn.execute("UPDATE schema_migrations SET checksum='0'")
    bench.store.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    bench.close()

    error = refusal(tmp_path / "root")

    assert isinstance(error, RootCorruptError)
    assert MIGRATIONS[0].version in str(error)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / DATABASE).write_bytes(b"this is no database at all\n" * 200)

    assert isinstance(refusal(root), RootCorruptError)


def test_a_truncated_database_never_answers_with_a_raw_error(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "root")
    for _ in range(200):
        bench.one(payload="x" * 2_000)
    bench.store.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    bench.close()
    path = tmp_path / "root" / DATABASE
    whole = path.read_bytes()

    refused = 0
    for size in range(0, len(whole), len(whole) // 12 + 1):
        path.write_bytes(whole[:size])
        for leftover in path.parent.glob(f"{DATABASE}-*"):
            leftover.unlink()
        try:
            store = Store.open(tmp_path / "root", now_ms=NOON)
            try:
                with store.reading():
                    store.conn.execute("SELECT count(*), sum(length(payload)) FROM steps").fetchone()
            finally:
                store.close()
        except RootCorruptError:
            refused += 1

    assert refused >= 8


def test_an_empty_file_becomes_a_root(tmp_path: Path) -> None:
    # A process that ended between making the file and its first commit leaves this.
    root = tmp_path / "root"
    root.mkdir()
    (root / DATABASE).touch()

    bench = Bench(root)

    assert bench.run_all() == 0
    bench.close()


def test_a_root_that_is_not_there_is_not_made_by_who_only_looks(tmp_path: Path) -> None:
    with pytest.raises(RootMissingError):
        Store.open(tmp_path / "root", now_ms=NOON, create=False)
    with pytest.raises(RootMissingError):
        Store.open(tmp_path / "root", now_ms=NOON, read_only=True)

    assert not (tmp_path / "root").exists()


def test_a_root_that_cannot_be_made_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    for root in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("n" * 300), tmp_path / ("n" * 5_000)):
        with pytest.raises((RootReadOnlyError, RootIsFileError)) as caught:
            Store.open(root, now_ms=NOON)
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value, RootIsFileError) == ("file" in root.parts[len(tmp_path.parts) :])


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that even root cannot write to")
def test_a_root_on_a_read_only_file_system_is_refused_in_one_sentence() -> None:
    with pytest.raises(RootReadOnlyError):
        Store.open(Path("/proc/self/relaymesh"), now_ms=NOON)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Lay down the power to write everywhere for a while, if we have it."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(sys.platform == "win32", reason="needs file modes")
def test_a_root_that_may_not_be_written_is_read_only_and_not_corrupt() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        root = Path(folder) / "root"
        Bench(root).close()
        (root / DATABASE).chmod(0o444)
        root.chmod(0o555)

        with as_nobody(), pytest.raises(RootReadOnlyError) as caught:
            store = Store.open(root, now_ms=NOON)
            with store.write():
                store.add_counter("x", 1)

        assert str(root) in str(caught.value)
        root.chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="needs file modes")
def test_a_root_in_a_folder_that_may_not_be_looked_into_is_refused_in_one_sentence() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o600)

        with as_nobody(), pytest.raises(RootReadOnlyError):
            Store.open(Path(folder) / "root", now_ms=NOON, create=False)

        Path(folder).chmod(0o700)


def test_who_opens_a_root_to_read_cannot_write_to_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "root")
    step_id = bench.one()

    reader = Store.open(tmp_path / "root", now_ms=NOON, read_only=True)

    assert reader.conn.execute("SELECT step_id FROM steps").fetchall() == [(step_id,)]
    with pytest.raises(RootReadOnlyError), reader.write():
        reader.add_counter("x", 1)
    reader.close()
    bench.close()


OPENER = """
import sys, time
from pathlib import Path
from relaymesh.store.store import Store
root, go = Path(sys.argv[1]), Path(sys.argv[2])
print("ready", flush=True)
while not go.exists():
    time.sleep(0.001)
for number in range(int(sys.argv[3])):
    Store.open(root / str(number), now_ms=1).close()
print("opened", flush=True)
"""


def test_processes_that_make_one_root_at_once_all_get_it(tmp_path: Path) -> None:
    roots, go = 12, tmp_path / "go"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER, str(tmp_path), str(go), str(roots)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"

    go.touch()
    ends = [process.communicate(timeout=60) for process in processes]

    assert [re.sub(r"\s+", " ", error)[-400:] for _, error in ends] == [""] * 4
    for number in range(roots):
        conn = connect(tmp_path / str(number) / DATABASE)
        assert conn.execute("SELECT count(*) FROM schema_migrations").fetchone() == (len(MIGRATIONS),)
        conn.close()


def test_a_root_that_others_make_at_the_same_moment_is_not_taken_for_a_file(tmp_path: Path) -> None:
    for number in range(60):
        together = threading.Barrier(6)

        def make(root: Path = tmp_path / str(number) / "root", together: threading.Barrier = together) -> None:
            together.wait()
            create_layout(root)

        with ThreadPoolExecutor(6) as pool:
            for made in [pool.submit(make) for _ in range(6)]:
                made.result()
