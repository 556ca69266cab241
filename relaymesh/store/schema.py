"""The tables, as numbered migrations. A released migration is never edited: its checksum is in every root.

Names and columns are the ones that operators and their scripts know. What the queue needs beyond them has defaults, so
a row that lists only the known columns is complete. What no hot path needs is a view (``messages``, ``idempotency``).

``steps`` carries three small facts that decide whether it can be claimed:

    status='PENDING' AND waiting_on=0 AND delayed=0      ready; in ``steps_ready``, or with a key in ``steps_keyed``
    waiting_on   dependencies that have not succeeded (a map step: plus one until it is spread out)
    delayed      1 until ``not_before_ms``

Finished rows are in no index that the queue reads, so history costs the queue nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from relaymesh.store.row_count import DOWN as _COUNT_DOWN
from relaymesh.store.row_count import UP as _COUNT_UP

__all__ = ["INCLUDED", "KEYED_READY", "MIGRATIONS", "PLAIN_READY", "RARE", "READY", "SCHEMA_VERSION", "Migration"]

# The text must be the same in the index and in each query, or SQLite does not use the index.
READY = "status='PENDING' AND waiting_on=0 AND delayed=0"
# Ready steps that have a concurrency key lie apart: however many wait behind one key, nobody else walks past them.
PLAIN_READY = f"{READY} AND concurrency_key IS NULL"
KEYED_READY = f"{READY} AND concurrency_key IS NOT NULL"
RARE = "(status='RETRYING' OR status='DEAD_LETTER' OR status='CANCELLED')"


class Migration(NamedTuple):
    """One step of the schema. ``number`` counts from 1; ``version`` is the name that operators see.

    checksum: SHA-256 of ``up``, hex; written down, because every command that opens a root compares it, and to load
        the library that computes it takes longer than to look a task up.
    down: statements that take it back without losing data; None where that cannot be. empty: tables that must have no
        rows for that.
    """

    number: int
    version: str
    description: str
    checksum: str
    up: str
    down: str | None = None
    empty: tuple[str, ...] = ()


_BASE = f"""
CREATE TABLE tasks (
    id INTEGER PRIMARY KEY,
    task_id TEXT NOT NULL UNIQUE,
    namespace TEXT NOT NULL DEFAULT 'default',
    status TEXT NOT NULL,
    idempotency_key TEXT,
    principal_id TEXT NOT NULL DEFAULT '',
    trace_id TEXT,
    result_payload TEXT,
    last_error TEXT,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    key_live INTEGER NOT NULL DEFAULT 0,
    open_steps INTEGER,
    result_hash TEXT,
    finished_at_ms INTEGER,
    expires_at_ms INTEGER,
    labels TEXT,
    traceparent TEXT
);
CREATE UNIQUE INDEX tasks_live_key ON tasks(idempotency_key) WHERE key_live=1;
CREATE INDEX tasks_updated ON tasks(updated_at_ms);
CREATE INDEX tasks_open ON tasks(id) WHERE finished_at_ms IS NULL;
CREATE INDEX tasks_rare ON tasks(status, updated_at_ms) WHERE status IN ('RETRYING','DEAD_LETTER','CANCELLED');
CREATE INDEX tasks_expiry ON tasks(expires_at_ms) WHERE expires_at_ms IS NOT NULL AND finished_at_ms IS NULL;

