"""What real roots say, written down as the history that the checker reads.

Steps are recorded by triggers, in the transaction that changes them, so no claim and no commit is missed, and they do
not hang on the code that is under test. Members are read from the tables every so often: a word that stands for a
shorter time than that is not seen.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from chaos.history import EVENTS_MAX, Event
from relaymesh.store.root import DATABASE

__all__ = ["Record", "Root"]

_SLACK_PERCENT: Final = 80
"""So much of a dwell time must be seen to have passed: the tables are read now and then, on a busy machine seldom."""

_NOW: Final = "CAST((julianday('now')-2440587.5)*86400000 AS INTEGER)"
_RECORDER: Final = f"""
CREATE TABLE chaos_step(n INTEGER PRIMARY KEY, at INTEGER, f TEXT, step TEXT, ce INTEGER, le INTEGER, owner TEXT,
    outcome TEXT);
CREATE TRIGGER chaos_first AFTER INSERT ON steps WHEN NEW.status='RUNNING'
BEGIN INSERT INTO chaos_step(at,f,step,ce,le,owner)
    VALUES ({_NOW},'claim',NEW.step_id,NEW.cluster_epoch,NEW.lease_epoch,NEW.lease_owner); END;
CREATE TRIGGER chaos_claim AFTER UPDATE OF status, lease_epoch ON steps
WHEN NEW.status='RUNNING' AND (OLD.status<>'RUNNING' OR OLD.lease_epoch<>NEW.lease_epoch)
BEGIN INSERT INTO chaos_step(at,f,step,ce,le,owner)
    VALUES ({_NOW},'claim',NEW.step_id,NEW.cluster_epoch,NEW.lease_epoch,NEW.lease_owner); END;
CREATE TRIGGER chaos_beat AFTER UPDATE OF updated_at_ms ON steps
WHEN NEW.status='RUNNING' AND OLD.status='RUNNING' AND OLD.lease_epoch=NEW.lease_epoch
BEGIN INSERT INTO chaos_step(at,f,step,ce,le,owner)
    VALUES ({_NOW},'heartbeat',NEW.step_id,NEW.cluster_epoch,NEW.lease_epoch,NEW.lease_owner); END;
CREATE TRIGGER chaos_end AFTER UPDATE OF status ON steps WHEN NEW.status IN ('SUCCESS','DEAD_LETTER','CANCELLED')
BEGIN INSERT INTO chaos_step(at,f,step,ce,le,owner,outcome) VALUES ({_NOW},'commit',NEW.step_id,OLD.cluster_epoch,
    OLD.lease_epoch,coalesce(OLD.lease_owner,''),NEW.status || ' ' || coalesce(NEW.result_payload,'')); END;
CREATE TRIGGER chaos_back AFTER UPDATE OF status ON steps
WHEN OLD.status='RUNNING' AND NEW.status IN ('PENDING','RETRYING')
BEGIN INSERT INTO chaos_step(at,f,step,ce,le,owner)
    VALUES ({_NOW},'release',NEW.step_id,OLD.cluster_epoch,OLD.lease_epoch,OLD.lease_owner); END;
