"""Every statement of the store goes through an index: what has ended must cost the queue nothing.

A scenario that uses all of the store runs over a connection that notes each statement with its values; then SQLite is
asked how it would run each. Values count: with them SQLite may see that a partial index fits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.store.scenario import note_everything, one_line

# Indexes that hold only what has not ended, or did not end well: walking one of them costs what is waiting or running.
BOUNDED = {
    "steps_ready",
    "steps_keyed",
    "steps_keyed_running",
    "steps_running",
    "steps_delayed",
    "steps_retrying",
    "steps_dead",
    "steps_map_open",
    "tasks_open",
    "tasks_rare",
    "tasks_expiry",
}
GROWING = {
    "tasks",
    "steps",
    "step_dependencies",
    "attempts",
    "attempt_logs",
    "lease_conflicts",
    "schedule_ticks",
    "discards",
}
# What may walk a growing table, and why.
ALLOWED = {
    "SELECT EXISTS(SELECT 1 FROM steps WHERE status NOT IN ('SUCCESS','CANCELLED'))": "import: a copy nobody uses yet",
    "UPDATE steps SET payload_path=substr(payload_path, ?) WHERE substr(payload_path, 1, ?)=?": "import: the same",
    "UPDATE steps SET result_path=substr(result_path, ?) WHERE substr(result_path, 1, ?)=?": "import: the same",
    "SELECT event_type, count(*) FROM lease_conflicts GROUP BY event_type": "stats: conflicts are few",
    "INSERT INTO row_counts(name, n) SELECT 'tasks.ids', count(*)-coalesce(max(id), 0) FROM tasks;": "import",
    "INSERT INTO row_counts(name, n) SELECT 'steps.ids', count(*)-coalesce(max(id), 0) FROM steps;": "import",
    "INSERT INTO row_counts(name, n) SELECT 'attempts.' || outcome, count(*) FROM attempts GROUP BY outcome;": "import",
    "INSERT INTO counters(name, value) SELECT ?, count(*) FROM lease_conflicts WHERE event_type=?": "once a type",
}
# Walks an index in its order and stops at its LIMIT.
LIMITED = re.compile(r"SCAN (tasks|s) USING INDEX tasks_updated$")

Plan = tuple[str, tuple[str, ...]]


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Plan]]:
    noting = note_everything(tmp_path_factory.mktemp("plans") / "root")
    found: list[Plan] = []
    for sql, values in noting.noted.items():
        if re.match(r"\s*(SELECT|UPDATE|INSERT|DELETE|WITH)\b", sql):
            plan = noting.conn.execute("EXPLAIN QUERY PLAN " + sql, values).fetchall()  # type: ignore[arg-type]
            found.append((one_line(sql), tuple(row[3] for row in plan)))
    yield found
    noting.conn.close()


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
        r"SELECT id, queued_at_ms, .* steps_ready .* ORDER BY queued_at_ms LIMIT \?",
        ["SEARCH steps USING INDEX steps_ready (agent_id=? AND priority=?)"],
    ),
    "all that is ready, when it is little": (
        r"SELECT id, queued_at_ms, .* concurrency_key IS NULL LIMIT 17",
        ["SCAN steps USING INDEX steps_ready"],
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
    "a success of its own": (
        r"UPDATE steps SET status='SUCCESS', result_payload=\?6.*",
        ["SEARCH steps USING INTEGER PRIMARY KEY (rowid=?)"],
    ),
    "the task of a single step": (
        r"UPDATE tasks SET status='SUCCESS'.* FROM .*",
        ["tasks USING INDEX sqlite_autoindex_tasks_1"],
    ),
    "the only task of a single step": (
        r"UPDATE tasks SET status='SUCCESS', result_payload=\?3.*",
        ["SEARCH tasks USING INDEX sqlite_autoindex_tasks_1"],
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
        r"SELECT step_id, result_payload, result_path FROM steps WHERE map_parent=\? .*",
        ["SEARCH steps USING INDEX steps_map (map_parent=?)"],
    ),
    "outputs of dependencies": (
        r"\s*SELECT s\.result_payload, s\.result_path FROM step_dependencies d.*",
        ["(depends_on_step_id=? AND step_id=? AND namespace=? AND task_id=?)"],
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
        r"SELECT count\(\*\) FROM \(SELECT 1 FROM tasks WHERE \(status='RETRYING' OR .* AND updated_at_ms>=\? LIMIT.*",
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
    ((_, plan),) = [(sql, plan) for sql, plan in plans if sql.startswith("SELECT (SELECT min(next_retry")]

    assert [line for line in plan if "steps" in line] == [
        "SEARCH steps USING INDEX steps_retrying",
        "SEARCH steps USING INDEX steps_delayed",
    ]
