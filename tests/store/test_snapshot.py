"""Copies of a root: what is in them, what is refused, and what a root is after one was put back."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from relaymesh.audit import AuditTrail
from relaymesh.client import Client
from relaymesh.errors import RelayMeshError
from relaymesh.store.error import SchemaTooNewError
from relaymesh.store.presence import take_presence
from relaymesh.store.restore import KEPT_MAX, RootInUseError
from relaymesh.store.root import DATABASE
from relaymesh.store.schema import SCHEMA_VERSION
from relaymesh.store.snapshot import SnapshotOutputError, SnapshotPlaceError
from relaymesh.store.verify import SnapshotDamagedError, SnapshotMissingError, verify_snapshot
from tests.store.bench import Bench

LONG = "x" * 70_000


def fill(root: Path) -> Bench:
    """Return a bench on a root with a bit of everything: payload files, settings, agents, a key."""
    bench = Bench(root)
    bench.one(payload="short")
    bench.one(payload=LONG)
    bench.succeed(bench.claim(limit=1)[0], LONG + "output")
    (root / "relaymesh-settings.json").write_text('{"maxAttempts": 5}')
    (root / "agents" / "scripts.json").write_text('{"agents": []}')
    (root / "trace" / "otel-spans.jsonl").write_text('{"a": 1}\n{"b": 2}\n{"half')
    # Makes the log and its key.
    AuditTrail(root).record("task.submit", actor="cli", resource="task", result="submitted")
    return bench


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fill(tmp_path / "root").close()
    return tmp_path / "root"


def tree(folder: Path) -> dict[str, str]:
    """Return every file below a folder with a hash, without what only locks leave."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name != "run" and not path.name.endswith(("-shm", "-wal"))
    }


def contents(root: Path) -> dict[str, object]:
    """Return what a root holds, as its users see it."""
    with Client(root) as client:
        tasks = {row[0]: row[1] for row in client.query("SELECT task_id, status FROM tasks")}
        payloads = client.query("SELECT payload_path, result_path FROM steps")
        store = client._readable()
        texts = sorted(len(store.payloads.read(name)) for row in payloads for name in row if name)
    return {"tasks": tasks, "payloads": texts, "settings": (root / "relaymesh-settings.json").read_text()}


