"""The member table: heartbeats by the rules, verdicts over what was read, and what is remembered of who was pruned."""

from __future__ import annotations

from relaymesh.core.mesh.local import MemberRules
from relaymesh.core.mesh.silence import Heard, Patience, Row
from relaymesh.core.mesh.view import GRAVES_MAX
from relaymesh.store.grave import GRAVE_AGE_MS, buried, prune, prune_is_due
from relaymesh.store.member import (
    dead_members,
    leases_of,
    read_row,
    reclaimers,
    reconcile,
    status_of,
    summary,
    take_heartbeat,
    vanished_owners,
    write_row,
)
from relaymesh.store.node_row import Capabilities
from relaymesh.store.presence import host_name, take_presence
from relaymesh.wire.store import WriteNode
from tests.store.bench import NOON, Bench

PATIENCE = Patience()
DAY_MS = 86_400_000


def seed(bench: Bench, node_id: str, status: str, *, silent_ms: int = 0, for_ms: int = 0, generation: int = 0) -> None:
    bench.store.conn.execute(
        "INSERT INTO mesh_nodes(node_id, status, last_heartbeat_ms, updated_at_ms, status_changed_at_ms, generation)"
        " VALUES (?,?,?,?,?,?)",
        (node_id, status, NOON - silent_ms, NOON - for_ms, NOON - for_ms, generation),
    )


def beat(bench: Bench, node_id: str) -> Heard:
    with bench.store.write():
        return take_heartbeat(
            bench.store.conn, node_id, heartbeat_ms=bench.now_ms, now_ms=bench.now_ms, patience=PATIENCE
        )


def counter(bench: Bench, name: str) -> int:
    rows = bench.rows("SELECT value FROM counters WHERE name=?", name)
    return int(str(rows[0]["value"])) if rows else 0


def statuses(bench: Bench) -> dict[object, object]:
    return {row["node_id"]: row["status"] for row in bench.rows("SELECT node_id, status FROM mesh_nodes")}


def register(bench: Bench, node_id: str, *, host: str = "elsewhere", reclaims: bool = True) -> int:
    agents = Capabilities(reclaims=reclaims).to_json()
    with bench.store.write():
        return bench.store.register_node(node_id, pid=1, host=host, agents=agents, now_ms=bench.now_ms)


def test_a_recovery_that_a_dwell_time_holds_back_is_counted_and_stored_as_a_heartbeat(bench: Bench) -> None:
    seed(bench, "n", "DEAD", silent_ms=5, for_ms=29_000)

    assert beat(bench, "n").suppressed
    assert read_row(bench.store.conn, "n") == Row("DEAD", NOON, NOON, NOON - 29_000)
    bench.now_ms += 1_000
    assert not beat(bench, "n").suppressed

    assert status_of(bench.store.conn, "n") == "ALIVE"
    assert counter(bench, "membership_recovery_suppressed") == 1


def test_a_row_that_has_changed_since_it_was_read_is_not_written_over(bench: Bench) -> None:
    seed(bench, "n", "ALIVE", silent_ms=90_000)
    read = read_row(bench.store.conn, "n")
    beat(bench, "n")

    with bench.store.write():
        assert not write_row(bench.store.conn, "n", read, Row("DEAD", NOON, NOON, NOON))

    assert status_of(bench.store.conn, "n") == "ALIVE"


def test_silence_is_marked_with_how_long_it_was_and_only_once(bench: Bench) -> None:
    seed(bench, "well", "ALIVE", silent_ms=29_000)
    seed(bench, "doubted", "ALIVE", silent_ms=31_000)
    seed(bench, "lost", "ALIVE", silent_ms=61_000)
    seed(bench, "given-up", "SUSPECT", silent_ms=62_000)
    seed(bench, "gone", "LEFT", silent_ms=10 * DAY_MS)

    with bench.store.write():
        first = reconcile(bench.store.conn, now_ms=NOON, patience=PATIENCE)
        second = reconcile(bench.store.conn, now_ms=NOON, patience=PATIENCE)

    assert first.suspected == (("doubted", 31_000),)
    assert first.dead == (("given-up", 62_000), ("lost", 61_000))
    assert second == ((), ())
    assert statuses(bench) == {
        "well": "ALIVE",
        "doubted": "SUSPECT",
        "lost": "DEAD",
        "given-up": "DEAD",
        "gone": "LEFT",
    }
    assert read_row(bench.store.conn, "lost") == Row("DEAD", NOON - 61_000, NOON, NOON)


