"""Snapshots with real processes: taken under load, and put back by processes that are killed at every step."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from relaymesh.client import Client
from relaymesh.core.retention import Ages
from relaymesh.store.connection import Durability
from relaymesh.store.purge import Purge
from relaymesh.store.root import DATABASE
from relaymesh.store.store import Store
from relaymesh.store.verify import verify_snapshot
from relaymesh.wire.work import LogLine
from tests.integration.harness import REPO, Site, eventually, plain_environment
from tests.integration.killing import kill_at_every_step, kill_at_statement
from tests.store.bench import NOON, Bench
from tests.store.test_snapshot import contents, fill, tree


def test_a_snapshot_taken_under_load_holds_everything_that_was_acknowledged_before_it(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    site = make_site()
    node = site.node(concurrency=1).wait_up()
    acknowledged: list[str] = []
    enough = threading.Event()

    def submit() -> None:
        with site.client() as client:
            number = 0
            while not enough.is_set():
                text = f"{number} " + ("x" * 70_000 if number % 25 == 0 else "")
                acknowledged.append(client.submit("echo", text, idempotency_key=f"k{number}").task_id)
                number += 1

    thread = threading.Thread(target=submit)
    thread.start()
    try:
        for turn in range(3):
            eventually(lambda least=(turn + 1) * 60: len(acknowledged) >= least)
            before = list(acknowledged)
            done = site.run("snapshot-export", "--out", str(tmp_path / "out"))
            assert done.returncode == 0, done.stderr

            assert verify_snapshot(tmp_path / "out").ok  # integrity, foreign keys, references
            image = sqlite3.connect(f"file:{tmp_path / 'out' / 'relaymesh-root' / DATABASE}?immutable=1", uri=True)
            inside = {row[0] for row in image.execute("SELECT task_id FROM tasks")}
            image.close()
            assert set(before) <= inside
    finally:
        enough.set()
        thread.join()
    assert len(acknowledged) > 180  # they were let in all the time
    refused = site.run("snapshot-import", "--in", str(tmp_path / "out"))
    assert refused.returncode == 1 and b"root_in_use" in refused.stderr
    node.terminate()
    assert site.run("snapshot-import", "--in", str(tmp_path / "out")).returncode == 0
    again = site.node("b", concurrency=1).wait_up()
    eventually(lambda: not Client(site.root).stats().task_status.keys() & {"PENDING", "RUNNING", "RETRYING"})
    again.terminate()


@pytest.mark.slow
def test_an_import_that_is_killed_at_any_step_leaves_the_one_root_or_the_other(tmp_path: Path) -> None:
    fill(tmp_path / "template").close()
    with Client(tmp_path / "template") as client:
        client.snapshot_export(tmp_path / "out")
        then = contents(tmp_path / "template")
        client.submit("echo", "after the snapshot")
    (tmp_path / "template" / "relaymesh-settings.json").write_text('{"maxAttempts": 9}')
    now = contents(tmp_path / "template")
    root = tmp_path / "root"

    def prepare(_: int) -> Callable[[], object]:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(tmp_path / "template", root)
        return lambda: Client(root).snapshot_import(tmp_path / "out")

    seen = []
    for step in kill_at_every_step(prepare, tmp_path):
        found = contents(root)  # whoever opens it next finishes what was decided
        assert found in (then, now)
        seen.append(found == then)
        assert not (root / ".import" / "journal.json").exists()
        if found == then:
            (kept,) = (root / "replaced").iterdir()
            assert contents(kept) == now
        if step % 6 == 0:  # each second import costs a whole one
            with Client(root) as client:
                client.snapshot_import(tmp_path / "out")
            assert contents(root) == then
            assert not (root / ".import").exists()
    assert contents(root) == then
    assert seen == sorted(seen), "once the journal is there, the import is never taken back"
    assert seen.count(False) > 10 and seen.count(True) > 10


def without_audit(root: Path) -> dict[str, str]:
    return {name: digest for name, digest in tree(root).items() if not name.startswith("audit/")}


@pytest.mark.slow
def test_an_export_that_is_killed_at_any_step_leaves_the_old_snapshot_or_the_new_one(tmp_path: Path) -> None:
    bench = fill(tmp_path / "root")
    bench.close()
    with Client(tmp_path / "root") as client:
        client.snapshot_export(tmp_path / "first")
        client.submit("echo", "one more")

    def prepare(_: int) -> Callable[[], object]:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        shutil.copytree(tmp_path / "first", tmp_path / "out")
        return lambda: Client(tmp_path / "root").snapshot_export(tmp_path / "out")

    sizes = []
    before = without_audit(tmp_path / "root")
    for _ in kill_at_every_step(prepare, tmp_path / "out"):
        assert verify_snapshot(tmp_path / "out").ok
        image = sqlite3.connect(tmp_path / "out" / "relaymesh-root" / DATABASE)
        sizes.append(image.execute("SELECT count(*) FROM tasks").fetchone()[0])
        image.close()
    assert set(sizes) == {2, 3} and sizes == sorted(sizes)
    assert without_audit(tmp_path / "root") == before


def test_who_waits_while_a_root_is_replaced_gets_the_new_one(tmp_path: Path) -> None:
    fill(tmp_path / "root").close()
    with Client(tmp_path / "root") as client:
        client.snapshot_export(tmp_path / "out")
    # Submits and imports at the same time: each submit either comes before, and is kept with the former root, or is in
    # the new one.
    program = (
        "import sys\nfrom relaymesh.client import Client\nfrom relaymesh.errors import RelayMeshError\n"
        "for number in range(int(sys.argv[2])):\n"
        "    try:\n"
        "        with Client(sys.argv[1]) as client:\n"
        "            print(client.submit('echo', str(number)).task_id, flush=True)\n"
        "    except RelayMeshError as error:\n"
        "        print(f'refused {error.code}', file=sys.stderr, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "root"), "150"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPO,
        env=plain_environment(),
    )
    command = [sys.executable, "-m", "relaymesh", "--root", str(tmp_path / "root")]
    imports = 0
    while process.poll() is None:
        done = subprocess.run(
            [*command, "snapshot-import", "--in", str(tmp_path / "out")],
            cwd=REPO,
            env=plain_environment(),
            capture_output=True,
        )
        imports += done.returncode == 0
        assert done.returncode == 0 or b"root_in_use" in done.stderr, done.stderr
        if imports == 3:  # older ones are dropped
            break
    out, err = process.communicate(timeout=60)
    known: set[str] = set()
    for folder in (tmp_path / "root", *(tmp_path / "root" / "replaced").iterdir()):
        with Client(folder) as client:
            known |= {row[0] for row in client.query("SELECT task_id FROM tasks")}

    assert set(out.split()) <= known
    assert imports >= 1
    assert "store_defect" not in err


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs to see which files are open")
def test_who_waited_for_the_lock_of_a_database_that_was_replaced_meanwhile_opens_the_new_one(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    Bench(old).close()
    bench = Bench(new)
    bench.one()
    bench.close()
    holder = sqlite3.connect(old / DATABASE, isolation_level=None)
    for statement in ("PRAGMA locking_mode=EXCLUSIVE", "PRAGMA journal_mode=DELETE", "BEGIN EXCLUSIVE", "COMMIT"):
        holder.execute(statement).fetchone()
    found: list[int] = []

    def count() -> None:
        with Client(old) as client:
            found.append(len(client.tasks()))

    thread = threading.Thread(target=count)
    thread.start()
    eventually(lambda: sum(os.path.realpath(fd) == str(old / DATABASE) for fd in Path("/proc/self/fd").iterdir()) > 1)
    (old / DATABASE).rename(old / "former.db")
    (new / DATABASE).rename(old / DATABASE)
    holder.close()
    thread.join()

    assert found == [1]


@pytest.mark.slow
def test_a_purge_that_is_killed_at_any_statement_is_finished_by_the_next_and_nothing_else_goes(tmp_path: Path) -> None:
    template = tmp_path / "template"
    bench = Bench(template)
    flow = bench.flow(*({"id": f"s{number}", "agent": "fail"} for number in range(4)))
    for lease in bench.claim():
        bench.fail(lease, retryable=False, log=[LogLine(NOON, "INFO", "said")])
    bench.one(payload="x" * 70_000)
    bench.run_all()
    bench.now_ms += 86_400_000
    kept = {bench.task_of(bench.one("echo", "open"))["task_id"], bench.task_of(bench.one("echo", "new"))["task_id"]}
    bench.succeed(bench.claim(limit=1)[0])
    bench.store.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    bench.close()
    before_ms = NOON + 10_000
    ages = Ages(done_before_ms=before_ms, dead_before_ms=before_ms, keys_before_ms=before_ms)
    root = tmp_path / "root"

    def purge(on_statement: Callable[[str], None], rows: int = 3) -> None:
        store = Store.open(root, now_ms=NOON, durability=Durability.FAST)
        store.conn.set_trace_callback(on_statement)
        work = Purge(store, ages, now_ms=lambda: NOON)
        while work.piece(rows) is not None:
            pass
        store.close()

    statement, ended, halves = 1, False, 0
    while not ended:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(template, root)
        ended = kill_at_statement(statement, purge)

        found = Bench(root)
        steps = len(found.rows("SELECT 1 FROM steps WHERE task_id=?", flow))
        if found.rows("SELECT 1 FROM tasks WHERE task_id=?", flow) and steps < 4:
            halves += 1
            with found.store.write():
                assert found.store.replay(flow, now_ms=NOON) == "not_found"
        assert found.rows("PRAGMA foreign_key_check") == []
        found.close()
        purge(lambda _: None)
        found = Bench(root)
        assert {row["task_id"] for row in found.rows("SELECT task_id FROM tasks")} == kept
        assert found.rows("SELECT 1 FROM attempts UNION ALL SELECT 1 FROM attempt_logs") == []
        found.close()
        statement += 1
    assert statement > 50 and halves > 5
