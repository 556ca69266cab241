"""What is old goes from the disk too, and a purge that is killed on the way is finished by the next."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from relaymesh.store.cleanup import purge
from relaymesh.store.connection import Durability
from relaymesh.store.store import Store
from tests.integration.killing import kill_at_every_step
from tests.store.bench import NOON, Bench

pytestmark = pytest.mark.slow

DAY_MS = 86_400_000
OLD = ("done/2020-01-01/a.json", "done/2020-01-01/a.json.result.json", "dead/b.json", "dead/b.json.reason.json")
NEW = ("done/2099-01-01/c.json", "dead/d.json")


def furnish(root: Path) -> str:
    """Fill a root with work and files, old and new; return the task that stays."""
    bench = Bench(root)
    bench.one(payload="x" * 70_000)
    bench.run_all()
    bench.now_ms += 30 * DAY_MS
    kept = str(bench.task_of(bench.one(payload="y" * 70_000))["task_id"])
    bench.store.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    bench.close()
    for file in (root / "payload").rglob("*"):  # none so young that a submit may be about to name it
        os.utime(file, (NOON / 1000, NOON / 1000))
    for name in (*OLD, *NEW):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
        at_s = (NOON - DAY_MS if name in OLD else NOON + 29 * DAY_MS) / 1000
        os.utime(path, (at_s, at_s))
    return kept


def test_a_purge_that_is_killed_at_any_step_on_the_disk_is_finished_by_the_next(tmp_path: Path) -> None:
    template, root = tmp_path / "template", tmp_path / "root"
    kept = furnish(template)
    now_ms = NOON + 30 * DAY_MS

    def clean() -> None:
        store = Store.open(root, now_ms=now_ms, durability=Durability.FAST)
        purge(store, done_days=7, dead_days=7, key_days=7, now_ms=now_ms, sleep=lambda _: None)
        store.close()

    def prepare(_: int) -> Callable[[], object]:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(template, root)
        return clean

    killed = 0
    for _ in kill_at_every_step(prepare, root):
        killed += 1
        clean()

        found = Bench(root)
        assert [row["task_id"] for row in found.rows("SELECT task_id FROM tasks")] == [kept]
        (path,) = [row["payload_path"] for row in found.rows("SELECT payload_path FROM steps")]
        found.close()
        assert [name for name in OLD if (root / name).exists()] == []
        assert [name for name in NEW if not (root / name).exists()] == []
        assert [file for file in (root / "payload").rglob("*") if file.is_file()] == [root / path]
    assert killed > 5
