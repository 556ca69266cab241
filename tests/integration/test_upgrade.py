"""Databases of every released schema: they open, work, can be taken back where that is promised, and survive a kill."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relaymesh.client import Client
from relaymesh.node import NodeOptions, run_once
from relaymesh.store.connection import connect
from relaymesh.store.error import SchemaTooNewError
from relaymesh.store.migration import migrate, schema_number
from relaymesh.store.presence import take_presence
from relaymesh.store.restore import RootInUseError
from relaymesh.store.rollback import NotReversibleError, UnknownMigrationError, roll_back
from relaymesh.store.root import DATABASE, create_layout
from relaymesh.store.schema import INCLUDED, MIGRATIONS, SCHEMA_VERSION, Migration
from tests.integration.killing import kill_at_statement

FIXTURES = Path(__file__).parent.parent / "fixtures"
RELEASED = sorted(int(path.stem.removeprefix("schema-")) for path in FIXTURES.glob("schema-*.json"))


def unpack(number: int, root: Path) -> dict[str, Any]:
    """Lay out the fixture of a schema; return what must be read back from it."""
    create_layout(root)
    with tarfile.open(FIXTURES / f"schema-{number}.tar.gz") as archive:
        archive.extractall(root, filter="data")
    facts: dict[str, Any] = json.loads((FIXTURES / f"schema-{number}.json").read_text())
    conn = sqlite3.connect(root / DATABASE)
    (facts["at_ms"],) = conn.execute("SELECT max(updated_at_ms) FROM tasks").fetchone()
    conn.close()
    return facts


def schema_of(root: Path) -> dict[str, str]:
    """Return the statements that made what is in a database, in any order."""
    conn = sqlite3.connect(root / DATABASE)
    found = dict(conn.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall())
    conn.close()
    return found


def made_anew(folder: Path, migrations: int) -> dict[str, str]:
    """Return the schema of an empty root after so many migrations."""
    create_layout(folder)
    conn = connect(folder / DATABASE)
    migrate(conn, folder / DATABASE, 0, MIGRATIONS[:migrations])
    conn.close()
    return schema_of(folder)


def test_each_schema_up_to_the_last_but_one_has_a_fixture() -> None:
    assert RELEASED[:2] == [1, 2]
    assert set(range(1, SCHEMA_VERSION)) <= set(RELEASED)


@pytest.mark.parametrize("number", RELEASED)
def test_an_old_database_opens_and_has_the_schema_of_a_new_one(number: int, tmp_path: Path) -> None:
    facts = unpack(number, tmp_path / "root")

    with Client(tmp_path / "root", now_ms=lambda: facts["at_ms"]) as client:
        client.stats()
        versions = [row.version for row in client.schema_migrations()]

    assert schema_of(tmp_path / "root") == made_anew(tmp_path / "new", SCHEMA_VERSION)
    parts = [name for names in INCLUDED.values() for name in names]
    assert [version for version in versions[::-1] if version not in parts] == [one.version for one in MIGRATIONS]
    assert versions[-3:] == [MIGRATIONS[0].version, *parts]


@pytest.mark.parametrize("number", RELEASED)
def test_identity_keys_states_and_payloads_of_an_old_database_are_read_back(number: int, tmp_path: Path) -> None:
    facts = unpack(number, tmp_path / "root")

    with Client(tmp_path / "root", now_ms=lambda: facts["at_ms"]) as client:
        assert dict(client.query("SELECT task_id, status FROM tasks")) == facts["statuses"]
        assert dict(client.query("SELECT step_id, status FROM steps")) == facts["steps"]
        assert dict(client.query("SELECT node_id, generation FROM mesh_nodes")) == facts["nodes"]
        assert str(client.stats().cluster_epoch) == facts["cluster_epoch"]
        for key, task_id in facts["tasks"].items():
            again = client.submit("echo", "something else", idempotency_key=key)
            assert (again.task_id, again.deduplicated) == (task_id, True)
        assert "x" * 70_000 in (client.output(facts["tasks"]["key-long"]) or "")
        assert '"2"' in (client.output(facts["tasks"]["key-flow"], "b") or "")


@pytest.mark.parametrize("number", RELEASED)
def test_work_goes_on_where_the_old_release_left_it(number: int, tmp_path: Path) -> None:
    facts = unpack(number, tmp_path / "root")

    outcome = run_once(NodeOptions(root=tmp_path / "root", node_id="node-old"))

    assert outcome.task_id == facts["tasks"]["key-waiting"]
    with Client(tmp_path / "root") as client:
        assert client.task(facts["tasks"]["key-waiting"]).status == "SUCCESS"
        assert client.replay(facts["tasks"]["key-broken"]).replayed
        assert dict(client.query("SELECT node_id, generation FROM mesh_nodes"))["node-old"] > facts["nodes"]["node-old"]


def test_a_later_schema_is_refused_in_one_sentence(tmp_path: Path) -> None:
    unpack(RELEASED[-1], tmp_path / "root")
    conn = sqlite3.connect(tmp_path / "root" / DATABASE)
    conn.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    conn.close()

    with Client(tmp_path / "root") as client, pytest.raises(SchemaTooNewError) as caught:
        client.stats()

    assert "\n" not in str(caught.value) and "upgrade RelayMesh" in str(caught.value)


# -- back ------------------------------------------------------------------------------------------------------------


def open_at(number: int, root: Path) -> None:
    """Bring a root to this schema."""
    conn = connect(root / DATABASE)
    migrate(conn, root / DATABASE, 0, MIGRATIONS[:number])
    conn.close()


@pytest.mark.parametrize("migration", [m for m in MIGRATIONS if m.down], ids=lambda migration: migration.version)
def test_a_migration_with_a_way_back_leaves_the_schema_before_it_and_can_be_applied_again(
    migration: Migration, tmp_path: Path
) -> None:
    facts = unpack(1, tmp_path / "root")
    open_at(migration.number, tmp_path / "root")

    outcome = roll_back(tmp_path / "root", migration.version)

    assert outcome.statements >= 1 and outcome.removed_migration_row
    assert schema_of(tmp_path / "root") == made_anew(tmp_path / "before", migration.number - 1)
    with Client(tmp_path / "root", now_ms=lambda: facts["at_ms"]) as client:
        assert dict(client.query("SELECT task_id, status FROM tasks")) == facts["statuses"]
        assert migration.version in [row.version for row in client.schema_migrations()]


@pytest.mark.parametrize("migration", [m for m in MIGRATIONS if not m.down], ids=lambda migration: migration.version)
def test_a_migration_without_a_way_back_is_refused_and_nothing_changes(migration: Migration, tmp_path: Path) -> None:
    open_at_root = tmp_path / "root"
    create_layout(open_at_root)
    open_at(migration.number, open_at_root)
    before = schema_of(open_at_root)

    with pytest.raises(NotReversibleError) as caught:
        roll_back(open_at_root, migration.version)

    assert "import a snapshot" in str(caught.value)
    assert schema_of(open_at_root) == before


def test_only_the_newest_migration_can_be_taken_back_and_one_that_is_not_there_is_told(tmp_path: Path) -> None:
    unpack(1, tmp_path / "root")
    open_at(SCHEMA_VERSION, tmp_path / "root")

    with pytest.raises(NotReversibleError) as caught:
        roll_back(tmp_path / "root", MIGRATIONS[-2].version)
    assert MIGRATIONS[-1].version in str(caught.value)
    with pytest.raises(UnknownMigrationError):
        roll_back(tmp_path / "root", "20990101_001_none")
    with pytest.raises(NotReversibleError):  # a name that others know for a part of the first one
        roll_back(tmp_path / "root", "20260226_001_namespace_and_principal")

    unpack(1, tmp_path / "other")
    outcome = roll_back(tmp_path / "other", MIGRATIONS[-1].version)
    assert (outcome.statements, outcome.removed_migration_row) == (0, False)


def test_no_migration_is_taken_back_under_a_living_node(tmp_path: Path) -> None:
    unpack(1, tmp_path / "root")
    open_at(SCHEMA_VERSION, tmp_path / "root")
    presence = take_presence(tmp_path / "root" / "run", "node-7")
    try:
        with pytest.raises(RootInUseError):
            roll_back(tmp_path / "root", MIGRATIONS[-1].version)
    finally:
        presence.release()


# -- killed ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, *RELEASED])
def test_a_migration_that_is_killed_at_any_statement_is_taken_up_by_the_next(number: int, tmp_path: Path) -> None:
    root = tmp_path / "root"
    facts: dict[str, Any] = {"statuses": {}}

    def upgrade(on_statement: Callable[[str], None]) -> None:
        conn = connect(root / DATABASE)
        conn.set_trace_callback(on_statement)
        migrate(conn, root / DATABASE, 0)
        conn.close()

    statement, ended = 1, False
    while not ended:
        shutil.rmtree(root, ignore_errors=True)
        create_layout(root)
        if number:
            facts = unpack(number, root)
        ended = kill_at_statement(statement, upgrade)

        conn = connect(root / DATABASE)
        found = schema_number(conn)
        assert number <= found <= SCHEMA_VERSION
        if found:
            rows = conn.execute("SELECT count(*) FROM schema_migrations").fetchone()[0]
            assert rows == found, "a migration is applied with its row, or not at all"
        assert migrate(conn, root / DATABASE, 0) == SCHEMA_VERSION - found
        assert dict(conn.execute("SELECT task_id, status FROM tasks").fetchall()) == facts["statuses"]
        assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        conn.close()
        statement += 1
    assert schema_of(root) == made_anew(tmp_path / "new", SCHEMA_VERSION)
    assert statement > (40 if number == 0 else 3)


@pytest.mark.parametrize(
    "row",
    [
        "INSERT INTO schedules(schedule_id, name, kind, payload, cursor_ms, created_at_ms, updated_at_ms)"
        " VALUES ('s', 's', 'every', '', 0, 0, 0)",
        "INSERT INTO discards VALUES ('t', 'why', 'who', 1, 0)",
    ],
    ids=["schedules", "discards"],
)
def test_a_migration_is_not_taken_back_while_there_are_rows_that_it_would_lose(row: str, tmp_path: Path) -> None:
    root, version = tmp_path / "root", "20261128_003_schedules"
    create_layout(root)
    open_at(3, root)
    conn = connect(root / DATABASE)
    conn.execute(row)
    conn.close()
    before = schema_of(root)

    with pytest.raises(NotReversibleError) as caught:
        roll_back(root, version)

    assert "would lose rows of" in str(caught.value) and "nothing was changed" in str(caught.value)
    assert schema_of(root) == before
    conn = connect(root / DATABASE)
    conn.execute("DELETE FROM schedules")
    conn.execute("DELETE FROM discards")
    conn.close()
    assert roll_back(root, version).removed_migration_row
