"""Removing what is old: exactly that, in pieces, and with the files that nothing names any more."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from relaymesh.client import Client
from relaymesh.core.retention import WORK_NS, Ages
from relaymesh.file_lock import Hold, holding
from relaymesh.store.cleanup import compact, preview, purge
from relaymesh.store.purge import Purge
from relaymesh.store.snapshot import PAYLOAD_GUARD
from relaymesh.store.store import Store
from relaymesh.store.sweep import YOUNG_MS, sweep
from relaymesh.wire.work import LogLine
from tests.store.bench import NOON, Bench

DAY = 86_400_000
EVERYTHING = Ages(done_before_ms=NOON + DAY, dead_before_ms=NOON + DAY, keys_before_ms=NOON + DAY)


def no_sleep(_: float) -> None:
    pass


def settle(bench: Bench, outcome: str, payload: str = "", **more: object) -> str:
    """Submit a task and bring it to its end; return its id."""
    step_id = bench.one("echo", payload, **more)
    (lease,) = [lease for lease in bench.claim() if lease.step_id == step_id]
    if outcome == "SUCCESS":
        bench.succeed(lease, "done", log=[LogLine(bench.now_ms, "INFO", f"line {n}") for n in range(3)])
    else:
        bench.fail(lease, retryable=False)
    task_id: str = bench.step(step_id)["task_id"]
    return task_id


def left(bench: Bench) -> set[str]:
    return {row["task_id"] for row in bench.rows("SELECT task_id FROM tasks")}


def orphans(bench: Bench) -> list[int]:
    """Return how many rows of each table belong to no task or step."""
    belongings = (
        ("steps", "task_id", "tasks"),
        ("step_dependencies", "task_id", "tasks"),
        ("attempts", "step_id", "steps"),
        ("attempt_logs", "step_id", "steps"),
    )
    return [
        int(
            str(bench.rows(f"SELECT count(*) AS n FROM {table} WHERE {key} NOT IN (SELECT {key} FROM {owner})")[0]["n"])
        )
        for table, key, owner in belongings
    ]


def run(work: Purge, rows: int = 1_000) -> list[int]:
    sizes = []
    while (size := work.piece(rows)) is not None:
        sizes.append(size)
        assert len(sizes) < 10_000
    return sizes


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "root")


def test_what_succeeded_and_what_died_goes_by_its_own_age_and_what_is_open_stays(bench: Bench) -> None:
    old_done, old_dead = settle(bench, "SUCCESS"), settle(bench, "DEAD_LETTER")
    open_step = bench.one()
    bench.now_ms += 10 * DAY
    new_done, new_dead = settle(bench, "SUCCESS"), settle(bench, "DEAD_LETTER")

    work = Purge(
        bench.store,
        Ages(done_before_ms=NOON + DAY, dead_before_ms=NOON + DAY, keys_before_ms=NOON + DAY),
        now_ms=lambda: bench.now_ms,
    )
    run(work)

    assert left(bench) == {new_done, new_dead, bench.step(open_step)["task_id"]}
    assert (work.purged.tasks, work.purged.dead_messages, work.purged.keys) == (2, 1, 2)
    assert orphans(bench) == [0, 0, 0, 0]
    assert old_done != old_dead


def test_only_what_was_asked_for_goes(bench: Bench) -> None:
    done, dead = settle(bench, "SUCCESS"), settle(bench, "DEAD_LETTER")

    run(Purge(bench.store, Ages(dead_before_ms=NOON + DAY, keys_before_ms=NOON + DAY), now_ms=lambda: NOON))
    assert left(bench) == {done}

    run(Purge(bench.store, Ages(), now_ms=lambda: NOON))
    assert left(bench) == {done}
    assert dead not in left(bench)


def test_a_task_stays_as_long_as_its_key_is_held_so_that_a_second_submit_never_runs_it_again(bench: Bench) -> None:
    task_id = settle(bench, "SUCCESS", key="mine")

    run(Purge(bench.store, Ages(done_before_ms=NOON + DAY, keys_before_ms=NOON), now_ms=lambda: NOON))
    assert bench.submit(bench.new_task(key="mine")) == [(task_id, True)]

    run(Purge(bench.store, EVERYTHING, now_ms=lambda: NOON))
    ((again, deduplicated),) = bench.submit(bench.new_task(key="mine"))
    assert not deduplicated and again != task_id


def test_a_workflow_goes_with_everything_that_belongs_to_it(bench: Bench) -> None:
    kept = bench.flow({"id": "a"}, {"id": "b", "dependsOn": ["a"]})
    gone = bench.flow({"id": "a"}, {"id": "b", "dependsOn": ["a"]}, {"id": "c", "dependsOn": ["a", "b"]})
    while leases := [lease for lease in bench.claim() if lease.task_id == gone]:
        for lease in leases:
            bench.succeed(lease, log=[LogLine(NOON, "INFO", "said")])

    run(Purge(bench.store, EVERYTHING, now_ms=lambda: NOON))

    assert left(bench) == {kept}
    assert orphans(bench) == [0, 0, 0, 0]
    assert bench.rows("SELECT count(*) AS n FROM step_dependencies") == [{"n": 1}]


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_a_large_task_goes_in_pieces_and_nobody_replays_half_of_it(bench: Bench, rows: int) -> None:
    flow = bench.flow(*({"id": f"s{number}", "agent": "fail"} for number in range(20)))
    for lease in bench.claim():
        bench.fail(lease, retryable=False)
    work = Purge(bench.store, EVERYTHING, now_ms=lambda: NOON)

    halves = 0
    while work.piece(rows) is not None:
        half = left(bench) == {flow} and bench.rows("SELECT count(*) AS n FROM steps")[0]["n"] < 20
        halves += half
        if half:
            with bench.store.write():
                assert bench.store.replay(flow, now_ms=NOON) == "not_found"
            # A process that ended here is followed by one that knows nothing of it.
            work = Purge(bench.store, EVERYTHING, now_ms=lambda: NOON)

    assert halves >= 2
    assert left(bench) == set()
    assert orphans(bench) == [0, 0, 0, 0]
    assert bench.rows("SELECT * FROM cluster_state WHERE state_key='purging'") == []


def test_no_piece_removes_more_than_it_was_told(bench: Bench) -> None:
    for _ in range(30):
        settle(bench, "SUCCESS")
    before = 30 * 5  # a task, a step, and three lines each
    work = Purge(bench.store, EVERYTHING, now_ms=lambda: NOON)
    counts = []

    while work.piece(8) is not None:
        now = sum(
            bench.rows(f"SELECT count(*) AS n FROM {table}")[0]["n"] for table in ("tasks", "steps", "attempt_logs")
        )
        counts.append(before - now)
        before = now

    assert before == 0
    assert max(counts) <= 8 + 4  # the rows of one step, or of one task, are the least that goes at once


class SteppingClock:
    """A clock that goes on by so much with each look at it."""

    def __init__(self, step_ns: int) -> None:
        self.now_ns, self._step_ns = 0, step_ns

    def __call__(self) -> int:
        self.now_ns += self._step_ns
        return self.now_ns


@pytest.mark.parametrize("step_ns", [WORK_NS, WORK_NS // 3])
def test_a_piece_ends_when_its_time_is_spent_however_much_it_was_told_to_remove(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, step_ns: int
) -> None:
    flow = bench.flow(*({"id": f"s{number}"} for number in range(12)))
    for lease in bench.claim():
        bench.succeed(lease, log=[LogLine(NOON, "INFO", f"line {n}") for n in range(70)])
    for _ in range(3):
        settle(bench, "DEAD_LETTER")
    monkeypatch.setattr("relaymesh.store.purge.time.monotonic_ns", SteppingClock(step_ns))
    counts, steps = [], 15

    work = Purge(bench.store, EVERYTHING, now_ms=lambda: NOON)
    while work.piece(100_000) is not None:
        now = bench.rows("SELECT count(*) AS n FROM steps")[0]["n"]
        counts.append(steps - now)
        steps = now

    assert max(counts) <= 3
    assert (flow in left(bench), left(bench), orphans(bench)) == (False, set(), [0, 0, 0, 0])
    assert bench.rows("SELECT * FROM cluster_state WHERE state_key='purging'") == []
    assert work.purged.log_lines == 12 * 70


def test_parts_of_a_large_task_go_in_pieces_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.flow(*({"id": f"s{number}", "agent": "fail" if number % 2 else "echo"} for number in range(150)))
    for number, lease in enumerate(bench.claim()):
        log = [LogLine(NOON, "INFO", "said")]
        bench.succeed(lease, log=log) if number % 2 else bench.fail(lease, retryable=False)
    settle(bench, "SUCCESS")
    monkeypatch.setattr("relaymesh.store.purge.time.monotonic_ns", SteppingClock(WORK_NS))
    ages = Ages(results_before_ms=NOON + DAY, logs_before_ms=NOON + DAY, messages_before_ms=NOON + DAY)

    pieces = len(run(Purge(bench.store, ages, now_ms=lambda: NOON), rows=100_000))

    assert pieces > 100
    assert len(left(bench)) == 2
    assert bench.rows("SELECT count(*) AS n FROM steps WHERE result_payload IS NOT NULL") == [{"n": 0}]
    assert bench.rows("SELECT count(*) AS n FROM attempts") == [{"n": 0}]
    assert bench.rows("SELECT count(*) AS n FROM attempt_logs") == [{"n": 0}]


def test_keys_go_in_pieces_that_end_when_their_time_is_spent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.submit(*(bench.new_task(key=str(number)) for number in range(200)))
    bench.run_all()
    monkeypatch.setattr("relaymesh.store.purge.time.monotonic_ns", SteppingClock(WORK_NS))
    work = Purge(bench.store, Ages(keys_before_ms=NOON + DAY), now_ms=lambda: NOON)

    assert run(work, rows=1_000) == [64, 64, 64, 8]
    assert work.purged.keys == 200


def test_what_a_piece_waits_for_and_what_it_reads_before_does_not_count_as_holding_the_writer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(bench, "SUCCESS")
    clock = SteppingClock(0)
    monkeypatch.setattr("relaymesh.store.purge.time.monotonic_ns", clock)
    work = Purge(bench.store, EVERYTHING, now_ms=lambda: NOON)
    warm, write = work._warm_keys, bench.store.write

    def slow_read(before_ms: int, rows: int) -> None:
        warm(before_ms, rows)
        clock.now_ns += 700

    @contextlib.contextmanager
    def slow_write() -> Iterator[None]:
        clock.now_ns += 50
        with write():
            yield
            clock.now_ns += 20

    monkeypatch.setattr(work, "_warm_keys", slow_read)
    monkeypatch.setattr(bench.store, "write", slow_write)

    work.piece(10)

    assert (work.held_ns, work.worked_ns) == (20, 720)


def test_a_task_that_was_replayed_between_the_look_and_the_removal_stays(bench: Bench) -> None:
    task_id = settle(bench, "DEAD_LETTER")
    work = Purge(bench.store, EVERYTHING, now_ms=lambda: NOON)
    while bench.rows("SELECT key_live FROM tasks")[0]["key_live"]:
        work.piece(10)
    looked_at = work._page((-1, 0), NOON + DAY, 10)
    with bench.store.write():
        assert bench.store.replay(task_id, now_ms=NOON) == "replayed"

    with bench.store.write():
        work._remove_if_old(looked_at[0], 10)

    assert left(bench) == {task_id}


def test_parts_of_tasks_that_stay_go_by_their_own_ages(bench: Bench) -> None:
    settle(bench, "SUCCESS")
    settle(bench, "DEAD_LETTER")
    early = bench.now_ms + 1_000
    bench.now_ms += DAY
    settle(bench, "SUCCESS")
    ages = Ages(results_before_ms=early, logs_before_ms=early, messages_before_ms=early)

    for _ in range(2):  # a second round finds nothing
        run(Purge(bench.store, ages, now_ms=lambda: bench.now_ms), rows=2)

    assert len(left(bench)) == 3
    results = [row["result_payload"] for row in bench.rows("SELECT * FROM steps ORDER BY id")]
    assert [result is None for result in results] == [True, True, False]
    assert bench.rows("SELECT count(*) AS n FROM attempt_logs") == [{"n": 3}]
    assert bench.rows("SELECT count(*) AS n FROM attempts") == [{"n": 0}]


def test_old_conflicts_go(bench: Bench) -> None:
    lease = bench.claim() or ([bench.one()] and bench.claim())
    bench.succeed(lease[0])
    bench.succeed(lease[0])
    assert bench.rows("SELECT count(*) AS n FROM lease_conflicts") == [{"n": 1}]

    run(Purge(bench.store, Ages(conflicts_before_ms=NOON), now_ms=lambda: NOON))
    assert bench.rows("SELECT count(*) AS n FROM lease_conflicts") == [{"n": 1}]

    run(Purge(bench.store, Ages(conflicts_before_ms=NOON + 1), now_ms=lambda: NOON))
    assert bench.rows("SELECT count(*) AS n FROM lease_conflicts") == [{"n": 0}]


# -- the command -----------------------------------------------------------------------------------------------------


def old_files(root: Path, at_ms: int) -> None:
    """Lay out message files as programs and the bus leave them."""
    day = datetime.fromtimestamp(at_ms / 1000).strftime("%Y-%m-%d")
    today = datetime.fromtimestamp((at_ms + 20 * DAY) / 1000).strftime("%Y-%m-%d")
    names = [f"done/{day}/1_msg_a", f"done/{today}/1_msg_b", "dead/1_msg_c", "dead/1_msg_d", "retry/1_msg_e"]
    for name in names:
        path = root / f"{name}.meta.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
        (root / "meta" / f"{name.rsplit('/1_', 1)[1]}.meta.json").write_text("{}")
        os.utime(path, (at_ms / 1000, at_ms / 1000))
    os.utime(root / "dead" / "1_msg_d.meta.json", (at_ms / 1000 + 20 * 86_400, at_ms / 1000 + 20 * 86_400))


def test_the_outcome_counts_days_messages_and_keys_and_a_dry_run_says_the_same_and_changes_nothing(
    bench: Bench,
) -> None:
    root = bench.root
    settle(bench, "SUCCESS")
    settle(bench, "DEAD_LETTER")
    bench.now_ms += DAY
    settle(bench, "SUCCESS")
    old_files(root, NOON)
    bench.now_ms += 19 * DAY
    settle(bench, "SUCCESS")
    arguments = {"done_days": 7, "dead_days": 7, "key_days": 7, "now_ms": bench.now_ms}
    files = sorted(path for path in root.rglob("*") if path.is_file())
    tasks = left(bench)

    told = preview(bench.store, **arguments)
    assert sorted(path for path in root.rglob("*") if path.is_file()) == files and left(bench) == tasks

    done = purge(bench.store, **arguments, sleep=no_sleep)
    assert told == done
    assert (done.done_directories_purged, done.dead_files_purged, done.retry_files_purged) == (2, 2, 1)
    assert done.idempotency_rows_purged == 3
    assert len(left(bench)) == 1
    assert {path.name for path in (root / "meta").iterdir()} == {"msg_b.meta.json", "msg_d.meta.json"}
    assert [path.name for path in (root / "dead").iterdir()] == ["1_msg_d.meta.json"]
    assert len(list((root / "done").iterdir())) == 1


def test_a_purge_leaves_one_audit_row(bench: Bench) -> None:
    settle(bench, "SUCCESS")

    purge(bench.store, done_days=7, dead_days=7, key_days=7, now_ms=NOON + 20 * DAY, sleep=no_sleep)

    rows = [json.loads(line) for line in (bench.root / "audit" / "audit.log").read_text().splitlines()]
    (row,) = [row for row in rows if row["action"] == "storage.purge"]
    assert (row["resource"], row["result"]) == ("runtime/storage", "ok")
    assert row["details"]["done_dirs_purged"] == 1
    assert row["details"]["idempotency_rows_purged"] == 1


def test_links_in_the_folders_are_not_followed(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "1_msg.meta.json").write_text("{}")
    (bench.root / "done").mkdir(exist_ok=True)
    (bench.root / "done" / "2001-01-01").symlink_to(tmp_path / "outside")
    (bench.root / "dead" / "1_msg.meta.json").symlink_to(tmp_path / "outside" / "1_msg.meta.json")

    purge(bench.store, done_days=0, dead_days=0, key_days=0, now_ms=time.time_ns() // 10**6 + DAY, sleep=no_sleep)

    assert (tmp_path / "outside" / "1_msg.meta.json").exists()


# -- payload files ---------------------------------------------------------------------------------------------------

LONG = "x" * 70_000


def payload_files(bench: Bench) -> list[Path]:
    return sorted(path for path in (bench.root / "payload").rglob("*") if path.is_file())


def age(bench: Bench) -> None:
    """Make every payload file old."""
    for path in payload_files(bench):
        os.utime(path, (NOON / 1000 - 10_000, NOON / 1000 - 10_000))


def test_a_payload_file_goes_with_the_last_row_that_names_it(bench: Bench) -> None:
    settle(bench, "SUCCESS", LONG, key="one")
    bench.one(payload=LONG, key="two")
    settle(bench, "SUCCESS", LONG + "other", key="three")
    age(bench)
    assert len(payload_files(bench)) == 2

    purge(bench.store, done_days=0, dead_days=0, key_days=0, now_ms=NOON + 2 * DAY, sleep=no_sleep)

    (kept,) = payload_files(bench)
    assert bench.store.payloads.read(f"payload/{kept.parent.name}/{kept.name}") == LONG


def test_a_young_file_that_nothing_names_is_spared_for_its_row_may_be_on_its_way(bench: Bench) -> None:
    bench.store.payloads.spill(LONG)
    (path,) = payload_files(bench)
    now_ms = path.stat().st_mtime_ns // 10**6

    assert sweep(bench.store, now_ms=now_ms + YOUNG_MS - 1_000).files == 0
    assert sweep(bench.store, now_ms=now_ms + YOUNG_MS + 1_000) == (1, 70_000, False)
    assert payload_files(bench) == []


def test_a_text_that_is_stored_again_makes_its_file_young(bench: Bench) -> None:
    bench.store.payloads.spill(LONG)
    age(bench)

    bench.store.payloads.spill(LONG)

    assert sweep(bench.store, now_ms=time.time_ns() // 10**6).files == 0


def test_a_text_that_is_stored_while_its_file_is_being_removed_is_there_afterwards(bench: Bench) -> None:
    bench.store.payloads.spill(LONG)
    age(bench)
    (path,) = payload_files(bench)
    aside = path.with_name(f"{path.name}.sweep")
    path.rename(aside)  # where a sweep stands between its two looks

    name = bench.store.payloads.spill(LONG)
    aside.unlink()

    assert name is not None and bench.store.payloads.read(name) == LONG


def test_a_sweep_that_was_killed_between_its_looks_is_undone_by_the_next(bench: Bench) -> None:
    bench.one(payload=LONG)
    age(bench)
    (path,) = payload_files(bench)
    path.rename(path.with_name(f"{path.name}.sweep"))

    sweep(bench.store, now_ms=NOON)

    assert payload_files(bench) == [path]


def test_no_payload_file_goes_while_somebody_copies_the_root(bench: Bench) -> None:
    bench.store.payloads.spill(LONG)
    age(bench)

    with holding(bench.root / "run" / PAYLOAD_GUARD, Hold.SHARED):
        assert sweep(bench.store, now_ms=NOON).held_off
    assert len(payload_files(bench)) == 1
    assert sweep(bench.store, now_ms=NOON).files == 1


def test_compact_makes_the_database_shorter_cuts_the_log_and_removes_unused_files(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "root", Store.open(tmp_path / "root", now_ms=NOON))
    for number in range(50):
        settle(bench, "SUCCESS", "x" * 20_000, key=str(number))
    bench.store.payloads.spill(LONG)
    age(bench)
    run(Purge(bench.store, EVERYTHING, now_ms=lambda: NOON))

    outcome = compact(bench.store, now_ms=NOON, sleep=no_sleep)

    assert outcome.log_bytes_before > 0 and outcome.log_bytes_after == 0
    assert outcome.database_bytes_after < outcome.database_bytes_before
    assert (outcome.payload_files_removed, outcome.payload_bytes_removed) == (1, 70_000)
    assert bench.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]


def test_the_client_refuses_an_age_below_nought(tmp_path: Path) -> None:
    from relaymesh.errors import InputError

    with Client(tmp_path / "root") as client:
        client.init()
        with pytest.raises(InputError):
            client.purge(done_retention_days=-1)
