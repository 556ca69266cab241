"""docs/store.md lists every table, view, column and index of a fresh database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaymesh.store.database import Database
from tests.docs.page import REPO, rows, section

PAGE = REPO / "docs" / "store.md"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    database = Database.open(Path(tmp_path_factory.mktemp("root")), now_ms=1)
    yield database.conn
    database.close()


def names(conn: sqlite3.Connection, *kinds: str) -> list[str]:
    marks = ",".join("?" * len(kinds))
    found = conn.execute(
        f"SELECT name FROM sqlite_master WHERE type IN ({marks}) AND name NOT LIKE 'sqlite_%' ORDER BY name", kinds
    )
    return [name for (name,) in found]


def test_every_table_and_view_has_a_section_with_its_columns(fresh: sqlite3.Connection) -> None:
    for name in names(fresh, "table", "view"):
        columns = [row[1] for row in fresh.execute(f"PRAGMA table_info({name})")]
        on_page = [cells[0].strip("`") for cells in rows(section(PAGE, name), 3)]

        assert on_page == columns, name


def test_the_columns_that_the_page_calls_known_are_enough_for_a_row(fresh: sqlite3.Connection) -> None:
    values = {"task_id": "t", "step_id": "s", "status": "PENDING", "node_id": "n", "agent_id": "echo"}
    fresh.execute("BEGIN")
    for table in ("tasks", "steps", "mesh_nodes"):
        known = [cells[0].strip("`") for cells in rows(section(PAGE, table), 3) if cells[1] == "known"]
        marks = ",".join("?" * len(known))
        fresh.execute(f"INSERT INTO {table}({','.join(known)}) VALUES ({marks})", [values.get(c, 1) for c in known])
    fresh.execute("ROLLBACK")


def test_every_index_is_on_the_page(fresh: sqlite3.Connection) -> None:
    on_page = [cells[0].strip("`") for cells in rows(section(PAGE, "Indexes"), 2)]

    assert sorted(on_page) == names(fresh, "index")


def test_the_settings_that_are_read_back_are_on_the_page(fresh: sqlite3.Connection) -> None:
    text = section(PAGE, "Settings of a connection")

    for pragma in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "temp_store"):
        assert f"`{pragma}`" in text
    assert f"{fresh.execute('PRAGMA busy_timeout').fetchone()[0]:,} ms" in text
    assert f"{fresh.execute('PRAGMA wal_autocheckpoint').fetchone()[0]:,} pages" in text
