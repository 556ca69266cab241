"""Every statement of the store goes through an index: what has ended must cost the queue nothing.

A scenario that uses all of the store runs over a connection that notes each statement with its values; then SQLite is
asked how it would run each. Values count: with them SQLite may see that a partial index fits.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import relaymesh.store
from relaymesh.settings import Settings
from relaymesh.store import read
from relaymesh.store.admin import CancelMode, forget_keys
from relaymesh.store.export import export_dead, export_task
from relaymesh.store.stats import stats
from relaymesh.store.tick import maintenance_tick
from relaymesh.store.why import explanations
from relaymesh.watch import read_logs, watch
from relaymesh.wire.store import WriteNode
from relaymesh.wire.work import LogLine
from tests.store.bench import NOON, Bench, policy_of

# Indexes that hold only what has not ended, or did not end well: walking one of them costs what is waiting or running.
BOUNDED = {
    "steps_ready",
    "steps_running",
    "steps_delayed",
    "steps_retrying",
    "steps_dead",
    "steps_map_open",
    "tasks_open",
    "tasks_rare",
    "tasks_expiry",
}
GROWING = {"tasks", "steps", "step_dependencies", "attempts", "attempt_logs", "lease_conflicts"}
# What may walk a growing table, and why.
ALLOWED = {
    "SELECT count(*) FROM tasks": "stats: a covering index, 10 ns a row",
    "SELECT count(*) FROM steps": "stats: a covering index, 40 ns a row",
    "SELECT outcome, count(*) FROM attempts GROUP BY outcome": "stats: a covering index of what went wrong",
    "SELECT event_type, count(*) FROM lease_conflicts GROUP BY event_type": "stats: conflicts are few",
}
# Walks an index in its order and stops at its LIMIT.
LIMITED = re.compile(r"SCAN (tasks|s) USING INDEX tasks_updated$")

Plan = tuple[str, tuple[str, ...]]


class Noting:
    """A connection that notes what it is asked."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self.conn = conn
        self.noted: dict[str, object] = {}

    def execute(self, sql: str, values: object = ()) -> sqlite3.Cursor:
        self.noted.setdefault(sql, values)
        return self.conn.execute(sql, values)  # type: ignore[arg-type]

    def executemany(self, sql: str, values: Sequence[object]) -> sqlite3.Cursor:
        if values:
            self.noted.setdefault(sql, values[0])
        return self.conn.executemany(sql, values)

    def __getattr__(self, name: str) -> object:
        return getattr(self.conn, name)


