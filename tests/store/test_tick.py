"""One round of maintenance by hand, and the look at a root's health."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from relaymesh.node_view import MaintenanceOutcome
from relaymesh.settings import Settings
from relaymesh.store.clock import load_clock
from relaymesh.store.health import check
from relaymesh.store.presence import take_presence
from relaymesh.store.root import DATABASE, normalize_namespace, scoped_root
from relaymesh.store.tick import maintenance_tick
from tests.store.bench import NOON, Bench

HOUR_MS = 3_600_000


def tick(bench: Bench, **settings: int) -> MaintenanceOutcome:
    return maintenance_tick(bench.store, "n", Settings(**settings), now_ms=bench.now_ms)  # type: ignore[arg-type]


def test_a_round_starts_what_is_due_expires_what_is_late_and_counts(bench: Bench) -> None:
    retried, late = bench.one(), bench.one(expires_at_ms=NOON + 100)
    (lease,) = bench.claim(limit=1)
    bench.fail(lease)
    bench.now_ms += 2_000

    outcome = tick(bench)

    assert outcome.node_id == "n" and outcome.retry_messages_dispatched == 1
    assert (bench.step(retried)["status"], bench.step(late)["status"]) == ("PENDING", "CANCELLED")


def test_a_lease_that_is_renewed_is_never_taken(bench: Bench) -> None:
    bench.one()
    (lease,) = bench.claim("elsewhere")

    for _ in range(5):
        bench.now_ms += 2_000
        with bench.store.write():
            bench.store.renew([(lease.row_id, lease.lease_token, 1, 1)], now_ms=bench.now_ms)
        assert tick(bench, lease_timeout_ms=3_000).wall_reclaimed == 0


def test_a_jump_of_the_wall_clock_takes_no_lease_in_this_round_and_the_next(bench: Bench) -> None:
    step_id = bench.one()
    bench.claim("elsewhere")
    tick(bench)

    for jump_ms in (HOUR_MS, 0, -2 * HOUR_MS, 0):
        bench.now_ms += jump_ms
        assert tick(bench).wall_reclaimed == 0

    assert bench.step(step_id)["status"] == "RUNNING"


def test_the_clock_is_handed_on_to_the_next_process_and_a_damaged_one_is_forgotten(bench: Bench) -> None:
    tick(bench)
    state = load_clock(bench.store.conn)
    assert state is not None and state.wall_ms == NOON

    bench.store.conn.execute("UPDATE cluster_state SET state_value='[1' WHERE state_key='clock'")

    assert load_clock(bench.store.conn) is None
    tick(bench)
    assert load_clock(bench.store.conn) is not None


def test_the_steps_of_a_dead_process_are_taken_however_young_and_a_live_ones_however_old(bench: Bench) -> None:
    take_presence(bench.root / "run", "gone").release()
    alive = take_presence(bench.root / "run", "alive")
    of_gone, of_alive = bench.one(), bench.one()
    bench.claim("gone", limit=1)
    bench.claim("alive", limit=1)

    outcome = tick(bench)

    assert (outcome.dead_owner_reclaimed, outcome.wall_reclaimed) == (1, 0)
    assert (bench.step(of_gone)["status"], bench.step(of_alive)["status"]) == ("PENDING", "RUNNING")
    assert bench.rows("SELECT value FROM counters WHERE name='dead_owner_reclaimed'") == [{"value": 1}]
    alive.release()


def test_no_more_is_taken_in_a_round_than_the_setting_says(bench: Bench) -> None:
    for _ in range(5):
        bench.one()
    bench.claim("elsewhere")
    bench.now_ms += 60_000

    # A first look believes the wall clock, as a command does that runs once.
    assert tick(bench, retry_dispatch_limit=3).wall_reclaimed == 3


def test_a_new_root_is_healthy(bench: Bench) -> None:
    outcome = check(bench.root, now_ms=NOON)

    assert outcome.ok and outcome.db_ok
    assert (outcome.disk_free_bytes > 0, outcome.checked_at) == (True, "2023-11-14T22:13:20.000Z")


@pytest.mark.parametrize(
    ("folder", "field"),
    [
        ("inbox/low", "inbox_dir_ok"),
        ("processing", "processing_dir_ok"),
        ("meta", "meta_dir_ok"),
        ("payload", "payload_dir_ok"),
        ("audit", "audit_dir_ok"),
    ],
)
def test_a_folder_that_is_gone_is_told(bench: Bench, folder: str, field: str) -> None:
    shutil.rmtree(bench.root / folder)

    outcome = check(bench.root, now_ms=NOON)

    assert not outcome.ok and outcome.db_ok and getattr(outcome, field) is False


@pytest.mark.parametrize("what", ["missing", "garbage", "folder", "newer", "no root"])
def test_a_database_that_cannot_be_used_is_told_and_not_made(tmp_path: Path, what: str) -> None:
    root = tmp_path / "root"
    bench = Bench(root)
    bench.store.conn.execute("PRAGMA user_version=99" if what == "newer" else "SELECT 1")
    bench.close()
    path = root / DATABASE
    match what:
        case "missing":
            path.unlink()
        case "garbage":
            path.write_bytes(b"garbage" * 1_000)
        case "folder":
            path.unlink()
            path.mkdir()
        case "no root":
            shutil.rmtree(root)

    outcome = check(root, now_ms=NOON)

    assert not outcome.ok and not outcome.db_ok
    assert path.exists() == (what not in ("missing", "no root"))


@pytest.mark.parametrize(
    ("name", "becomes"),
    [
        ("Team Blue", "team-blue"),
        ("  ", "default"),
        ("..", "ns.."),
        (".hidden", "ns.hidden"),
        ("../../etc", "ns..-..-etc"),
        ("a---b//c", "a-b-c"),
        ("größe", "gr-e"),
        ("DEFAULT", "default"),
        ("a\0b\nc", "a-b-c"),
    ],
)
def test_a_namespace_is_never_a_path(name: str, becomes: str) -> None:
    assert normalize_namespace(name) == becomes
    assert scoped_root(Path("data"), becomes).is_relative_to(Path("data").absolute())
