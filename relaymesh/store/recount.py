"""Count the tasks, steps and messages of a root by state, piece by piece.

What is open and what did not succeed is walked over in the order of its index; what succeeded is all rows less
those (relaymesh.store.row_count). A piece takes some 10 µs a task and is sized like one of a clean-up, so whoever
counts can leave off: a node counts in the background, between its other reads, a command for as long as it may keep
somebody waiting. What moves while the pieces are counted may be told of twice or not at all; within one read
transaction all of it is of one moment.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from typing import Final

from relaymesh.core.retention import Pace, next_pace
from relaymesh.store.claim import ready_groups
from relaymesh.store.count_cache import Counts
from relaymesh.store.row_count import attempts_by_outcome, row_counts, total
from relaymesh.store.schema import KEYED_READY, PLAIN_READY, RARE

__all__ = ["WAITING_MAX", "Recount", "waiting"]

WAITING_MAX: Final = 50_000
"""Ready steps of one agent and priority that a command counts, some 25 ms."""
_READY_OF: Final = tuple(
    f"SELECT count(*) FROM (SELECT 1 FROM steps INDEXED BY {index} WHERE {ready} AND agent_id=? AND priority=? LIMIT ?)"
    for index, ready in (("steps_ready", PLAIN_READY), ("steps_keyed", KEYED_READY))
)
_OPEN: Final = """
SELECT updated_at_ms, id, task_id, status FROM tasks INDEXED BY tasks_open
WHERE finished_at_ms IS NULL AND {behind} LIMIT ?3
"""
# In the order in which the index has them, or each page would sort all that there are.
_BY_ID: Final = _OPEN.format(behind="id>?2 ORDER BY id")
_BY_CHANGE: Final = _OPEN.format(behind="(updated_at_ms, id)>(?1, ?2) ORDER BY updated_at_ms, id")
_ORDER: Final = "SELECT count(*) FROM pragma_index_info('tasks_open') WHERE name='updated_at_ms'"
_ENDED: Final = f"""
SELECT updated_at_ms, id, task_id, status FROM tasks INDEXED BY tasks_rare
WHERE {RARE} AND status=? AND (updated_at_ms, id)>(?,?) AND finished_at_ms IS NOT NULL
ORDER BY updated_at_ms, id LIMIT ?
"""
_STEPS: Final = """
SELECT s.status, count(*), sum(s.waiting_on<>0 OR s.delayed<>0) FROM json_each(?) v JOIN steps s ON s.task_id=v.value
GROUP BY s.status
"""
# The last attempt of an ended step is the step's own message; a cancel has made all the earlier ones DEAD.
_OWN: Final = """
SELECT coalesce(sum(own AND failed), 0), coalesce(sum(own AND NOT failed), 0),
    coalesce(sum(failed AND NOT own AND cancelled), 0)
FROM (SELECT a.lease_epoch=s.lease_epoch AS own, a.outcome='failed' AS failed, s.status='CANCELLED' AS cancelled
    FROM json_each(?) v JOIN steps s ON s.task_id=v.value JOIN attempts a ON a.step_id=s.step_id
    WHERE s.status IN ('DEAD_LETTER','CANCELLED'))
