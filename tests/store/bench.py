"""A store with a clock that tests set, and the few gestures that most of them make: submit, claim, end an attempt."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from relaymesh.core.fairness import Fairness
from relaymesh.core.ident import Ids, workflow_step_id
from relaymesh.core.retry import RetryPolicy
from relaymesh.core.workflow import derived_key, parse
from relaymesh.store.claim import Claim, ClaimedRow, Slots
from relaymesh.store.connection import Durability
from relaymesh.store.draft import draft_task, draft_workflow
from relaymesh.store.finish import FinishResult
from relaymesh.store.migration import migrate
from relaymesh.store.root import DATABASE, create_layout
from relaymesh.store.store import Store
from relaymesh.wire.store import FinishedStep, LeaseRef, NewTask, SeenLease
from relaymesh.wire.work import LogLine, StepReport

__all__ = ["NOON", "POLICY", "Bench", "report_of"]

NOON = 1_700_000_000_000
POLICY = RetryPolicy(max_attempts=3, base_backoff_ms=1_000, max_backoff_ms=4_000)
AGENTS = ("echo", "fail", "other")


def policy_of(_: str) -> RetryPolicy:
    return POLICY


def report_of(lease: LeaseRef, kind: str = "succeeded", **more: object) -> StepReport:
    return StepReport(lease.row_id, lease.lease_token, kind, **more)  # type: ignore[arg-type]


@cache
def _empty_database() -> bytes:
    conn = sqlite3.connect(":memory:", isolation_level=None)
    migrate(conn, Path("memory"), NOON)
    return conn.serialize()


class Bench:
    """One data root and one connection to it. ``now_ms`` is what every write is told."""

    def __init__(self, root: Path, store: Store | None = None) -> None:
        self.root = root
        self.now_ms = NOON
        self.rng = random.Random(1)
        self.ids = Ids(lambda: self.now_ms, random.Random(1))
        if store is None and not root.exists():
            # As the first opening leaves it; making the tables takes ten times as long.
            create_layout(root)
            (root / DATABASE).write_bytes(_empty_database())
        self.store = store or Store.open(root, now_ms=NOON, durability=Durability.FAST, rng=self.rng)
        self.state = Fairness()
        self._claims = 0

    @classmethod
    def in_memory(cls) -> Bench:
        """Return one whose database has no file: for properties, which need hundreds of them. It cannot spill."""
        conn = sqlite3.connect(":memory:", isolation_level=None)
        conn.deserialize(_empty_database())
        conn.execute("PRAGMA foreign_keys=1")
        nowhere = Path("/nonexistent")
        return cls(nowhere, Store(conn, nowhere, "default", random.Random(1)))

    def close(self) -> None:
        self.store.close()

    # -- submit

    def new_task(self, agent: str = "echo", payload: str = "", *, key: str | None = None, **more: object) -> NewTask:
        more.setdefault("priority", "NORMAL")
        return draft_task(self.ids, self.store.payloads, agent, payload, key=key or self.ids.message(), **more)  # type: ignore[arg-type]

    def new_flow(self, steps: Sequence[Mapping[str, object]], *, key: str | None = None, **more: object) -> NewTask:
        plan = parse({"steps": [{"agent": "echo", "input": "", **step} for step in steps]})
        key = key or f"{derived_key(plan)} {self.ids.message()}"
        return draft_workflow(self.ids, self.store.payloads, plan, key=key, **more)  # type: ignore[arg-type]

    def submit(self, *tasks: NewTask) -> list[tuple[str, bool]]:
        with self.store.write():
            return self.store.submit(tasks, now_ms=self.now_ms)

    def one(self, agent: str = "echo", payload: str = "", **more: object) -> str:
        """Submit one task and return the id of its step."""
        task = self.new_task(agent, payload, **more)  # type: ignore[arg-type]
        self.submit(task)
        return task.steps[0].step_id

    def flow(self, *steps: Mapping[str, object], **more: object) -> str:
        """Submit a workflow and return its task id."""
        task = self.new_flow(steps, **more)  # type: ignore[arg-type]
        self.submit(task)
        return task.task_id

    # -- claim

    def claim_all(
        self,
        node: str = "n1",
        *,
        limit: int = 1_000,
        generation: int = 1,
        agents: Sequence[str] = AGENTS,
        free: Mapping[str, int] | None = None,
        limits: Mapping[str, int] | None = None,
        state: Fairness | None = None,
        pools: Mapping[str, str] | None = None,
    ) -> Claim:
        self._claims += 1
        slots = Slots(
            pools=pools if pools is not None else dict.fromkeys(agents, "pool"),
            free=free if free is not None else {"pool": limit},
            room={},
            limits=limits or {},
            limit=limit,
        )
        with self.store.write():
            claim = self.store.claim(
                slots,
                state or self.state,
                node_id=node,
                generation=generation,
                token=f"lease_{node}_{self._claims}.",
                now_ms=self.now_ms,
            )
        self.state = claim.state
        return claim

    def claim(self, node: str = "n1", **more: object) -> list[LeaseRef]:
        return [row.lease for row in self.claim_all(node, **more).rows]  # type: ignore[arg-type]

    def claimed_rows(self, node: str = "n1", **more: object) -> tuple[ClaimedRow, ...]:
        return self.claim_all(node, **more).rows  # type: ignore[arg-type]

    # -- end

    def finish(self, *ends: tuple[LeaseRef, StepReport], node: str = "n1") -> FinishResult:
        steps = [FinishedStep(lease, report, "worker") for lease, report in ends]
        spilled = self.store.spill_outputs(steps)
        with self.store.write():
            return self.store.finish(steps, node_id=node, spilled=spilled, policy_of=policy_of, now_ms=self.now_ms)

    def succeed(self, lease: LeaseRef, output: str = "done", *, log: Sequence[LogLine] = ()) -> FinishResult:
        return self.finish((lease, report_of(lease, output=output, log=tuple(log))))

    def fail(
        self, lease: LeaseRef, error: str = "broken", *, retryable: bool = True, log: Sequence[LogLine] = ()
    ) -> FinishResult:
        report = report_of(lease, "failed", code="agent_error", error=error, retryable=retryable, log=tuple(log))
        return self.finish((lease, report))

    def snooze(self, lease: LeaseRef, for_ms: int) -> FinishResult:
        return self.finish((lease, report_of(lease, "snoozed", for_ms=for_ms)))

    def release(self, *leases: LeaseRef, node: str = "n1") -> int:
        with self.store.write():
            return self.store.release(leases, worker_id=node, now_ms=self.now_ms)

    def lose(self, *leases: LeaseRef, node: str = "n1") -> int | None:
        with self.store.write():
            return self.store.lose_attempts(
                leases, error="the worker process died", worker_id=node, policy_of=policy_of, now_ms=self.now_ms
            )

    def seen(self, node: str = "") -> list[SeenLease]:
        return self.store.running_elsewhere(node_id=node, limit=1_000)

    def reclaim(self, *seen: SeenLease, cause: str = "lease_expired") -> object:
        with self.store.write():
            return self.store.reclaim(seen, cause=cause, policy_of=policy_of, now_ms=self.now_ms)

    def promote(self) -> int:
        with self.store.write():
            return self.store.promote_due(now_ms=self.now_ms, limit=1_000)

    def run_all(self, *, output: str = "done") -> int:
        """Claim and succeed until nothing is ready; return how many attempts that took."""
        count = 0
        while leases := self.claim():
            for lease in leases:
                self.succeed(lease, output)
            count += len(leases)
        return count

    # -- look

    def rows(self, sql: str, *values: object) -> list[dict[str, object]]:
        cursor = self.store.conn.execute(sql, values)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def step(self, step_id: str) -> dict[str, object]:
        (row,) = self.rows("SELECT * FROM steps WHERE step_id=?", step_id)
        return row

    def step_of(self, task_id: str, name: str) -> dict[str, object]:
        return self.step(workflow_step_id(task_id, name))

    def task(self, task_id: str) -> dict[str, object]:
        (row,) = self.rows("SELECT * FROM tasks WHERE task_id=?", task_id)
        return row

    def task_of(self, step_id: str) -> dict[str, object]:
        return self.task(str(self.step(step_id)["task_id"]))

    def conflicts(self) -> list[dict[str, object]]:
        return self.rows("SELECT * FROM lease_conflicts ORDER BY id")