def use_everything(bench: Bench) -> None:
    store, conn = bench.store, bench.store.conn
    flow = bench.flow({"id": "a"}, {"id": "m", "map": {"$from": "a"}}, {"id": "z", "input": {"$from": "m"}})
    bench.flow({"id": "m", "map": [1, 2]})
    for number in range(9):
        bench.one(key=str(number % 7))
    leases = bench.claim(limits={"echo": 100})
    bench.succeed(leases[0], "[1,2]", log=[LogLine(NOON, "INFO", "x")])
    bench.fail(leases[1])
    bench.snooze(leases[2], 0)
    bench.release(leases[3])
    bench.lose(leases[4])
    bench.fail(leases[5], retryable=False)
    bench.succeed(leases[6])
    bench.succeed(leases[6])
    with store.write():
        store.renew(
            [(lease.row_id, lease.lease_token, lease.lease_epoch, lease.cluster_epoch) for lease in leases],
            progress=[(leases[7].row_id, "half")],
            now_ms=NOON,
        )
        store.register_node("n1", pid=1, host="h", agents="{}", now_ms=NOON)
        store.write_heartbeat(WriteNode("n1", 1, "ALIVE", "{}"), now_ms=NOON)
        store.requeue_former_generation(node_id="n1", generation=2, policy_of=policy_of, now_ms=NOON)
        store.cancel(leases[8].task_id, mode=CancelMode.SOFT, reason="r", now_ms=NOON)
        store.replay(leases[5].task_id, now_ms=NOON)
        forget_keys(conn, before_ms=NOON + 10, limit=2)
        forget_keys(conn, before_ms=NOON + 10, limit=2)
        store.add_counter("x", 1)
    bench.now_ms += 10_000
    bench.promote()
    for row in bench.claimed_rows():
        store.render(row)
    bench.reclaim(*bench.seen("n2"))
    bench.one(expires_at_ms=NOON)
    with store.write():
        store.expire_tasks(now_ms=bench.now_ms, limit=3)
    store.next_due_ms()
    store.has_expired(now_ms=NOON)
    store.has_ready(lambda _: False)
    bench.promote()
    bench.run_all(output="[]")
    stats(conn, bench.root, namespace="default", now_ms=bench.now_ms)
    read.task_view(conn, flow, store.payloads.read)
    read._result(conn, flow, store.payloads.read)
    read.workflow_detail(conn, flow)
    list(read.outputs(conn, flow, store.payloads.read))
    list(read_logs(store, flow, follow=True))
    list(watch(store, flow, 1_000))
    read.lease_conflicts(conn, since_ms=0, limit=5)
    for status in (None, "PENDING", "RUNNING", "SUCCESS", "RETRYING", "DEAD_LETTER", "CANCELLED", "FAILED"):
        read.task_summaries(conn, status=status, limit=5, offset=0, label=None)
    read.task_summaries(conn, status=None, limit=5, offset=0, label=("a", "b"))
    explanations(conn, bench.root / "run", flow, lease_timeout_ms=1, now_ms=bench.now_ms)
    export_dead(store, bench.root / "dead.json", 5)
    export_task(store, flow, bench.root / "task.json", now_ms=NOON)
    maintenance_tick(store, "n", Settings(), now_ms=bench.now_ms)


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Plan]]:
    bench = Bench(tmp_path_factory.mktemp("plans") / "root")
    noting = Noting(bench.store.conn)
    bench.store.conn = noting  # type: ignore[assignment]
    use_everything(bench)
    found: list[Plan] = []
    for sql, values in noting.noted.items():
        if re.match(r"\s*(SELECT|UPDATE|INSERT|DELETE|WITH)\b", sql):
            plan = noting.conn.execute("EXPLAIN QUERY PLAN " + sql, values).fetchall()  # type: ignore[arg-type]
            found.append((re.sub(r"\s+", " ", sql).strip(), tuple(row[3] for row in plan)))
    yield found
    bench.close()


