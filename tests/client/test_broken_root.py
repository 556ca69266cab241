"""A root that is broken is not taken for a new one, and what is said about it leads out."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from shutil import rmtree

import pytest

from relaymesh.client import Client
from relaymesh.evidence import AuditUnreadableError
from relaymesh.store.database import Database
from relaymesh.store.error import DatabaseGoneError, RootCorruptError, RootMissingError, RootMovedError
from relaymesh.watch import wait_for_end


def used(root: Path) -> Path:
    """A root in which one task was handed in; return its database."""
    with Client(root) as client:
        client.submit("echo", "hello")
    for name in ("relaymesh.db-wal", "relaymesh.db-shm"):
        (root / name).unlink(missing_ok=True)
    return root / "relaymesh.db"


@pytest.mark.parametrize("emptied", [False, True])
def test_a_root_whose_database_is_gone_or_empty_is_refused_by_who_reads_and_who_writes(
    tmp_path: Path, emptied: bool
) -> None:
    database = used(tmp_path)
    if emptied:
        database.write_bytes(b"")
    else:
        database.unlink()

    with Client(tmp_path) as client:
        with pytest.raises(DatabaseGoneError, match="snapshot-import"):
            client.submit("echo", "again")
        with pytest.raises(DatabaseGoneError):
            client.tasks()
        assert any("is gone or empty" in problem for problem in client.health().problems)

    assert not database.exists() or database.stat().st_size == 0


def test_a_snapshot_brings_a_lost_database_back(tmp_path: Path) -> None:
    root, copy = tmp_path / "root", tmp_path / "copy"
    with Client(root) as client:
        task = client.submit("echo", "hello")
        client.snapshot_export(str(copy))
    (root / "relaymesh.db").unlink()

    with Client(root) as client:
        client.snapshot_import(str(copy))
        assert [row.task_id for row in client.tasks()] == [task.task_id]


def test_a_root_that_had_settings_only_gets_its_database(tmp_path: Path) -> None:
    with Client(tmp_path) as client:
        client.set_setting("maxAttempts", "4")

        client.init()

    assert (tmp_path / "relaymesh.db").stat().st_size > 0


def test_a_missing_namespace_is_made_by_its_name(tmp_path: Path) -> None:
    with Client(tmp_path) as client:
        client.init()

    with Client(tmp_path, namespace="other") as client, pytest.raises(RootMissingError) as raised:
        client.tasks()

    assert f"--root {tmp_path} --namespace other init" in str(raised.value)


def test_init_makes_a_folder_that_was_lost(tmp_path: Path) -> None:
    used(tmp_path)
    (tmp_path / "retry").rmdir()

    with Client(tmp_path) as client:
        client.init()

    assert (tmp_path / "retry").is_dir()


def test_settings_of_a_root_that_is_not_there_cannot_be_loaded_again(tmp_path: Path) -> None:
    with Client(tmp_path / "misspelt") as client, pytest.raises(RootMissingError):
        client.reload_settings()

    assert not (tmp_path / "misspelt").exists()


@pytest.mark.skipif("sys.platform == 'win32'", reason="modes say nothing there")
def test_health_names_a_key_that_others_may_read(tmp_path: Path) -> None:
    used(tmp_path)
    key = tmp_path / "security" / "audit-signing.key"

    key.chmod(0o644)
    with Client(tmp_path) as client:
        told = client.health()
        key.chmod(0o600)
        mended = client.health()

    assert told.problems == ("security/audit-signing.key is open to others than its owner (mode 644): set it to 600",)
    assert (told.ready, told.live, mended.ready) == (False, True, True)


def test_a_broken_audit_key_is_told_in_its_own_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    used(tmp_path)
    (tmp_path / "security" / "audit-signing.key").write_text("junk", encoding="ascii")

    with Client(tmp_path) as client:
        client.submit("echo", "again")
        told = client.health()

    assert "holds no key of 32 bytes as base64" in caplog.text
    assert any("holds no key of 32 bytes as base64" in problem for problem in told.problems)


def test_an_audit_log_whose_folder_is_gone_is_not_a_missing_root(tmp_path: Path) -> None:
    used(tmp_path)
    rmtree(tmp_path / "audit")

    with Client(tmp_path) as client, pytest.raises(AuditUnreadableError, match="its folder is gone"):
        client.audit_verify()


@pytest.mark.parametrize("name", ["scripts.json", "retry-policies.json"])
def test_health_names_a_file_of_agents_that_keeps_submits_out(tmp_path: Path, name: str) -> None:
    used(tmp_path)
    (tmp_path / "agents" / name).write_text("{", encoding="ascii")

    with Client(tmp_path) as client:
        told = client.health()

    assert len(told.problems) == 1 and name in told.problems[0]
    assert (told.ready, told.live) == (False, True)


def test_a_snapshot_of_a_damaged_database_names_that_one_and_not_the_copy(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with Client(root) as client:
        for number in range(200):
            client.submit("echo", f"hello {number}")
    database = root / "relaymesh.db"
    page = database.read_bytes().index(b"hello 77") // 4096  # of rows that nobody reads when a root is opened
    with open(database, "r+b") as file:
        file.seek(page * 4096)
        file.write(b"\xff" * 4096)

    with Client(root) as client, pytest.raises(RootCorruptError) as raised:
        client.snapshot_export(str(tmp_path / "copy"))

    assert str(database) in str(raised.value)
    assert not (tmp_path / "copy" / "manifest.json").exists()


def test_health_of_a_root_that_may_not_be_entered_is_one_sentence(tmp_path: Path, monkeypatch) -> None:
    used(tmp_path)
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path and allowed(path, mode))

    with Client(tmp_path) as client:
        told = client.health()

    assert told.problems == (f"the data root {tmp_path} cannot be entered: run this as the user of its nodes",)
    assert (told.ok, told.db_ok) == (False, False)


posix_only = pytest.mark.skipif(sys.platform == "win32", reason="a folder with an open file cannot be removed there")


@posix_only
def test_a_client_goes_on_with_the_root_that_is_there_after_its_own_was_removed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with Client(root) as client:
        client.submit("echo", "lost with the root")
        rmtree(root)

        with pytest.raises(RootMissingError):
            client.tasks()
        task = client.submit("echo", "of the new root")

        with Client(root) as other:
            assert [row.task_id for row in other.tasks()] == [task.task_id]


@posix_only
def test_nothing_is_written_to_a_database_that_is_not_at_its_path(tmp_path: Path) -> None:
    database = used(tmp_path)
    store = Database.open(tmp_path, now_ms=0)
    database.rename(tmp_path / "elsewhere")
    written = False

    with pytest.raises(RootMovedError, match="removed, moved or replaced"), store.write():
        written = True

    assert not written
    store.close()


@posix_only
def test_who_waits_for_a_task_of_a_root_that_was_removed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(tmp_path / "root") as client:
        task = client.submit("echo", "never run")
    store = Database.open(tmp_path / "root", now_ms=0)
    clock = iter(range(1_000))
    monkeypatch.setattr("relaymesh.watch.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("relaymesh.watch.time.sleep", lambda _: None)
    rmtree(tmp_path / "root")

    with pytest.raises(RootMovedError):
        wait_for_end(store, task.task_id, 600_000)

    store.close()