"""
_RARE_WORDS: Final = ("RETRYING", "DEAD_LETTER", "CANCELLED")


class Recount:
    """One count. Not thread-safe.

    tasks_seen: how many tasks were walked over so far. done: all of them were.
    """

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        self._pace = Pace()
        self._tasks: Counter[str] = Counter()
        self._steps: Counter[str] = Counter()
        self._never_sent = self._own_failed = self._own_other = self._made_dead = 0
        self._walk = self._pages()
        self.took_ns = 0
        self.tasks_seen = 0
        self.done = False

    def piece(self) -> bool:
        """Count some; return whether there is more. The caller turns errors of the database into ours."""
        began_ns = time.monotonic_ns()
        rows = 0
        page = next(self._walk, None)
        if page is None:
            self.done = True
        else:
            rows = self._count(page)
        took_ns = time.monotonic_ns() - began_ns
        self.took_ns += took_ns
        self._pace = next_pace(self._pace, rows=rows, took_ns=took_ns)
        return not self.done

    def counts(self, now_ms: int, *, lanes: dict[str, int], lanes_whole: bool = True) -> Counts:
        """Return what was counted. Until it is done that is a least, and nothing can be said of what succeeded.

        lanes: how many steps are ready, by priority; whole when that are all.
        """
        rows = row_counts(self._conn)
        tasks, steps = Counter(self._tasks), Counter(self._steps)
        if self.done:
            tasks["SUCCESS"] += total(self._conn, "tasks", rows) - self._tasks.total()
            steps["SUCCESS"] += total(self._conn, "steps", rows) - self._steps.total()
        return Counts(
            tasks={status: n for status, n in tasks.items() if n > 0},
            steps={status: n for status, n in steps.items() if n > 0},
            messages=self._messages(attempts_by_outcome(rows), steps, lanes),
            lanes=lanes,
            at_ms=now_ms,
            took_ms=self.took_ns // 1_000_000,
            at_least=not (self.done and lanes_whole),
        )

    def _pages(self) -> Iterator[list[tuple[int, int, str, str]]]:
        (by_change,) = self._conn.execute(_ORDER).fetchone()
        of_open = _BY_CHANGE if by_change else _BY_ID
        for query, words in ((of_open, ((),)), (_ENDED, (("DEAD_LETTER",), ("CANCELLED",)))):
            for word in words:
                at: tuple[int, int] = (-1, 0)
                while page := self._conn.execute(query, (*word, *at, self._pace.rows)).fetchall():
                    at = page[-1][:2]
                    yield page

    def _count(self, page: list[tuple[int, int, str, str]]) -> int:
        """Add a page of tasks; return how many rows it had, steps included."""
        self._tasks.update(status for *_, status in page)
        self.tasks_seen += len(page)
        seen = len(page)
        for status, count, unsent in self._conn.execute(_STEPS, (_ids(page),)):
            self._steps[status] += count
            seen += count
            if status == "CANCELLED":
                self._never_sent += unsent
        rare = [row for row in page if row[3] in _RARE_WORDS]
        if rare:
            own_failed, own_other, made_dead = self._conn.execute(_OWN, (_ids(rare),)).fetchone()
            self._own_failed += own_failed
            self._own_other += own_other
            self._made_dead += made_dead
        return seen

    def _messages(self, attempts: dict[str, int], steps: Counter[str], lanes: dict[str, int]) -> dict[str, int]:
        """Count what the view ``messages`` shows, without reading it: only steps that did not succeed are looked at."""
        failed = attempts.pop("failed", 0)
        ended = steps["DEAD_LETTER"] + steps["CANCELLED"] - self._never_sent
        states = {
            "QUEUED": sum(lanes.values()),
            "PROCESSING": steps["RUNNING"],
            "DONE": steps["SUCCESS"],
        }
        if self.done:
            states["FAILED"] = failed - self._own_failed - self._made_dead
            states["DEAD"] = ended + sum(attempts.values()) - self._own_other + self._made_dead
        else:
            states["DEAD"] = ended
        return {state: count for state, count in states.items() if count > 0}


def waiting(conn: sqlite3.Connection, limit: int = WAITING_MAX) -> dict[str, int]:
    """Return how many steps are ready, by priority. limit: how many are counted at most, of each agent and priority.

    Pair by pair, for that is answered by the index alone, some 0.5 µs a step; grouped, all would be sorted first.
    """
    lanes: Counter[str] = Counter()
    for agent_id, priority in dict.fromkeys(ready_groups(conn)):
        for query in _READY_OF:
            lanes[priority] += conn.execute(query, (agent_id, priority, limit)).fetchone()[0]
    return {priority: count for priority, count in lanes.items() if count}


def _ids(page: list[tuple[int, int, str, str]]) -> str:
    return json.dumps([task_id for _, _, task_id, _ in page])