CREATE TABLE steps (
    id INTEGER PRIMARY KEY,
    step_id TEXT NOT NULL UNIQUE,
    namespace TEXT NOT NULL DEFAULT 'default',
    task_id TEXT NOT NULL REFERENCES tasks(task_id),
    agent_id TEXT NOT NULL,
    priority TEXT NOT NULL DEFAULT 'NORMAL',
    payload_path TEXT NOT NULL DEFAULT '',
    is_enqueued INTEGER NOT NULL DEFAULT 0,
    result_payload TEXT,
    status TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    next_retry_at_ms INTEGER,
    lease_owner TEXT,
    lease_token TEXT,
    lease_epoch INTEGER NOT NULL DEFAULT 0,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    payload TEXT,
    result_path TEXT,
    shape INTEGER NOT NULL DEFAULT 0,
    waiting_on INTEGER NOT NULL DEFAULT 0,
    delayed INTEGER NOT NULL DEFAULT 0,
    not_before_ms INTEGER,
    queued_at_ms INTEGER NOT NULL DEFAULT 0,
    started_at_ms INTEGER,
    cluster_epoch INTEGER NOT NULL DEFAULT 0,
    owner_generation INTEGER NOT NULL DEFAULT 0,
    worker_id TEXT,
    worker_deaths INTEGER NOT NULL DEFAULT 0,
    owner_deaths INTEGER NOT NULL DEFAULT 0,
    last_error TEXT,
    progress TEXT,
    template INTEGER NOT NULL DEFAULT 0,
    map_template TEXT,
    map_parent TEXT,
    map_index INTEGER,
    map_item TEXT,
    traceparent TEXT
);
CREATE INDEX steps_ready ON steps(agent_id, priority, queued_at_ms) WHERE {READY};
CREATE INDEX steps_running ON steps(lease_owner, updated_at_ms) WHERE status='RUNNING';
CREATE INDEX steps_delayed ON steps(not_before_ms) WHERE status='PENDING' AND delayed=1;
CREATE INDEX steps_retrying ON steps(next_retry_at_ms) WHERE status='RETRYING';
CREATE INDEX steps_dead ON steps(updated_at_ms) WHERE status='DEAD_LETTER';
CREATE INDEX steps_task ON steps(task_id);
CREATE INDEX steps_map ON steps(map_parent, map_index) WHERE map_parent IS NOT NULL;
CREATE INDEX steps_map_open ON steps(task_id) WHERE map_template IS NOT NULL AND status='PENDING';

CREATE TABLE step_dependencies (
    namespace TEXT NOT NULL DEFAULT 'default',
    task_id TEXT NOT NULL,
    step_id TEXT NOT NULL,
    depends_on_step_id TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (namespace, task_id, step_id, depends_on_step_id)
) WITHOUT ROWID;
CREATE INDEX step_dependents ON step_dependencies(depends_on_step_id, step_id);

CREATE TABLE attempts (
    step_id TEXT NOT NULL,
    lease_epoch INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    code TEXT,
    error TEXT,
    node_id TEXT,
    worker_id TEXT,
    started_at_ms INTEGER,
    finished_at_ms INTEGER NOT NULL,
    PRIMARY KEY (step_id, lease_epoch)
) WITHOUT ROWID;
CREATE INDEX attempts_outcome ON attempts(outcome);

CREATE TABLE attempt_logs (
    step_id TEXT NOT NULL,
    lease_epoch INTEGER NOT NULL,
    line INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    level TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (step_id, lease_epoch, line)
) WITHOUT ROWID;

CREATE TABLE mesh_nodes (
    node_id TEXT PRIMARY KEY,
    status TEXT NOT NULL,
    last_heartbeat_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    status_changed_at_ms INTEGER NOT NULL,
    generation INTEGER NOT NULL DEFAULT 0,
    pid INTEGER,
    host TEXT,
    agents TEXT
);
CREATE INDEX mesh_nodes_silent ON mesh_nodes(status, last_heartbeat_ms);

CREATE TABLE lease_conflicts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    event_type TEXT NOT NULL,
    task_id TEXT,
    step_id TEXT,
    worker_id TEXT,
    expected_status TEXT,
    expected_lease_token TEXT,
    expected_lease_epoch INTEGER,
    actual_status TEXT,
    actual_lease_owner TEXT,
    actual_lease_token TEXT,
    actual_lease_epoch INTEGER,
    occurred_at_ms INTEGER NOT NULL
);
CREATE INDEX lease_conflicts_time ON lease_conflicts(occurred_at_ms);
CREATE INDEX lease_conflicts_step ON lease_conflicts(step_id, occurred_at_ms);

CREATE TABLE cluster_state (
    state_key TEXT PRIMARY KEY,
    state_value TEXT NOT NULL,
    version INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL
);

CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE schema_migrations (
    version TEXT PRIMARY KEY,
    description TEXT NOT NULL,
    checksum TEXT NOT NULL,
    applied_at_ms INTEGER NOT NULL,
    success INTEGER NOT NULL
);

CREATE VIEW idempotency AS
SELECT namespace, idempotency_key,
       CASE status WHEN 'SUCCESS' THEN 'SUCCESS' WHEN 'RETRYING' THEN 'RETRYING'
                   WHEN 'DEAD_LETTER' THEN 'FAILED' WHEN 'CANCELLED' THEN 'FAILED' ELSE 'PENDING' END AS status,
       task_id AS result_ref, result_hash,
       CASE WHEN result_hash IS NULL THEN NULL ELSE 'sha256' END AS result_hash_algo,
       finished_at_ms AS processed_at_ms, created_at_ms, updated_at_ms
FROM tasks WHERE key_live=1;

CREATE VIEW messages AS
SELECT 'msg_' || step_id || '.' || (lease_epoch + (status='PENDING' OR lease_epoch=0)) AS msg_id,
       namespace, task_id, step_id, 'system' AS from_agent, agent_id AS to_agent, priority,
       CASE status WHEN 'PENDING' THEN 'QUEUED' WHEN 'RUNNING' THEN 'PROCESSING' WHEN 'SUCCESS' THEN 'DONE'
                   ELSE 'DEAD' END AS state,
       '' AS meta_path, payload_path, created_at_ms, updated_at_ms
FROM steps WHERE status IN ('RUNNING','SUCCESS','DEAD_LETTER') OR ({READY})
    OR (status='CANCELLED' AND waiting_on=0 AND delayed=0)
UNION ALL
SELECT 'msg_' || a.step_id || '.' || a.lease_epoch, s.namespace, s.task_id, a.step_id, 'system', s.agent_id, s.priority,
       CASE WHEN a.outcome='failed' AND s.status<>'CANCELLED' THEN 'FAILED' ELSE 'DEAD' END, '', s.payload_path,
       s.created_at_ms, a.finished_at_ms
FROM attempts a JOIN steps s ON s.step_id=a.step_id
WHERE NOT (s.lease_epoch=a.lease_epoch AND s.status IN ('SUCCESS','DEAD_LETTER','CANCELLED'));

