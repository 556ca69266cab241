"""The message files of ``busMode: files``: after any history they are what the view ``messages`` says."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.core import message_file
from relaymesh.store import message_files as module
from relaymesh.store.admin import CancelMode
from relaymesh.store.message_files import MessageFiles
from tests.store.bench import Bench

LANES = ("inbox/high", "inbox/normal", "inbox/low")


def fresh(bench: Bench) -> MessageFiles:
    """As a process that starts."""
    files = MessageFiles(bench.store)
    files.find()
    return files


def keep(files: MessageFiles) -> None:
    files.changed()
    while files.piece():
        continue


def should_be(bench: Bench) -> dict[str, str]:
    """Folder of each message, from the view, written down here once more."""
    found = {}
    for row in bench.rows("SELECT m.*, s.worker_id FROM messages m JOIN steps s USING(step_id)"):
        day = time.strftime("%Y-%m-%d", time.localtime(int(str(row["updated_at_ms"])) / 1000))
        found[str(row["msg_id"])] = {
            "QUEUED": f"inbox/{str(row['priority']).lower()}",
            "PROCESSING": f"processing/{row['worker_id']}",
            "DONE": f"done/{day}",
            "FAILED": "retry",
            "DEAD": "dead",
        }[str(row["state"])]
    return found


def are(root: Path) -> dict[str, str]:
    """Folder of each file outside ``meta``; no message has two."""
    found: dict[str, str] = {}
    for folder, _, names in os.walk(root):
        where = os.path.relpath(folder, root).replace(os.sep, "/")
        for name in names:
            message_id = message_file.parse_name(name)
            if message_id is not None and where != "meta":
                assert message_id not in found, f"{message_id} lies in {found[message_id]} and in {where}"
                found[message_id] = where
    return found


def check(bench: Bench) -> None:
    assert are(bench.root) == should_be(bench)
    assert {name.removesuffix(".meta.json") for name in os.listdir(bench.root / "meta")} >= set(should_be(bench))


def history(bench: Bench, rng: random.Random, count: int) -> None:
    """Some of all that can happen to a message."""
    tasks = []
    for _ in range(count):
        bench.now_ms += 400
        match rng.randrange(6):
            case 0:
                tasks.append(bench.new_task(priority=rng.choice(["HIGH", "NORMAL", "LOW"])))
                bench.submit(tasks[-1])
            case 1:
                bench.flow({"id": "a"}, {"id": "b", "input": {"$from": "a"}})
            case 2:
                bench.promote()
            case 3 if tasks:
                with bench.store.write():
                    bench.store.cancel(rng.choice(tasks).task_id, mode=CancelMode.HARD, reason="r", now_ms=bench.now_ms)
            case _:
                for lease in bench.claim(limit=2):
                    match rng.randrange(5):
                        case 0:
                            bench.succeed(lease)
                        case 1:
                            bench.fail(lease)
                        case 2:
                            bench.fail(lease, retryable=False)
                        case 3:
                            bench.release(lease)
                        case _:
                            pass  # it runs on


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 12), min_size=1, max_size=6), st.booleans())
def test_after_any_history_the_files_are_what_the_database_says(
    tmp_path_factory: pytest.TempPathFactory, seed: int, parts: list[int], starts_anew: bool
) -> None:
    bench, rng = Bench(tmp_path_factory.mktemp("root") / "root"), random.Random(seed)
    files = fresh(bench)
    for part in parts:
        history(bench, rng, part)
        if starts_anew:
            files = fresh(bench)
        keep(files)

        check(bench)
    bench.close()


def test_an_envelope_has_the_members_of_a_message_in_their_order(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "root")
    step_id = bench.one(priority="HIGH")
    files = MessageFiles(bench.store)
    keep(files)
    (path,) = (bench.root / "inbox" / "high").iterdir()
    (copy,) = (bench.root / "meta").iterdir()

    assert path.name == f"{bench.now_ms}_msg_{step_id}.1.meta.json"
    assert path.read_bytes() == copy.read_bytes()
    assert list(json.loads(path.read_bytes()).items()) == [
        ("msgId", f"msg_{step_id}.1"),
        ("taskId", bench.step(step_id)["task_id"]),
        ("stepId", step_id),
        ("fromAgent", "system"),
        ("toAgent", "echo"),
        ("priority", "HIGH"),
        ("createdAtMs", bench.now_ms),
        ("payloadPath", ""),
        ("attempt", 1),
    ]
    bench.close()


def test_what_is_missing_misplaced_or_unknown_is_mended(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "root")
    steps = [bench.one() for _ in range(4)]
    (lease, *_) = bench.claim(limit=1)
    files = MessageFiles(bench.store)
    keep(files)
    lane = bench.root / "inbox" / "normal"
    waiting = sorted(lane.iterdir())
    waiting[0].unlink()
    waiting[1].rename(bench.root / "inbox" / "high" / waiting[1].name)
    unknown = lane / "0000000000001_msg_stp_nobody.1.meta.json"
    unknown.write_bytes(b"{}")

    files = fresh(bench)
    files.repair()
    keep(files)

    assert are(bench.root) == {**should_be(bench), "msg_stp_nobody.1": "dead"}
    assert lease.step_id in steps
    bench.close()


def test_history_is_not_read_again_by_the_next_process(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "root")
    bench.one()
    bench.run_all()
    keep(fresh(bench))
    (done,) = (bench.root / "done").rglob("*.meta.json")
    bench.now_ms += 10_000
    bench.one()
    keep(fresh(bench))
    done.unlink()  # as a purge does
    bench.now_ms += 10_000
    bench.one()

    files = fresh(bench)
    keep(files)

    assert not done.exists()
    bench.close()


@pytest.mark.parametrize("step_id", ["../../etc/x", "a/b", "a\\b", "x" * 400])
def test_no_id_that_somebody_wrote_by_hand_becomes_a_path(tmp_path: Path, step_id: str) -> None:
    bench = Bench(tmp_path / "root")
    good = bench.one()
    bench.store.conn.execute("PRAGMA foreign_keys=0")
    bench.store.conn.execute("UPDATE steps SET step_id=? WHERE step_id=?", (step_id, good))
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file() and "relaymesh.db" not in path.name)

    keep(fresh(bench))

    after = sorted(path for path in tmp_path.rglob("*") if path.is_file() and "relaymesh.db" not in path.name)
    assert set(after) - set(before) <= {bench.root / "run" / "messages.json"}
    bench.close()


def test_a_piece_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path / "root")
    bench.submit(*(bench.new_task() for _ in range(module.PIECE_MAX + 1)))
    files = MessageFiles(bench.store)

    assert files.piece()
    assert len(os.listdir(bench.root / "inbox" / "normal")) <= 3 * module.PIECE_MAX
    keep(files)

    check(bench)
    bench.close()
