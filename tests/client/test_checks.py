"""What a status says about the root beside its queue."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

import pytest

from relaymesh import Client
from relaymesh.checks import with_checks
from relaymesh.status_view import StatusChecks
from relaymesh.store.root import DATABASE, GOSSIP_KEYS


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with Client(tmp_path / "data") as client:
        client.submit("echo", "x")
    return tmp_path / "data"


def told(root: Path) -> StatusChecks:
    with Client(root) as client:
        return client.checks()


def test_a_root_that_is_well_has_nothing_to_tell(root: Path) -> None:
    found = told(root)

    assert (found.problems, found.notes) == ((), ())


def test_what_health_finds_wrong_about_keys_folders_and_files_is_told(root: Path, tmp_path: Path) -> None:
    (root / GOSSIP_KEYS).write_text("no keys")
    (root / "agents").mkdir(exist_ok=True)
    (root / "agents" / "scripts.json").write_text("{")
    if sys.platform != "win32":
        (root / GOSSIP_KEYS).chmod(0o644)
        (root / "inbox" / "low").rename(tmp_path / "low")
        (root / "inbox" / "low").symlink_to(tmp_path / "low")

    with Client(root) as client:
        expected = client.health().problems
    found = told(root)

    assert sorted(found.problems) == sorted(expected)
    assert len(found.problems) == (4 if sys.platform != "win32" else 2)


def test_the_key_of_the_audit_log_that_is_gone_is_told(root: Path) -> None:
    with Client(root) as client:
        client.health()  # which remembers the key
    (root / "security" / "audit-signing.key").unlink()

    (problem,) = told(root).problems

    assert problem.startswith("the key that seals the audit log is gone")


def test_tasks_that_the_database_lost_are_a_note(root: Path) -> None:
    with sqlite3.connect(root / DATABASE) as conn:
        for table in ("steps", "tasks"):
            conn.execute(f"DELETE FROM {table}")
    conn.close()

    with Client(root) as client:
        expected = client.health().notes

    assert told(root).notes == expected
    assert len(expected) == 1


def test_looking_writes_nothing(root: Path) -> None:
    def content() -> dict[Path, bytes]:
        files = (path for path in root.rglob("*") if path.is_file())
        return {path: path.read_bytes() for path in files if not path.name.endswith("-shm")}

    before = content()

    told(root)

    assert content() == before


def test_a_status_takes_them_in_and_says_how_old_they_are(root: Path) -> None:
    with Client(root) as client:
        status = client.status()
    found = StatusChecks(status.checked_at_ms - 7_000, ("a key is broken",), ("files wait",))

    health = with_checks(status, found).health

    assert (health.ok, health.problems, health.notes) == (False, ("a key is broken",), ("files wait",))
    assert health.checks_age_ms == 7_000
    assert with_checks(status, None) == status