INSERT INTO cluster_state(state_key, state_value, version, updated_at_ms)
VALUES ('cluster_epoch', '1', 1, CAST(strftime('%s','now') AS INTEGER) * 1000);
"""

# A list of three has to be put into a table of its own by each statement that looks at the predicate.
_PLAIN_RARE = f"""
DROP INDEX tasks_rare;
CREATE INDEX tasks_rare ON tasks(status, updated_at_ms) WHERE {RARE};
"""

_RARE_AS_LIST = """
DROP INDEX tasks_rare;
CREATE INDEX tasks_rare ON tasks(status, updated_at_ms) WHERE status IN ('RETRYING','DEAD_LETTER','CANCELLED');
"""

_SCHEDULES = """
CREATE TABLE schedules (
    schedule_id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    namespace TEXT NOT NULL DEFAULT 'default',
    state TEXT NOT NULL DEFAULT 'ACTIVE',
    kind TEXT NOT NULL,
    expression TEXT NOT NULL DEFAULT '',
    zone TEXT NOT NULL DEFAULT 'UTC',
    every_ms INTEGER,
    anchor_ms INTEGER NOT NULL DEFAULT 0,
    missed TEXT NOT NULL DEFAULT 'latest',
    missed_max INTEGER NOT NULL DEFAULT 1,
    jitter_ms INTEGER NOT NULL DEFAULT 0,
    overlap TEXT NOT NULL DEFAULT 'allow',
    agent_id TEXT,
    payload TEXT NOT NULL,
    priority TEXT,
    labels TEXT,
    cursor_ms INTEGER NOT NULL,
    next_tick_ms INTEGER,
    queued_tick_ms INTEGER,
    last_tick_ms INTEGER,
    last_task_id TEXT,
    last_error TEXT,
    known_from_ms INTEGER NOT NULL DEFAULT 0,
    made INTEGER NOT NULL DEFAULT 0,
    passed_over INTEGER NOT NULL DEFAULT 0,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX schedules_due ON schedules(next_tick_ms) WHERE state='ACTIVE';
CREATE INDEX schedules_queued ON schedules(queued_tick_ms) WHERE queued_tick_ms IS NOT NULL;

CREATE TABLE schedule_ticks (
    schedule_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    tick_ms INTEGER NOT NULL,
    task_id TEXT NOT NULL,
    made_at_ms INTEGER NOT NULL,
    PRIMARY KEY (schedule_id, kind, tick_ms)
) WITHOUT ROWID;

CREATE TABLE discards (
    task_id TEXT PRIMARY KEY,
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    steps INTEGER NOT NULL,
    discarded_at_ms INTEGER NOT NULL
) WITHOUT ROWID;
"""

# What uses no limit pays nothing: its rows are in none of the new indexes, and the tables are empty.
_LIMITS = f"""
ALTER TABLE steps ADD COLUMN concurrency_key TEXT;
ALTER TABLE tasks ADD COLUMN unique_key TEXT;
ALTER TABLE tasks ADD COLUMN debounced_since_ms INTEGER;
DROP INDEX steps_ready;
CREATE INDEX steps_ready ON steps(agent_id, priority, queued_at_ms) WHERE {PLAIN_READY};
CREATE INDEX steps_keyed ON steps(agent_id, priority, concurrency_key, queued_at_ms) WHERE {KEYED_READY};
CREATE INDEX steps_keyed_running ON steps(concurrency_key) WHERE status='RUNNING' AND concurrency_key IS NOT NULL;
CREATE INDEX tasks_unique ON tasks(unique_key) WHERE unique_key IS NOT NULL;
CREATE INDEX tasks_unique_open ON tasks(unique_key) WHERE unique_key IS NOT NULL AND finished_at_ms IS NULL;

CREATE TABLE limits (
    scope TEXT NOT NULL,
    name TEXT NOT NULL DEFAULT '',
    max_concurrency INTEGER,
    rate INTEGER,
    rate_period_ms INTEGER,
    burst INTEGER,
    updated_at_ms INTEGER NOT NULL,
    PRIMARY KEY (scope, name)
) WITHOUT ROWID;

CREATE TABLE rate_buckets (
    scope TEXT NOT NULL,
    name TEXT NOT NULL DEFAULT '',
    level INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (scope, name)
) WITHOUT ROWID;
CREATE INDEX rate_buckets_age ON rate_buckets(at_ms);

CREATE TABLE queue_pauses (
    scope TEXT NOT NULL,
    name TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    since_ms INTEGER NOT NULL,
    PRIMARY KEY (scope, name)
) WITHOUT ROWID;
"""

# What was set is forgotten; keyed steps become steps like others.
_NO_LIMITS = f"""
DELETE FROM cluster_state WHERE state_key IN ('limits_version', 'submit_window');
DROP TABLE queue_pauses;
DROP TABLE rate_buckets;
DROP TABLE limits;
DROP INDEX tasks_unique_open;
DROP INDEX tasks_unique;
DROP INDEX steps_keyed_running;
DROP INDEX steps_keyed;
DROP INDEX steps_ready;
CREATE INDEX steps_ready ON steps(agent_id, priority, queued_at_ms) WHERE {READY};
ALTER TABLE tasks DROP COLUMN debounced_since_ms;
ALTER TABLE tasks DROP COLUMN unique_key;
ALTER TABLE steps DROP COLUMN concurrency_key;
"""

# Only while there is no schedule (the ticks that are left then are of none) and nothing was ever discarded.
_NO_SCHEDULES = """
DROP TABLE discards;
DROP TABLE schedule_ticks;
DROP TABLE schedules;
"""

# A sum for each attempt, so that what it reports again is known; gone with its task.
_BUDGETS = """
CREATE TABLE budgets (
    scope TEXT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    amount INTEGER NOT NULL,
    period_ms INTEGER,
    window_ms INTEGER NOT NULL DEFAULT 0,
    spent INTEGER NOT NULL DEFAULT 0,
    updated_at_ms INTEGER NOT NULL,
    PRIMARY KEY (scope, name, kind)
) WITHOUT ROWID;

CREATE TABLE attempt_spending (
    step_id TEXT NOT NULL,
    lease_epoch INTEGER NOT NULL,
    kind TEXT NOT NULL,
    spent INTEGER NOT NULL,
    PRIMARY KEY (step_id, lease_epoch, kind)
) WITHOUT ROWID;
"""

# What was set and what was spent is forgotten.
_NO_BUDGETS = """
DROP TABLE attempt_spending;
DROP TABLE budgets;
"""

_MESH = """
CREATE TABLE mesh_members (
    node_id TEXT PRIMARY KEY,
    address TEXT NOT NULL,
    generation INTEGER NOT NULL,
    version INTEGER NOT NULL,
    state TEXT NOT NULL,
    owner_generation INTEGER,
    rtt_us INTEGER,
    heard_at_ms INTEGER,
    heard_by TEXT,
    updated_at_ms INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE mesh_marks (
    node_id TEXT PRIMARY KEY,
    marks BLOB NOT NULL,
    updated_at_ms INTEGER NOT NULL
) WITHOUT ROWID;
"""

# What was known of the mesh is found out again.
_NO_MESH = """
DROP TABLE mesh_marks;
DROP TABLE mesh_members;
"""

MIGRATIONS = (
    Migration(
        1,
        "20260101_001_base",
        "tasks, steps, leases, conflicts, nodes",
        "21c2566f319fa3498916162fe589eaf9f1c9c00303d7757f4451bb175bb8635f",
        _BASE,
    ),
    Migration(
        2,
        "20261121_002_plain_rare",
        "a cheaper predicate for the index of rare tasks",
        "af05895f44cbdfe96d5ad54c734db863bb6851c9d7c5a70d7665f30dbe61c28d",
        _PLAIN_RARE,
        _RARE_AS_LIST,
    ),
    Migration(
        3,
        "20261128_003_schedules",
        "schedules, their ticks, and discarded dead letters",
        "365a236c1678722221f53b9fc7326cadcd18c18cb0adcc4ad8f492c0d4bf0fca",
        _SCHEDULES,
        _NO_SCHEDULES,
        empty=("schedules", "discards"),
    ),
    Migration(
        4,
        "20261128_004_limits",
        "limits, keys, pauses and unique tasks",
        "2e97a7c41737eed48dcb5e2a74f36b9db80dac6d5622614d00eb56aa438b0fb2",
        _LIMITS,
        _NO_LIMITS,
    ),
    Migration(
        5,
        "20261128_005_row_counts",
        "how many rows there are, without counting them",
        "3bce3970f191f97949b9672a04bc2089b99e7b225eeddbe64386942a91a849f1",
        _COUNT_UP,
        _COUNT_DOWN,
    ),
    Migration(
        6,
        "20261128_007_budgets",
        "budgets, and what attempts have spent",
        "80ce807bed01eeff362dfb8f01838e7f78fc6746e3188da2323c04e01ee94661",
        _BUDGETS,
        _NO_BUDGETS,
    ),
    Migration(
        7,
        "20261128_008_mesh_members",
        "members of the mesh, and what a restart has to know",
        "381e7b9b18c8abb442bb3ace1a3169bfebeada691a7c419e0f20ca4947b9475b",
        _MESH,
        _NO_MESH,
    ),
)
INCLUDED: Final[Mapping[str, Mapping[str, str]]] = {
    "20260101_001_base": {
        "20260226_001_namespace_and_principal": "each row has its namespace, each task the principal that submitted it",
        "20260226_002_audit_integrity_cursor": "nothing in the database: audit/audit.lock keeps the cursor",
    }
}
"""Names of schema changes that others know, which a migration of ours has had from the beginning -> where they are."""
SCHEMA_VERSION = MIGRATIONS[-1].number