def test_a_node_may_not_keep_itself_alive_against_its_dwell_time(bench: Bench) -> None:
    register(bench, "n")
    bench.store.conn.execute("UPDATE mesh_nodes SET status='SUSPECT', status_changed_at_ms=?", (NOON,))

    with bench.store.write():
        early = bench.store.write_heartbeat(WriteNode("n", 1, "ALIVE", "{}"), now_ms=NOON + 4_999)
        late = bench.store.write_heartbeat(WriteNode("n", 1, "ALIVE", "{}"), now_ms=NOON + 5_000)

    assert early is not None and early.row is not None and (early.row.status, early.suppressed) == ("SUSPECT", True)
    assert late is not None and late.row is not None and (late.row.status, late.suppressed) == ("ALIVE", False)


def test_a_node_that_says_goodbye_has_left_at_once_and_is_back_at_once(bench: Bench) -> None:
    register(bench, "n")
    with bench.store.write():
        bench.store.write_heartbeat(WriteNode("n", 1, "LEFT", "{}"), now_ms=NOON + 1)
    assert status_of(bench.store.conn, "n") == "LEFT"

    assert register(bench, "n") == 2
    assert status_of(bench.store.conn, "n") == "ALIVE"


def test_who_was_dead_or_has_left_for_long_is_pruned_oldest_first(bench: Bench) -> None:
    for number, status in enumerate(("DEAD", "LEFT", "DEAD", "ALIVE", "SUSPECT")):
        seed(bench, f"n{number}", status, for_ms=10_000 - number)
    seed(bench, "young", "DEAD", for_ms=4_999)

    with bench.store.write():
        first = prune(bench.store.conn, older_than_ms=5_000, limit=2, now_ms=NOON)
        second = prune(bench.store.conn, older_than_ms=5_000, limit=2, now_ms=NOON)

    assert first == (("n0", "n1"), 2)
    assert second == (("n2",), 3)
    assert set(statuses(bench)) == {"n3", "n4", "young"}
    assert counter(bench, "mesh_nodes_pruned") == 3


def test_a_member_that_still_owns_a_running_step_is_kept_until_that_is_taken_back(bench: Bench) -> None:
    bench.one()
    bench.claim("n")
    seed(bench, "n", "DEAD", for_ms=DAY_MS)

    with bench.store.write():
        kept = prune(bench.store.conn, older_than_ms=0, limit=9, now_ms=NOON)
    bench.reclaim(*bench.seen(), cause="owner_dead")
    with bench.store.write():
        gone = prune(bench.store.conn, older_than_ms=0, limit=9, now_ms=NOON)

    assert (kept, gone) == (((), 0), (("n",), 1))


def test_a_node_that_was_pruned_comes_back_with_a_later_generation(bench: Bench) -> None:
    seed(bench, "n", "DEAD", for_ms=DAY_MS, generation=7)
    with bench.store.write():
        prune(bench.store.conn, older_than_ms=0, limit=9, now_ms=NOON)
    assert buried(bench.store.conn, "n", now_ms=NOON) == 7
    assert buried(bench.store.conn, "another", now_ms=NOON) is None

    assert register(bench, "n") == 8

    assert buried(bench.store.conn, "n", now_ms=NOON) is None


def test_a_grave_is_forgotten_after_its_time_and_there_are_never_too_many(bench: Bench) -> None:
    conn = bench.store.conn
    seed(bench, "n", "DEAD", for_ms=DAY_MS, generation=7)
    with bench.store.write():
        prune(conn, older_than_ms=0, limit=9, now_ms=NOON)
        conn.executemany(
            "INSERT INTO cluster_state(state_key, state_value, version, updated_at_ms) VALUES (?, '1', 1, ?)",
            [(f"grave.{number:016x}", NOON + number) for number in range(GRAVES_MAX + 3)],
        )
        prune(conn, older_than_ms=0, limit=9, now_ms=NOON + 1)

    (count,) = conn.execute("SELECT count(*) FROM cluster_state WHERE state_key LIKE 'grave.%'").fetchone()
    assert count == GRAVES_MAX
    assert buried(conn, "n", now_ms=NOON + GRAVE_AGE_MS) is None
    assert status_of(conn, "n") is None
    (epoch,) = conn.execute("SELECT state_value FROM cluster_state WHERE state_key='cluster_epoch'").fetchone()
    assert epoch == "1"