def test_a_snapshot_has_the_members_of_the_reference_and_a_hash_of_each_file(root: Path, tmp_path: Path) -> None:
    with Client(root, now_ms=lambda: 1_700_000_000_123) as client:
        outcome = client.snapshot_export(tmp_path / "out")

    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["schema_version"] == "relaymesh.snapshot.v1"
    assert manifest["created_at"] == "2023-11-14T22:13:20.123Z"
    assert manifest["source_root"] == str(root)
    assert manifest["snapshot_root"] == outcome.snapshot_root == str(tmp_path / "out" / "relaymesh-root")
    assert manifest["file_count"] == outcome.file_count == len(manifest["files"])
    assert manifest["bytes"] == outcome.total_bytes
    assert manifest["database_schema"] == SCHEMA_VERSION
    for file in manifest["files"]:
        data = (tmp_path / "out" / "relaymesh-root" / file["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file["bytes"], file["sha256"])
    paths = {file["path"] for file in manifest["files"]}
    assert {"relaymesh.db", "relaymesh-settings.json", "agents/scripts.json", "security/audit-signing.key"} <= paths
    assert sum(path.startswith("payload/") for path in paths) == 2
    assert not any(path.startswith(("run/", "tmp/", "dr/")) for path in paths)


def test_a_line_that_is_being_written_is_left_to_the_next_snapshot(root: Path, tmp_path: Path) -> None:
    with Client(root) as client:
        client.snapshot_export(tmp_path / "out")

    copied = tmp_path / "out" / "relaymesh-root" / "trace" / "otel-spans.jsonl"
    assert copied.read_text() == '{"a": 1}\n{"b": 2}\n'


@pytest.mark.skipif(sys.platform == "win32", reason="needs file modes")
def test_a_private_file_is_private_in_the_snapshot_and_after_the_import(root: Path, tmp_path: Path) -> None:
    with Client(root) as client:
        client.snapshot_export(tmp_path / "out")
    with Client(tmp_path / "other") as client:
        client.snapshot_import(tmp_path / "out")

    for base in (tmp_path / "out" / "relaymesh-root", tmp_path / "other"):
        assert stat.S_IMODE((base / "security" / "audit-signing.key").stat().st_mode) == 0o600


def test_an_older_snapshot_in_the_folder_is_replaced_and_what_else_lies_there_is_kept(
    root: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with Client(root) as client:
        client.snapshot_export(out)
        client.submit("echo", "one more")
        client.snapshot_export(out)

    with Client(tmp_path / "other") as client:
        client.snapshot_import(out)
        assert len(client.tasks()) == 3
    assert (out / "notes.txt").read_text() == "mine"
    assert verify_snapshot(out).ok


@pytest.mark.parametrize("place", ["inside", "inside/deeper", ".", "namespaces/other"])
def test_a_folder_inside_the_root_is_refused_both_ways(root: Path, place: str) -> None:
    before = tree(root)
    with Client(root) as client:
        with pytest.raises(SnapshotPlaceError):
            client.snapshot_export(root / place)
        with pytest.raises(SnapshotPlaceError):
            client.snapshot_import(root / place)

    assert tree(root) == before


def test_the_folder_for_drills_below_the_root_is_no_part_of_it(root: Path) -> None:
    with Client(root) as client:
        first = client.snapshot_export(root / "dr" / "default" / "snapshots" / "one")
        second = client.snapshot_export(root / "dr" / "default" / "snapshots" / "two")

    assert second.file_count == first.file_count


def test_a_root_that_is_put_back_is_what_it_was_and_the_present_one_is_kept(root: Path, tmp_path: Path) -> None:
    with Client(root) as client:
        exported = client.snapshot_export(tmp_path / "out")
    then = contents(root)
    with Client(root) as client:
        client.submit("echo", "after the snapshot")
    (root / "relaymesh-settings.json").write_text('{"maxAttempts": 9}')
    now = contents(root)

    with Client(root) as client:
        outcome = client.snapshot_import(tmp_path / "out")

    assert contents(root) == then
    (kept,) = (root / "replaced").iterdir()
    assert contents(kept) == now
    assert (outcome.restored_files, outcome.restored_bytes) == (exported.file_count, exported.total_bytes)
    assert outcome.snapshot_root == str(tmp_path / "out" / "relaymesh-root")


def audited(root: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (root / "audit" / "audit.log").read_text().splitlines()]


def test_an_export_and_an_import_leave_one_audit_row_each_in_a_chain_that_is_whole(root: Path, tmp_path: Path) -> None:
    with Client(root) as client:
        exported = client.snapshot_export(tmp_path / "out")
    sums = {"files": exported.file_count, "bytes": exported.total_bytes}
    assert audited(root)[-1]["action"] == "snapshot.export"
    assert audited(root)[-1]["details"] == {"output": str(tmp_path / "out"), **sums}

    with Client(root) as client:
        client.snapshot_import(tmp_path / "out")

    rows = audited(root)
    assert [row["action"] for row in rows] == ["task.submit", "snapshot.import"]
    assert rows[-1]["details"] == {"input": str(tmp_path / "out"), **sums}
    assert rows[-1]["prev_hash"] == rows[-2]["hash"]


def test_only_the_newest_replaced_roots_are_kept(root: Path, tmp_path: Path) -> None:
    with Client(root) as client:
        client.snapshot_export(tmp_path / "out")
    for at_ms in range(KEPT_MAX + 2):
        with Client(root, now_ms=lambda at_ms=at_ms: 1_700_000_000_000 + at_ms) as client:  # type: ignore[misc]
            client.snapshot_import(tmp_path / "out")

    assert sorted(path.name for path in (root / "replaced").iterdir()) == [
        f"20231114T221320.00{at_ms}Z" for at_ms in range(2, KEPT_MAX + 2)
    ]


def test_payloads_are_found_in_another_root_also_by_the_absolute_path_of_the_former(tmp_path: Path) -> None:
    bench = fill(tmp_path / "root")
    with bench.store.write():
        bench.store.conn.execute(
            "UPDATE steps SET payload_path=?||payload_path WHERE payload_path<>''", (f"{bench.root}/",)
        )
    bench.close()
    with Client(tmp_path / "root") as client:
        client.snapshot_export(tmp_path / "out")
    shutil.rmtree(tmp_path / "root")

    with Client(tmp_path / "elsewhere" / "root") as client:
        client.snapshot_import(tmp_path / "out")
        names = {row[0] for row in client.query("SELECT payload_path FROM steps")}

    assert all(not os.path.isabs(name) for name in names)
    assert contents(tmp_path / "elsewhere" / "root")["payloads"] == [70_000, 70_006]


# -- epochs ----------------------------------------------------------------------------------------------------------


def bump(root: Path, by: int) -> None:
    conn = sqlite3.connect(root / DATABASE)
    conn.execute("UPDATE cluster_state SET state_value=state_value+?, version=version+1", (by,))
    conn.commit()
    conn.close()


def epoch(root: Path) -> int:
    with Client(root) as client:
        return client.stats().cluster_epoch


def test_where_something_can_run_again_the_epoch_goes_above_both_roots(root: Path, tmp_path: Path) -> None:
    with Client(root) as client:
        client.snapshot_export(tmp_path / "out")
    bump(root, 4)

    with Client(root) as client:
        client.snapshot_import(tmp_path / "out")

    assert epoch(root) == 6


def test_where_nothing_can_run_again_the_epoch_is_that_of_the_snapshot(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "root")
    bench.one()
    bench.run_all()
    bench.close()
    with Client(tmp_path / "root") as client:
        client.snapshot_export(tmp_path / "out")
    bump(tmp_path / "root", 4)

    with Client(tmp_path / "root") as client:
        client.snapshot_import(tmp_path / "out")

    assert epoch(tmp_path / "root") == 1


def test_a_step_never_comes_back_with_a_lease_that_somebody_holds_or_a_smaller_lease_epoch(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "root")
    running, waiting = bench.one(), bench.one()
    (old,) = bench.claim(limit=1)
    bench.close()
    with Client(tmp_path / "root") as client:
        client.snapshot_export(tmp_path / "out")
    conn = sqlite3.connect(tmp_path / "root" / DATABASE)
    conn.execute("UPDATE steps SET lease_epoch=9 WHERE step_id=?", (waiting,))
    conn.commit()
    conn.close()

    with Client(tmp_path / "root") as client:
        client.snapshot_import(tmp_path / "out")

    back = Bench(tmp_path / "root")
    assert (back.step(running)["status"], back.step(running)["attempt"]) == ("PENDING", 0)
    assert back.step(waiting)["lease_epoch"] == 9
    assert back.succeed(old).refused == (old.row_id,)
    new = {lease.step_id: lease for lease in back.claim()}
    assert new[running].cluster_epoch > old.cluster_epoch
    assert new[running].lease_epoch > old.lease_epoch
    assert new[waiting].lease_epoch == 10
    back.close()


def test_over_a_database_that_cannot_be_read_the_epoch_goes_far_up(root: Path, tmp_path: Path) -> None:
    with Client(root) as client:
        client.snapshot_export(tmp_path / "out")
    for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm"):
        (root / name).unlink(missing_ok=True)
    (root / DATABASE).write_bytes(b"no database at all\n" * 1_000)

    with Client(root) as client:
        client.snapshot_import(tmp_path / "out")

    assert epoch(root) == 1_001


# -- what is refused -------------------------------------------------------------------------------------------------


def refused(root: Path, source: Path, kind: type[RelayMeshError]) -> str:
    """Return the sentence of a refused import, after checking that it changed nothing."""
    before = tree(root)
    with Client(root) as client, pytest.raises(kind) as caught:
        client.snapshot_import(source)
    assert tree(root) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "the database was changed": lambda out: flip(out / "relaymesh-root" / DATABASE),
    "the database is gone": lambda out: (out / "relaymesh-root" / DATABASE).unlink(),
    "the settings were changed": lambda out: flip(out / "relaymesh-root" / "relaymesh-settings.json"),
    "an agent was changed": lambda out: flip(out / "relaymesh-root" / "agents" / "scripts.json"),
    "a key was changed": lambda out: flip(out / "relaymesh-root" / "security" / "audit-signing.key"),
    "the audit log was cut": lambda out: os.truncate(out / "relaymesh-root" / "audit" / "audit.log", 9),
    "a payload was changed": lambda out: flip(next((out / "relaymesh-root" / "payload").glob("*/*"))),
    "a payload is gone": lambda out: next((out / "relaymesh-root" / "payload").glob("*/*")).unlink(),
    "a stranger lies in it": lambda out: (out / "relaymesh-root" / "agents" / "evil.py").write_text("evil"),
    "the manifest is gone": lambda out: (out / "manifest.json").unlink(),
    "the manifest was changed": lambda out: flip(out / "manifest.json"),
    "the manifest is no JSON": lambda out: (out / "manifest.json").write_text("{"),
    "the copy is gone": lambda out: shutil.rmtree(out / "relaymesh-root"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_snapshot_is_found_and_refused(root: Path, tmp_path: Path, damage: Callable[[Path], object]) -> None:
    with Client(root) as client:
        client.snapshot_export(tmp_path / "out")
    assert verify_snapshot(tmp_path / "out").ok

    damage(tmp_path / "out")

    outcome = verify_snapshot(tmp_path / "out")
    assert not outcome.ok and outcome.problem_count >= 1 and outcome.problems
    assert str(tmp_path / "out") in refused(root, tmp_path / "out", SnapshotDamagedError)
    assert not (root / ".import").exists()


def forge(out: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Change a manifest and give it the hash that it should have: what only a look at the files finds."""
    import msgspec

    from relaymesh.wire.manifest import Manifest, encode_manifest

    document = json.loads((out / "manifest.json").read_text())
    change(document)
    (out / "manifest.json").write_bytes(encode_manifest(msgspec.convert(document, Manifest)))


def test_a_manifest_whose_numbers_are_not_those_of_the_database_is_refused(root: Path, tmp_path: Path) -> None:
    with Client(root) as client:
        client.snapshot_export(tmp_path / "out")
    forge(tmp_path / "out", lambda document: document.update(cluster_epoch=77))

    assert "other epochs" in refused(root, tmp_path / "out", SnapshotDamagedError)


@pytest.mark.parametrize("path", ["../evil.py", "/etc/evil.py", "agents/../../evil.py", "agents//evil.py", ""])
def test_a_manifest_whose_paths_lead_out_of_the_folder_is_refused(root: Path, tmp_path: Path, path: str) -> None:
    with Client(root) as client:
        client.snapshot_export(tmp_path / "out")
    forge(tmp_path / "out", lambda document: document["files"][0].update(path=path))  # type: ignore[index]

    assert "cannot be in a snapshot" in refused(root, tmp_path / "out", SnapshotDamagedError)


def test_a_reference_without_its_file_is_found_although_every_hash_fits(root: Path, tmp_path: Path) -> None:
    with Client(root) as client:
        client.snapshot_export(tmp_path / "out")
    (tmp_path / "out" / "relaymesh-root" / "payload").rename(tmp_path / "gone")

    def drop(document: dict[str, object]) -> None:
        files = [file for file in document["files"] if not file["path"].startswith("payload/")]  # type: ignore[attr-defined]
        document.update(files=files, file_count=len(files), bytes=sum(file["bytes"] for file in files))

    forge(tmp_path / "out", drop)

    assert verify_snapshot(tmp_path / "out").problem_count == 2
    assert "named by a step and missing" in refused(root, tmp_path / "out", SnapshotDamagedError)


def test_a_payload_that_was_missing_at_the_export_is_said_and_does_not_keep_the_rest_from_being_saved(
    root: Path, tmp_path: Path
) -> None:
    next((root / "payload").glob("*/*")).unlink()
    with Client(root) as client:
        client.snapshot_export(tmp_path / "out")

    outcome = verify_snapshot(tmp_path / "out")

    assert outcome.ok and outcome.missing_payloads == 1


def test_a_snapshot_of_a_later_schema_is_refused_in_one_sentence(root: Path, tmp_path: Path) -> None:
    with Client(root) as client:
        client.snapshot_export(tmp_path / "out")
    forge(tmp_path / "out", lambda document: document.update(database_schema=SCHEMA_VERSION + 1))

    assert "upgrade RelayMesh" in refused(root, tmp_path / "out", SchemaTooNewError)


def test_a_folder_without_a_snapshot_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    for name in ("empty", "nowhere"):
        assert "snapshot-export" in refused(root, tmp_path / name, SnapshotMissingError)
        with pytest.raises(SnapshotMissingError):
            verify_snapshot(tmp_path / name)


def test_an_import_is_refused_while_a_node_lives(root: Path, tmp_path: Path) -> None:
    with Client(root) as client:
        client.snapshot_export(tmp_path / "out")
    presence = take_presence(root / "run", "node-7")
    try:
        assert "node-7" in refused(root, tmp_path / "out", RootInUseError)
    finally:
        presence.release()


def test_an_import_is_refused_while_a_program_has_the_database_open(root: Path, tmp_path: Path) -> None:
    with Client(root) as other:
        other.snapshot_export(tmp_path / "out")
        other.stats()
        assert "another command" in refused(root, tmp_path / "out", RootInUseError)

        # And it goes on.
        other.submit("echo", "still acknowledged")
    with Client(root) as client:
        assert len(client.tasks()) == 3


@pytest.mark.parametrize("foreign", ["manifest.json", "relaymesh-root", "relaymesh-root/mine.txt"])
def test_an_export_leaves_alone_what_has_the_names_of_a_snapshot_and_is_none(
    root: Path, tmp_path: Path, foreign: str
) -> None:
    out = tmp_path / "project"
    (out / foreign).parent.mkdir(parents=True)
    (out / foreign).write_text('{"name": "of another program"}')
    before = tree(out)

    with Client(root) as client, pytest.raises(SnapshotOutputError, match="choose another --out"):
        client.snapshot_export(out)

    assert tree(out) == before


def test_an_export_replaces_an_older_snapshot_however_damaged(root: Path, tmp_path: Path) -> None:
    with Client(root) as client:
        client.snapshot_export(tmp_path / "no-manifest")
        client.snapshot_export(tmp_path / "no-database")
        (tmp_path / "no-manifest" / "manifest.json").unlink()
        (tmp_path / "no-database" / "relaymesh-root" / DATABASE).unlink()
        for out in (tmp_path / "no-manifest", tmp_path / "no-database"):
            client.snapshot_export(out)

            assert verify_snapshot(out).ok


@pytest.mark.parametrize("place", [".", "inbox/high", "payload", "namespaces/blue"])
def test_no_snapshot_is_written_into_another_root(root: Path, tmp_path: Path, place: str) -> None:
    fill(tmp_path / "other").close()
    before = tree(tmp_path / "other")

    with Client(root) as client:
        with pytest.raises(SnapshotPlaceError):
            client.snapshot_export(tmp_path / "other" / place)
        if place != ".":
            with pytest.raises(SnapshotPlaceError):
                client.dr_automation(snapshot_root=tmp_path / "dr", offsite_root=tmp_path / "other" / place)

    assert tree(tmp_path / "other") == before
    assert not (tmp_path / "dr").exists()
