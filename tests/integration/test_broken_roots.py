"""Ten ways to break a root, and the way out of each that docs/operations.md tells: what it says is typed here."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from relaymesh.audit import AuditTrail
from relaymesh.cli import main
from relaymesh.client import Client
from relaymesh.node import NodeOptions, run_once
from relaymesh.store.root import DATABASE
from relaymesh.store.store import Store

RUNBOOK = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
SYMPTOMS = RUNBOOK.split("| You see | Go to |")[1].split("\n\n")[0]
LONG = "x" * 100_000
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="links need a right there, and files stay open")


class Answer(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


class Root:
    """A root that was used, its snapshot, and an operator who types."""

    def __init__(self, path: Path) -> None:
        self.path, self.snapshot = path, path.with_name("today")
        with Client(path) as client:
            self.done = client.submit("echo", LONG).task_id
        assert run_once(NodeOptions(root=path)).processed
        with Client(path) as client:
            self.waiting = client.submit("echo", "waits").task_id
            client.snapshot_export(self.snapshot)
        self.database = path / DATABASE

    def type(self, *words: str) -> Answer:
        """Run a command, one that the runbook has."""
        command = words[0] if words[0] != "snapshot" else " ".join(words[:2])
        assert command in RUNBOOK, f"the runbook does not tell of `relaymesh {command}`"
        out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(["--root", str(self.path), *words])
        out.flush()
        text = out.buffer.getvalue().decode()  # type: ignore[attr-defined]
        assert "Traceback" not in err.getvalue() and "error[internal]" not in err.getvalue(), err.getvalue()
        return Answer(status, text, err.getvalue())

    def refused(self, code: str, *words: str) -> str:
        """Type what fails with a code that is a symptom of the runbook; return the sentence."""
        answer = self.type(*words)
        assert (answer.status, f"error[{code}]" in answer.err) == (1, True), answer
        assert f"`{code}`" in SYMPTOMS, f"{code} is no symptom in the runbook"
        return answer.err

    def problem(self, symptom: str) -> str:
        """Look at ``health``, which says what is wrong in words that the runbook has."""
        answer = self.type("health")
        (problem,) = (one for one in answer.document["problems"] if symptom in one)
        assert answer.status == 1
        assert symptom in SYMPTOMS, f"{symptom!r} is no symptom in the runbook"
        return str(problem)

    def is_well(self, *tasks: str) -> None:
        """``health`` ends with 0, and the work is there."""
        answer = self.type("health")
        assert (answer.status, answer.document["problems"]) == (0, [])
        assert set(tasks) <= {task["taskId"] for task in self.type("tasks", "--limit", "10").document}

    def restore(self) -> None:
        """As the runbook says: verify the snapshot, import it."""
        assert self.type("snapshot", "verify", str(self.snapshot)).status == 0
        assert self.type("snapshot-import", "--in", str(self.snapshot)).status == 0


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "root")


def flip(path: Path, at: int, count: int) -> None:
    data = bytearray(path.read_bytes())
    for place in range(at, at + count):
        data[place] ^= 0x5A
    path.write_bytes(data)


def test_a_database_that_was_cut_in_half_is_restored(root: Root) -> None:
    os.truncate(root.database, root.database.stat().st_size // 2)

    root.refused("root_corrupt", "tasks")
    root.problem("cannot be read (not a database or damaged)")
    root.restore()

    root.is_well(root.done, root.waiting)
    (kept,) = (root.path / "replaced").iterdir()
    root.path = kept  # the damaged root is kept, and its audit log tells of what came after the snapshot
    assert root.waiting in root.type("audit-query", "--action", "task.submit").out


def test_a_database_whose_middle_was_overwritten_is_told_and_never_replaces_a_good_snapshot(root: Root) -> None:
    size = root.database.stat().st_size
    flip(root.database, size // 2 // 4096 * 4096, 8192)

    root.problem("the database is damaged")
    root.refused("root_corrupt", "snapshot-export", "--out", str(root.snapshot))
    root.restore()

    root.is_well(root.done, root.waiting)


_DIE_WITH_A_LOG = """
import os, sys
from relaymesh.client import Client
client = Client(sys.argv[1])
print(client.submit("echo", "in the log only").task_id, flush=True)
os.kill(os.getpid(), 9)
"""


@posix_only
def test_a_removed_write_ahead_log_is_noted_with_the_tasks_that_were_in_it(root: Root) -> None:
    killed = subprocess.run([sys.executable, "-c", _DIE_WITH_A_LOG, str(root.path)], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL
    lost = killed.stdout.strip()
    (root.path / f"{DATABASE}-wal").unlink()
    (root.path / f"{DATABASE}-shm").unlink(missing_ok=True)

    (note,) = root.type("health").document["notes"]

    assert lost in note and "audit-query --action task.submit" in note
    assert "write-ahead log was removed" in SYMPTOMS
    assert lost in root.type("audit-query", "--action", "task.submit", "--limit", "1").out


def test_no_task_is_called_lost_that_was_removed_for_its_age(root: Root) -> None:
    root.type("purge", "--done-retention-days", "0", "--dead-retention-days", "0", "--idempotency-ttl-days", "0")

    assert root.type("health").document["notes"] == []


def test_payload_files_come_back_out_of_the_snapshot(root: Root) -> None:
    for file in (root.path / "payload").rglob("*"):
        if file.is_file():
            file.unlink()

    root.refused("payload_missing", "task", root.done)
    assert "cp -a /backup/today/relaymesh-root/payload/. /srv/relaymesh/payload/" in RUNBOOK
    for file in (root.snapshot / "relaymesh-root" / "payload").rglob("*"):
        if file.is_file():
            (root.path / file.relative_to(root.snapshot / "relaymesh-root")).write_bytes(file.read_bytes())

    assert root.type("task", root.done).status == 0


@pytest.mark.parametrize("broken", [b'{"maxAttempts": 3,', b"\xff\xfe{\x00}\x00", b'{"maxAttemps": 3}'])
def test_broken_settings_are_named_and_a_mended_file_is_taken(root: Root, broken: bytes) -> None:
    file = root.path / "relaymesh-settings.json"
    file.write_bytes(broken)

    assert str(file) in root.refused("bad_settings", "submit", "--agent", "echo", "--input", "x")
    root.refused("bad_settings", "settings", "show")
    assert root.type("health").status == 1
    file.write_text('{"maxAttempts": 5}')

    assert root.type("reload-settings").document["settings"]["maxAttempts"] == 5
    root.is_well(root.waiting)


def test_a_cut_audit_log_is_named_and_a_new_chain_begins_beside_the_old_one(root: Root) -> None:
    log = root.path / "audit" / "audit.log"
    os.truncate(log, log.stat().st_size - 100)

    broken = root.type("audit-verify")
    assert (broken.status, broken.document["reason"]) == (1, "invalid_json")
    assert "is the first that is broken" in broken.err and "is the first that is broken" in SYMPTOMS
    (root.path / "audit").rename(root.path.with_name("evidence"))
    root.type("init")

    root.type("submit", "--agent", "echo", "--input", "goes on")
    verified = root.type("audit-verify")
    assert (verified.status, verified.document["ok"]) == (0, True)
    root.is_well(root.waiting)


def test_a_damaged_segment_is_named_and_queries_pass_over_it_once_it_is_moved_away(root: Root) -> None:
    trail = AuditTrail(root.path, segment_bytes=2_000)
    for number in range(30):
        trail.record("a.b", actor="x", resource=f"r{number}", result="ok")
    trail.pack()
    segment = root.path / "audit" / "segments" / "audit-00000002.jsonl.gz"
    os.truncate(segment, segment.stat().st_size - 40)

    assert str(segment) in root.refused("audit_unreadable", "audit-query", "--action", "a.b", "--limit", "500")
    assert root.type("audit-verify").status == 1
    segment.rename(root.path.with_name("evidence.gz"))

    assert "r29" in root.type("audit-query", "--action", "a.b", "--limit", "500").out


def test_the_key_that_seals_the_audit_log_comes_back_out_of_the_snapshot(root: Root) -> None:
    key = root.path / "security" / "audit-signing.key"
    root.is_well(root.waiting)  # somebody has looked before, as each node does
    key.unlink()

    root.problem("the key that seals the audit log")
    key.write_bytes((root.snapshot / "relaymesh-root" / "security" / key.name).read_bytes())
    key.chmod(0o600)

    root.is_well(root.waiting)
    assert root.type("audit-verify").status == 0


def test_a_root_of_a_newer_release_is_left_alone_and_says_what_was_applied(root: Root) -> None:
    known = set_schema(root, 999)

    root.refused("schema_too_new", "tasks")
    assert root.type("schema-migrations", "--limit", "1").status == 0
    set_schema(root, known)

    root.is_well(root.waiting)


def set_schema(root: Root, number: int) -> int:
    """Return the number that was there."""
    conn = sqlite3.connect(root.database)
    (was,) = conn.execute("PRAGMA user_version").fetchone()
    conn.execute(f"PRAGMA user_version={number}")
    conn.close()
    return int(was)


_IMPORT = "import sys; from relaymesh.cli import main; sys.exit(main(sys.argv[1:]))"


@posix_only
def test_an_import_that_was_killed_leaves_the_old_root_or_the_new_one(root: Root) -> None:
    with Client(root.path) as client:
        later = client.submit("echo", "after the snapshot").task_id
    words = ["--root", str(root.path), "snapshot-import", "--in", str(root.snapshot)]
    for patience_s in (0.35, 0.5):
        process = subprocess.Popen([sys.executable, "-c", _IMPORT, *words], stdout=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
        process.kill()
        process.wait(60)

        root.is_well(root.done, root.waiting)

    root.restore()
    root.is_well(root.done, root.waiting)
    assert later not in root.type("tasks", "--limit", "10").out
    assert not (root.path / ".import").exists() or not any((root.path / ".import").iterdir())


def test_lock_files_of_processes_that_are_gone_keep_nobody_out(root: Root) -> None:
    for name in ("node-local.lock", "retention.guard", "payload.guard", "settings.lock", "other.lock"):
        (root.path / "run" / name).write_text('{"pid": 1, "host": "elsewhere"}')

    assert run_once(NodeOptions(root=root.path)).task_id == root.waiting
    root.restore()
    root.is_well(root.waiting)


def test_rows_of_a_clock_that_was_a_year_ahead_are_worked_on_and_kept(root: Root) -> None:
    year_ms = 366 * 86_400_000
    store = Store.open(root.path, now_ms=1)
    with store.write():
        store.conn.execute(
            "UPDATE tasks SET created_at_ms=created_at_ms+?1, updated_at_ms=updated_at_ms+?1", (year_ms,)
        )
        store.conn.execute("UPDATE steps SET updated_at_ms=updated_at_ms+?1, queued_at_ms=queued_at_ms+?1", (year_ms,))
    store.close()

    assert run_once(NodeOptions(root=root.path)).task_id == root.waiting
    purged = root.type("purge", "--done-retention-days", "1")
    assert purged.document["doneDirectoriesPurged"] == 0
    root.is_well(root.done, root.waiting)


def replaced_by_a_link(root: Root, place: str) -> Path:
    """Put a link in the place of the inbox or of a lane; return the folder that it leads to, which holds files."""
    outside = root.path.with_name("outside")
    for folder in (outside, *(outside / lane for lane in ("high", "normal", "low"))):
        folder.mkdir()
        (folder / "a.json").write_text('{"agent": "echo", "input": "not handed in"}')
    link = root.path / place
    for below in link.iterdir():
        below.rmdir()
    link.rmdir()
    link.symlink_to(outside, target_is_directory=True)
    return outside


@posix_only
@pytest.mark.parametrize("place", ["inbox", "inbox/high"])
def test_nothing_is_taken_out_of_a_folder_that_a_link_in_the_inbox_leads_to(root: Root, place: str) -> None:
    outside = replaced_by_a_link(root, place)
    before = sorted(outside.rglob("*"))

    root.problem("is a link, and nothing is taken from where it leads")
    assert root.type("maintenance").status == 0
    root.type("init")
    assert sorted(outside.rglob("*")) == before
    assert list((root.path / "dead").iterdir()) == []
    (root.path / place).unlink()
    root.type("init")

    root.is_well(root.waiting)


@posix_only
def test_old_files_behind_a_link_in_the_place_of_a_folder_are_not_purged(root: Root) -> None:
    outside = root.path.parent / "kept"
    outside.mkdir()
    (outside / "old").write_text("x")
    os.utime(outside / "old", (1, 1))
    (root.path / "dead").rmdir()
    (root.path / "dead").symlink_to(outside, target_is_directory=True)

    root.type("purge", "--dead-retention-days", "0")

    assert (outside / "old").exists()


def test_a_file_in_the_place_of_a_folder_is_named(root: Root) -> None:
    for lane in ("high", "normal", "low"):
        (root.path / "inbox" / lane).rmdir()
    (root.path / "inbox").rmdir()
    (root.path / "inbox").write_text("x")

    root.problem("is no folder")
    assert str(root.path / "inbox") in root.refused("root_folder", "init")
    (root.path / "inbox").unlink()
    root.type("init")

    root.is_well(root.waiting)


@posix_only
def test_a_folder_that_the_user_may_not_write_is_named_by_health(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = os.access
    run = root.path / "run"
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != run and allowed(path, mode))

    problem = root.problem("cannot be written: check its owner and its mode")

    assert "the folder run " in problem
    monkeypatch.undo()
    root.is_well(root.waiting)


def with_another_tool(root: Root, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(root.database)) as conn:
        for statement in statements:
            conn.execute(statement)
        conn.commit()


@pytest.mark.parametrize("part", ["INDEX tasks_updated", "INDEX tasks_expiry", "VIEW messages"])
def test_a_part_of_the_schema_that_somebody_dropped_is_named_and_comes_back_with_the_snapshot(
    root: Root, part: str
) -> None:
    with_another_tool(root, f"DROP {part}")

    assert part.split()[1] in root.problem("the database lacks its")
    root.restore()

    root.is_well(root.done, root.waiting)


@pytest.mark.parametrize("number", [0, 3])
def test_a_schema_number_that_somebody_changed_is_no_defect_of_ours(root: Root, number: int) -> None:
    with_another_tool(root, f"PRAGMA user_version={number}")

    assert "was applied: its number was changed" in root.refused("root_corrupt", "tasks")
    root.problem("was applied: its number was changed")
    root.restore()

    root.is_well(root.done, root.waiting)


def test_a_folder_in_the_place_of_the_database_is_named_and_the_file_can_be_put_back(root: Root) -> None:
    root.database.rename(root.path.with_name("away.db"))
    root.database.mkdir()

    root.problem("relaymesh.db is a folder")
    root.database.rmdir()
    root.path.with_name("away.db").rename(root.database)

    root.is_well(root.done, root.waiting)


@pytest.mark.parametrize("journal", [b"{", b"\xff\xfe", b'{"leaving": ["\xe9"]}'])
def test_a_damaged_journal_of_an_import_is_moved_away_and_the_snapshot_imported_again(
    root: Root, journal: bytes
) -> None:
    (root.path / ".import").mkdir(exist_ok=True)
    (root.path / ".import" / "journal.json").write_bytes(journal)

    root.refused("import_journal", "tasks")
    root.refused("import_journal", "snapshot-import", "--in", str(root.snapshot))
    (root.path / ".import").rename(root.path.with_name("evidence"))
    root.restore()

    root.is_well(root.done, root.waiting)


@posix_only
def test_settings_with_a_secret_that_others_can_read_are_named(root: Root) -> None:
    file = root.path / "relaymesh-settings.json"
    file.write_text('{"gossipSharedSecret": "correct-horse-battery-staple"}')
    file.chmod(0o644)

    assert "holds a secret" in root.problem("is open to others than its owner")
    file.chmod(0o600)

    root.is_well(root.waiting)