def test_a_prune_is_due_when_the_last_is_long_ago_and_somebody_is_gone(bench: Bench) -> None:
    rules = MemberRules(prune_older_than_ms=5_000, prune_interval_ms=60_000)

    def due(now_ms: int, rules: MemberRules = rules) -> bool:
        return prune_is_due(bench.store.conn, rules, now_ms=now_ms)

    assert not due(NOON)
    seed(bench, "n", "DEAD", for_ms=6_000)
    assert due(NOON)
    assert not due(NOON, MemberRules(prune_older_than_ms=5_000, prune_interval_ms=0))
    with bench.store.write():
        prune(bench.store.conn, older_than_ms=5_000, limit=9, now_ms=NOON)
    seed(bench, "m", "DEAD", for_ms=6_000)
    assert not due(NOON + 59_999)
    assert due(NOON + 60_000)
    assert due(NOON - 1), "the last one lies in the future: the clock was set back"


def test_the_summary_counts_members_and_the_steps_of_their_owners(bench: Bench) -> None:
    seed(bench, "a", "ALIVE", silent_ms=1_000)
    seed(bench, "s", "SUSPECT", silent_ms=40_000)
    seed(bench, "d", "DEAD", silent_ms=90_000, for_ms=70_000)
    seed(bench, "d2", "DEAD", silent_ms=80_000, for_ms=30_000)
    seed(bench, "l", "LEFT", silent_ms=DAY_MS)
    for owner in ("a", "a", "s", "d", "l", "nobody"):
        bench.one()
        bench.claim(owner)

    found = summary(bench.store.conn, now_ms=NOON)

    assert found[:4] == (5, 1, 1, 2)
    assert found[4:8] == (2, 1, 1, 2)
    assert (found.oldest_dead_age_ms, found.spread_ms) == (70_000, 89_000)


def test_reclaimers_are_the_nodes_that_live_and_take_steps_back(bench: Bench) -> None:
    here = host_name()
    take_presence(bench.root / "run", "vanished").release()
    held = take_presence(bench.root / "run", "present")
    for node_id, options in {
        "elsewhere": {},
        "vanished": {"host": here},
        "present": {"host": here},
        "idle": {"reclaims": False},
        "quiet": {},
        "dead": {},
    }.items():
        register(bench, node_id, **options)  # type: ignore[arg-type]
    seed(bench, "by-hand", "ALIVE")
    bench.store.conn.execute("UPDATE mesh_nodes SET last_heartbeat_ms=? WHERE node_id='quiet'", (NOON - 15_001,))
    bench.store.conn.execute("UPDATE mesh_nodes SET status='DEAD' WHERE node_id='dead'")

    found = reclaimers(bench.store.conn, bench.root / "run", now_ms=NOON, beat_ms=5_000)

    assert found == {"elsewhere", "present"}
    held.release()


def test_what_the_dead_own_is_found_by_member_and_by_vanished_process(bench: Bench) -> None:
    take_presence(bench.root / "run", "vanished").release()
    seed(bench, "d", "DEAD")
    seed(bench, "a", "ALIVE")
    for owner in ("d", "vanished", "a"):
        bench.one()
        bench.claim(owner)
        bench.now_ms += 10

    dead = [*dead_members(bench.store.conn), *vanished_owners(bench.store.conn, bench.root / "run")]

    assert dead == ["d", "vanished"]
    assert [lease.owner for lease in leases_of(bench.store.conn, dead, limit=9)] == ["d", "vanished"]
    assert [lease.owner for lease in leases_of(bench.store.conn, dead, limit=1)] == ["d"]