def walks(sql: str, line: str) -> bool:
    """Return whether a line of a plan reads all of a growing table, or all of an index that grows with it."""
    found = re.match(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?", line)
    if found is None or found[2] in BOUNDED or (LIMITED.match(line) and " LIMIT ?" in sql):
        return False
    name = found[1]
    tables = {name} | set(re.findall(rf"\b(\w+) (?:AS )?{name}\b", sql))
    return bool(tables & GROWING)


def test_no_statement_walks_a_table_that_history_makes_longer(plans: list[Plan]) -> None:
    walking = {sql: plan for sql, plan in plans if sql not in ALLOWED and any(walks(sql, line) for line in plan)}

    assert walking == {}
    assert len(plans) > 90


def test_what_is_allowed_to_walk_is_still_there(plans: list[Plan]) -> None:
    walking = {sql for sql, plan in plans if any(walks(sql, line) for line in plan)}

    assert walking == set(ALLOWED)


HOT = {
    "the heads of a lane": (
        r"SELECT id, queued_at_ms, .* ORDER BY queued_at_ms LIMIT \?",
        ["SEARCH steps USING INDEX steps_ready (agent_id=? AND priority=?)"],
    ),
    "the take": (r"UPDATE steps SET status='RUNNING'.*", ["SEARCH steps USING INTEGER PRIMARY KEY (rowid=?)"]),
    "the task of a take": (
        r"UPDATE tasks SET status='RUNNING'.*",
        ["SEARCH tasks USING INDEX sqlite_autoindex_tasks_1"],
    ),
    "a success": (
        r"UPDATE steps SET status='SUCCESS', result_payload=v.*",
        ["steps USING INTEGER PRIMARY KEY (rowid=?)"],
    ),
    "the task of a single step": (
        r"UPDATE tasks SET status='SUCCESS'.* FROM .*",
        ["tasks USING INDEX sqlite_autoindex_tasks_1"],
    ),
    "a failure": (
        r"UPDATE steps SET status='RETRYING'.* WHERE id=\?.*",
        ["SEARCH steps USING INTEGER PRIMARY KEY (rowid=?)"],
    ),
    "a renewal": (r"UPDATE steps SET updated_at_ms=max\(v.*", ["steps USING INTEGER PRIMARY KEY (rowid=?)"]),
    "the release of dependents": (
        r"UPDATE steps SET waiting_on=steps\.waiting_on-d\.n, is_enqueued.*",
        [
            "step_dependencies USING COVERING INDEX step_dependents (depends_on_step_id=?)",
            "steps USING INDEX sqlite_autoindex_steps_1",
        ],
    ),
    "the release of maps": (
        r"UPDATE steps SET waiting_on=steps\.waiting_on-d\.n FROM .*",
        ["steps USING INDEX sqlite_autoindex_steps_1 (step_id=?)"],
    ),
    "open maps": (
        r"SELECT step_id, task_id, namespace, .* steps_map_open .*",
        ["steps USING INDEX steps_map_open (task_id=?)"],
    ),
    "the copies of a map": (
        r"SELECT result_payload, result_path FROM steps WHERE map_parent=\? .*",
        ["SEARCH steps USING INDEX steps_map (map_parent=?)"],
    ),
    "outputs of dependencies": (
        r"SELECT s\.step_id, s\.task_id, s\.result_payload.*",
        ["d USING PRIMARY KEY (namespace=? AND task_id=? AND step_id=?)"],
    ),
    "promoting retries": (
        r"UPDATE steps SET status='PENDING', next_retry_at_ms=NULL, queued.*",
        [
            "SEARCH steps USING INTEGER PRIMARY KEY (rowid=?)",
            "SEARCH steps USING INDEX steps_retrying (next_retry_at_ms<?)",
        ],
    ),
    "promoting what was delayed": (
        r"UPDATE steps SET delayed=0, .*",
        [
            "SEARCH steps USING INTEGER PRIMARY KEY (rowid=?)",
            "SEARCH steps USING INDEX steps_delayed (not_before_ms<?)",
        ],
    ),
    "tasks that expire": (
        r"SELECT task_id FROM tasks INDEXED BY tasks_expiry.*",
        ["SEARCH tasks USING INDEX tasks_expiry (expires_at_ms"],
    ),
    "what expires of them": (
        r"UPDATE steps SET status='CANCELLED', last_error='expired'.*",
        ["SEARCH steps USING INDEX steps_task (task_id=?)"],
    ),
    "a former generation": (
        r"SELECT id, lease_token.* owner_generation<\?",
        ["SEARCH steps USING INDEX steps_running (lease_owner=?)"],
    ),
    "the holder of a key": (
        r"SELECT task_id FROM tasks WHERE idempotency_key=\? AND key_live=1",
        ["SEARCH tasks USING INDEX tasks_live_key"],
    ),
    "old keys": (r"SELECT updated_at_ms, id, key_live.*", ["SEARCH tasks USING INDEX tasks_updated (updated_at_ms"]),
    "dead letters of an hour": (
        r"SELECT count\(\*\) FROM tasks WHERE status IN .* AND updated_at_ms>=\?",
        ["tasks_rare (status=? AND updated_at_ms>?)"],
    ),
}


@pytest.mark.parametrize("what", HOT)
def test_a_hot_statement_uses_the_index_that_was_made_for_it(plans: list[Plan], what: str) -> None:
    pattern, wanted = HOT[what]
    matching = [(sql, plan) for sql, plan in plans if re.fullmatch(pattern, sql)]

    assert matching, "the statement is gone, or the scenario does not reach it"
    for sql, plan in matching:
        for part in wanted:
            assert any(part in line for line in plan), (sql, plan)


def test_the_next_time_something_is_due_is_one_look_into_each_index(plans: list[Plan]) -> None:
    ((_, plan),) = [(sql, plan) for sql, plan in plans if sql.startswith("SELECT min(at)") and "next_retry" in sql]

    assert [line for line in plan if "steps" in line] == [
        "SEARCH steps USING INDEX steps_retrying",
        "SEARCH steps USING INDEX steps_delayed",
    ]


def test_the_scenario_reaches_every_statement_that_writes(plans: list[Plan]) -> None:
    sources = Path(relaymesh.store.__file__).parent.glob("*.py")
    written = "".join(path.read_text("utf-8") for path in sources)
    heads = set(re.findall(r"UPDATE (?:steps|tasks|mesh_nodes) SET [a-z_]+=\S{0,9}", written))
    reached = " | ".join(sql for sql, _ in plans)

    assert len(heads) > 15
    assert {head for head in heads if head not in reached} == set()
    assert "DELETE FROM" not in written