"""
_MEMBERS: Final = """
SELECT m.node_id, m.generation, m.version, m.state, n.status FROM mesh_members m JOIN mesh_nodes n USING(node_id)
"""
_STEPS: Final = "SELECT n, at, f, step, ce, le, owner, outcome FROM chaos_step WHERE n>? ORDER BY n"
_REFUSED: Final = """
SELECT id, step_id, coalesce(expected_lease_epoch,0), worker_id FROM lease_conflicts
WHERE id>? AND event_type IN ('success_commit_conflict','failure_commit_conflict') ORDER BY id
"""
_EPOCH: Final = "SELECT state_value FROM cluster_state WHERE state_key='cluster_epoch'"


class Record:
    """The history so far. Times are ms since it began, by the monotonic clock; what the database dates by the wall
    clock is brought over by their difference at the start, and never goes back.
    """

    def __init__(self, lease_ms: int) -> None:
        self.events: list[Event] = []
        self.lease_ms = lease_ms
        self._began_ns = time.monotonic_ns()
        self._began_wall_ms = time.time_ns() // 1_000_000

    def now_ms(self) -> int:
        return (time.monotonic_ns() - self._began_ns) // 1_000_000

    def note(self, node: str, f: str, value: dict[str, Any], at_ms: int | None = None) -> None:
        """Append an event; after EVENTS_MAX no more are kept, because no reader would take them."""
        if len(self.events) < EVENTS_MAX:
            last = self.events[-1].t if self.events else 0
            self.events.append(Event(max(last, self.now_ms() if at_ms is None else at_ms), node, f, value))

    def of_wall(self, wall_ms: int) -> int:
        return min(self.now_ms(), wall_ms - self._began_wall_ms)


class Root:
    """One root as it is read: by several nodes, then the table of members is what all of them see, or by one."""

    def __init__(self, name: str, path: Path, record: Record, nodes: Sequence[str]) -> None:
        """name: of its store in the history.

        Raises sqlite3.Error when the root has no database yet.
        """
        self.name, self.nodes = name, tuple(nodes)
        self._record = record
        with contextlib.closing(sqlite3.connect(path / DATABASE)) as conn:
            conn.executescript(_RECORDER)
        self._conn = sqlite3.connect(f"{(path / DATABASE).as_uri()}?mode=ro", uri=True, timeout=30)
        self._seen_step = self._seen_refusal = 0
        self._epoch = -1
        self._views: dict[tuple[str, str], tuple[Any, ...]] = {}

    def close(self) -> None:
        self._conn.close()

    def generation(self, node_id: str, pid: int) -> int | None:
        """Return the generation of a process that has registered itself, or None."""
        row = self._conn.execute("SELECT generation FROM mesh_nodes WHERE node_id=? AND pid=?", (node_id, pid))
        found = row.fetchone()
        return int(found[0]) if found else None

    def forget(self, node_id: str) -> None:
        """A node begins anew: all that it holds counts as news."""
        for key in [key for key in self._views if key[0] == node_id]:
            del self._views[key]

    def look(self, up: Sequence[str]) -> None:
        """Write down what has changed since the last look. up: the nodes that have started."""
        self._look_at_epoch()
        self._look_at_steps()
        members = self._conn.execute(_MEMBERS).fetchall()
        for node in self.nodes:
            if node in up:
                self._look_at_members(node, members)

    def steps(self) -> list[str]:
        return [str(row[0]) for row in self._conn.execute("SELECT step_id FROM steps ORDER BY id")]

    def step_of(self, task_id: str) -> str:
        return str(self._conn.execute("SELECT step_id FROM steps WHERE task_id=?", (task_id,)).fetchone()[0])

    def open_steps(self) -> int:
        sql = "SELECT count(*) FROM steps WHERE status NOT IN ('SUCCESS','DEAD_LETTER','CANCELLED')"
        return int(self._conn.execute(sql).fetchone()[0])

    def alive(self, node: str) -> set[str]:
        """Return whom this node held ALIVE, and said so, at the last look."""
        both = ("ALIVE", "ALIVE")
        return {about for (viewer, about), view in self._views.items() if viewer == node and view[-2:] == both}

    def _look_at_epoch(self) -> None:
        found = self._conn.execute(_EPOCH).fetchone()
        epoch = int(found[0]) if found else 0
        if epoch != self._epoch:
            self._epoch = epoch
            self._record.note(self.name, "epoch", {"ce": epoch})

    def _look_at_steps(self) -> None:
        for n, at, f, step, ce, le, owner, outcome in self._conn.execute(_STEPS, (self._seen_step,)).fetchall():
            self._seen_step = n
            at_ms = self._record.of_wall(at)
            value = {"step": step, "ce": ce or 0, "le": le, "owner": owner}
            if f in ("claim", "heartbeat"):
                value["until"] = at_ms + self._record.lease_ms
            if f == "commit":
                value["outcome"] = outcome
            self._record.note(self.name, f, value, at_ms)
        for n, step, le, owner in self._conn.execute(_REFUSED, (self._seen_refusal,)).fetchall():
            self._seen_refusal = n
            self._record.note(self.name, "reject", {"step": step, "ce": self._epoch, "le": le, "owner": owner})

    def _look_at_members(self, node: str, members: Sequence[tuple[Any, ...]]) -> None:
        alone = len(self.nodes) == 1
        seen = set()
        for about, generation, version, state, shown in members:
            if about == node:
                continue
            seen.add(about)
            # Several nodes write one table, each what it holds, and where they are parted from each other one overrules
            # the other: a row is no record of one of them. Its word stands for a dwell time all the same.
            view = (generation, version, state, shown) if alone else (state, shown)
            if self._views.get((node, about)) != view:
                self._views[(node, about)] = view
                rest = {"generation": generation, "version": version} if alone else {}
                value = {"about": about, "state": state, "shown": shown, "percent": _SLACK_PERCENT, **rest}
                self._record.note(node, "member", value)
        for key in [key for key in self._views if key[0] == node and key[1] not in seen]:
            del self._views[key]
            self._record.note(node, "pruned", {"about": key[1]})
