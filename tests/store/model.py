"""A model of the store: several owners, late words of former owners, cancels, replays, epochs, clocks.

After each rule every row is compared with what it was before. What must hold then is spelled out in ``Moves`` (each row
alone) and in the invariants of the machine (rows together).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from relaymesh.core.restart import steps_again
from relaymesh.core.status import STEP_TRANSITIONS, TASK_TRANSITIONS, TERMINAL_TASK
from relaymesh.store.admin import CancelMode
from relaymesh.store.stats import stats
from relaymesh.store.why import explanations
from relaymesh.wire.store import SHAPE_SOLE, LeaseRef, SeenLease
from tests.store.bench import POLICY, Bench, policy_of, report_of

__all__ = ["OUTPUTS", "StoreMachine"]

Row = dict[str, object]

STEP_MOVES = {(str(source), str(to)) for (source, _), to in STEP_TRANSITIONS.items()}
# ABANDONED is written and left in one transaction.
STEP_MOVES |= {("RUNNING", to) for source, to in STEP_MOVES if source == "ABANDONED"}
TASK_MOVES = {(str(source), str(to)) for (source, _), to in TASK_TRANSITIONS.items()}
ENDED = {"SUCCESS", "CANCELLED"}

OUTPUTS = ("text", "[]", '["a"]', '[1,{"b":2}]', "[")
nodes = st.sampled_from(["n1", "n2", "n3"])
priorities = st.sampled_from(["HIGH", "NORMAL", "LOW"])
outputs = st.sampled_from(OUTPUTS)
picks = st.integers(0, 10_000)
# For each step of a workflow: which of those before it it waits for (bits), and whether it runs over a list.
flows = st.lists(
    st.tuples(st.integers(0, 31), st.sampled_from(["", "", "", "literal", "empty", "from"])), min_size=1, max_size=5
)


class Moves:
    """All rows before and after a rule, and what each may have become."""

    def __init__(self) -> None:
        self.steps: dict[object, Row] = {}
        self.tasks: dict[object, Row] = {}

    def to(self, bench: Bench, *, replayed: object | None, restarted: bool = False, edited: str | None = None) -> None:
        """restarted: from a step, so what depends on it begins anew. edited: the step that got another input."""
        steps = {row["step_id"]: row for row in bench.rows("SELECT * FROM steps")}
        tasks = {row["task_id"]: row for row in bench.rows("SELECT * FROM tasks")}
        if restarted:
            # Copies of a map step are made anew; what has a name in the workflow stays.
            self.steps = {
                key: row for key, row in self.steps.items() if row["task_id"] != replayed or row["map_parent"] is None
            }
        assert steps.keys() >= self.steps.keys() and tasks.keys() >= self.tasks.keys()
        for key, before in self.steps.items():
            if before != steps[key]:
                ours = before["task_id"] == replayed
                after = {**steps[key], "payload": before["payload"]} if key == edited else steps[key]
                self._step(before, after, replayed=ours, restarted=ours and restarted)
        for key, before in self.tasks.items():
            if before != tasks[key]:
                self._task(before, tasks[key], replayed=key == replayed)
        self.steps, self.tasks = steps, tasks

    def _step(self, before: Row, after: Row, *, replayed: bool, restarted: bool) -> None:
        source, to = before["status"], after["status"]
        assert source not in ENDED or restarted, "what has succeeded or was cancelled does not change any more"
        if source != to:
            # A map step that is replayed is looked at again in the same transaction.
            joined = replayed and source == "DEAD_LETTER" and to == "SUCCESS" and before["map_template"] is not None
            assert (source, to) in STEP_MOVES or joined or restarted, (source, to)
            assert (source, to) != ("SUCCESS", "PENDING") or restarted
            assert source != "DEAD_LETTER" or replayed
        claimed = (source, to) == ("PENDING", "RUNNING")
        assert int(str(after["lease_epoch"])) == int(str(before["lease_epoch"])) + claimed
        rose_by = int(str(after["updated_at_ms"])) - int(str(before["updated_at_ms"]))
        assert rose_by > 0 if source != to else rose_by >= 0
        assert int(str(after["attempt"])) >= 0
        assert (to == "RUNNING") == (after["lease_owner"] is not None) == (after["lease_token"] is not None)
        assert (to == "RETRYING") == (after["next_retry_at_ms"] is not None)
        for column in ("step_id", "task_id", "agent_id", "priority", "created_at_ms", "payload", "map_parent"):
            assert before[column] == after[column]

    def _task(self, before: Row, after: Row, *, replayed: bool) -> None:
        source, to = before["status"], after["status"]
        if source != to:
            allowed = (source, to) in TASK_MOVES or (replayed and source == "DEAD_LETTER")
            assert allowed, (source, to)
        if source == "DEAD_LETTER" and not replayed:
            assert to == "DEAD_LETTER", "G6: only a replay moves a dead-lettered task"
        if source in ENDED:
            assert to == source, "G7: a cancelled task stays cancelled"
        assert int(str(after["updated_at_ms"])) >= int(str(before["updated_at_ms"]))


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench.in_memory()
        self.moves = Moves()
        self.leases: list[LeaseRef] = []
        self.scans: list[SeenLease] = []
        self.generations = {"n1": 1, "n2": 1, "n3": 1}
        self.cluster_epoch = 1
        self.replayed: object | None = None
        self.restarted = False
        self.edited: str | None = None
        self.successes: Counter[str] = Counter()
        self.keys: dict[str, str] = {}

    # -- what is asked in more than one place

    def task_ids(self) -> list[str]:
        return sorted(str(task_id) for task_id in self.moves.tasks)

    def lease(self, pick: int) -> LeaseRef:
        """Return a lease: two times out of three one that may still be good."""
        running = {row["lease_token"] for row in self.moves.steps.values() if row["status"] == "RUNNING"}
        good = [lease for lease in self.leases if lease.lease_token in running]
        among = good if good and pick % 3 else self.leases
        return among[-1 - pick // 3 % len(among)]

    def is_current(self, lease: LeaseRef) -> bool:
        row = self.bench.step(lease.step_id)
        return (
            row["status"] == "RUNNING"
            and (row["lease_token"], row["lease_epoch"]) == (lease.lease_token, lease.lease_epoch)
            and lease.cluster_epoch == row["cluster_epoch"] == self.cluster_epoch
        )

    def is_cancelled(self, lease: LeaseRef) -> bool:
        return self.bench.task(lease.task_id)["status"] == "CANCELLED"

    def expect(self, lease: LeaseRef, before: Row, *, current: bool, to: Iterable[str], event: str) -> None:
        """A current lease moved its row; a stale one changed nothing of it and left a conflict."""
        after = self.bench.step(lease.step_id)
        conflicts = self.bench.conflicts()
        if current:
            assert conflicts == [], conflicts
            assert after["status"] in to
            return
        assert after == before
        (conflict,) = conflicts
        assert conflict["event_type"] == event
        assert (conflict["step_id"], conflict["task_id"]) == (lease.step_id, lease.task_id)
        assert (conflict["expected_status"], conflict["expected_lease_token"], conflict["expected_lease_epoch"]) == (
            "RUNNING",
            lease.lease_token,
            lease.lease_epoch,
        )
        assert (conflict["actual_status"], conflict["actual_lease_epoch"]) == (before["status"], before["lease_epoch"])
        assert (conflict["actual_lease_owner"], conflict["actual_lease_token"]) == (
            before["lease_owner"],
            before["lease_token"],
        )
        self.bench.store.conn.execute("DELETE FROM lease_conflicts")

    def attempt_is_given_back(self, lease: LeaseRef, before: Row, to: str) -> None:
        after = self.bench.step(lease.step_id)
        if before["status"] == "RUNNING" and after["status"] == to != "CANCELLED":
            assert after["attempt"] == max(0, int(str(before["attempt"])) - 1)

    # -- submit

    @initialize()
    def start(self) -> None:
        self.bench.one()
        self.bench.flow(
            {"id": "a"},
            {"id": "b", "dependsOn": ["a"]},
            {"id": "c", "dependsOn": ["a"]},
            {"id": "d", "dependsOn": ["b", "c"]},
        )

    @rule(
        priority=priorities,
        delay_ms=st.sampled_from([None, None, 0, 5_000]),
        expiry_ms=st.sampled_from([None, None, 1, 4_000]),
    )
    def submit_one(self, priority: str, delay_ms: int | None, expiry_ms: int | None) -> None:
        now_ms = self.bench.now_ms
        self.bench.one(
            priority=priority,
            not_before_ms=None if delay_ms is None else now_ms + delay_ms,
            expires_at_ms=None if expiry_ms is None else now_ms + expiry_ms,
        )

    @rule(
        flow=flows, delay_ms=st.sampled_from([None, None, None, 3_000]), expiry_ms=st.sampled_from([None, None, 4_000])
    )
    def submit_flow(self, flow: list[tuple[int, str]], delay_ms: int | None, expiry_ms: int | None) -> None:
        steps: list[dict[str, object]] = []
        for number, (bits, kind) in enumerate(flow):
            after = [f"s{other}" for other in range(number) if bits >> other & 1]
            step: dict[str, object] = {"id": f"s{number}", "input": "x"}
            if kind == "from" and after:
                step["map"] = {"$from": after[0]}
            elif kind in ("literal", "empty"):
                step["map"] = [1, "two"] if kind == "literal" else []
            elif kind != "":
                step["input"] = {"all": [{"$from": other} for other in after]}
            # What map and input name is waited for as well; naming it twice must not count twice.
            step["dependsOn"] = after
            steps.append(step)
        now_ms = self.bench.now_ms
        self.bench.flow(
            *steps,
            not_before_ms=None if delay_ms is None else now_ms + delay_ms,
            expires_at_ms=None if expiry_ms is None else now_ms + expiry_ms,
        )

    @rule(key=st.sampled_from("abc"), count=st.integers(1, 3))
    def submit_by_key(self, key: str, count: int) -> None:
        tasks = [self.bench.new_task(key=key) for _ in range(count)]
        results = self.bench.submit(*tasks)
        first = self.keys.setdefault(key, tasks[0].task_id)
        assert results == [(first, task.task_id != first) for task in tasks]

    # -- owners

    @rule(node=nodes, limit=st.integers(1, 12))
    def claim(self, node: str, limit: int) -> None:
        rows = self.bench.claimed_rows(node, limit=limit, generation=self.generations[node])
        for row in rows:
            before = self.moves.steps.get(row.lease.row_id)
            assert before is None or before["status"] == "PENDING"
            for other in self.bench.rows(
                "SELECT s.status FROM step_dependencies d JOIN steps s ON s.step_id=d.depends_on_step_id"
                " WHERE d.step_id=? OR d.step_id=(SELECT map_parent FROM steps WHERE step_id=?)",
                row.lease.step_id,
                row.lease.step_id,
            ):
                assert other["status"] == "SUCCESS", "a step was started before what it depends on"
            self.bench.store.render(row)
        self.leases += [row.lease for row in rows]

    @precondition(lambda self: self.leases)
    @rule(pick=picks, output=outputs)
    def succeed(self, pick: int, output: str) -> None:
        lease = self.lease(pick)
        before, current = self.bench.step(lease.step_id), self.is_current(lease)
        result = self.bench.succeed(lease, output)
        assert result.refused == (() if current else (lease.row_id,))
        self.successes[lease.step_id] += current
        self.expect(lease, before, current=current, to=["SUCCESS"], event="success_commit_conflict")
        if current:
            assert self.bench.step(lease.step_id)["result_payload"] == output

    @precondition(lambda self: self.leases)
    @rule(pick=picks, retryable=st.booleans())
    def fail(self, pick: int, retryable: bool) -> None:
        lease = self.lease(pick)
        before, current = self.bench.step(lease.step_id), self.is_current(lease)
        to = "RETRYING" if retryable and lease.attempt < POLICY.max_attempts else "DEAD_LETTER"
        to = "CANCELLED" if self.is_cancelled(lease) else to
        self.bench.fail(lease, retryable=retryable)
        self.expect(lease, before, current=current, to=[to], event="failure_commit_conflict")

    @precondition(lambda self: self.leases)
    @rule(pick=picks, for_ms=st.sampled_from([0, 10_000]))
    def snooze(self, pick: int, for_ms: int) -> None:
        lease = self.lease(pick)
        before, current = self.bench.step(lease.step_id), self.is_current(lease)
        to = "CANCELLED" if self.is_cancelled(lease) else "RETRYING"
        self.bench.snooze(lease, for_ms)
        self.expect(lease, before, current=current, to=[to], event="failure_commit_conflict")
        self.attempt_is_given_back(lease, before, to)

    @precondition(lambda self: self.leases)
    @rule(
        chosen=st.lists(
            st.tuples(picks, st.sampled_from(["succeeded", "failed", "snoozed"]), outputs), min_size=2, max_size=6
        )
    )
    def end_several_at_once(self, chosen: list[tuple[int, str, str]]) -> None:
        """One group commit with results of good and stale leases, perhaps of the same row, perhaps the same twice."""
        ends, wanted = [], []
        for pick, kind, output in chosen:
            lease = self.lease(pick)
            ends.append((lease, report_of(lease, kind, output=output if kind == "succeeded" else "", error="broken")))
            wanted.append(self.is_current(lease))
        good = {lease.lease_token for (lease, _), current in zip(ends, wanted, strict=True) if current}
        result = self.bench.finish(*ends)
        conflicts = self.bench.rows("SELECT * FROM lease_conflicts")
        self.bench.store.conn.execute("DELETE FROM lease_conflicts")
        assert len(result.refused) == len(conflicts) == len(ends) - len(good)
        for token in good:
            (lease,) = {lease for lease, _ in ends if lease.lease_token == token}
            row = self.bench.step(lease.step_id)
            assert row["lease_token"] is None and row["lease_epoch"] == lease.lease_epoch
            if row["status"] == "SUCCESS":
                self.successes[lease.step_id] += 1
                assert row["result_payload"] in {report.output for of, report in ends if of == lease}

    @precondition(lambda self: self.leases)
    @rule(pick=picks)
    def release(self, pick: int) -> None:
        lease = self.lease(pick)
        before, current = self.bench.step(lease.step_id), self.is_current(lease)
        to = "CANCELLED" if self.is_cancelled(lease) else "PENDING"
        assert self.bench.release(lease) == current
        self.expect(lease, before, current=current, to=[to], event="failure_commit_conflict")
        self.attempt_is_given_back(lease, before, to)

    @precondition(lambda self: self.leases)
    @rule(pick=picks)
    def worker_dies(self, pick: int) -> None:
        lease = self.lease(pick)
        before, current = self.bench.step(lease.step_id), self.is_current(lease)
        to = ["CANCELLED"] if self.is_cancelled(lease) else ["RETRYING", "DEAD_LETTER"]
        self.bench.lose(lease)
        self.expect(lease, before, current=current, to=to, event="failure_commit_conflict")
        self.attempt_is_given_back(lease, before, "RETRYING")

    @precondition(lambda self: self.leases)
    @rule(chosen=st.lists(picks, min_size=1, max_size=4))
    def renew(self, chosen: list[int]) -> None:
        leases = {self.lease(pick).lease_token: self.lease(pick) for pick in chosen}
        before = {token: self.bench.step(lease.step_id) for token, lease in leases.items()}
        current = {token for token, lease in leases.items() if self.is_current(lease)}
        with self.bench.store.write():
            lost = self.bench.store.renew(
                [
                    (lease.row_id, lease.lease_token, lease.lease_epoch, lease.cluster_epoch)
                    for lease in leases.values()
                ],
                now_ms=self.bench.now_ms,
            )
        assert Counter(lost) == Counter(lease.row_id for token, lease in leases.items() if token not in current)
        for token in current:
            after = self.bench.step(leases[token].step_id)
            # Each renewal changes the row, or a judge that watches it would hold the owner silent.
            assert int(str(after.pop("updated_at_ms"))) > int(str(before[token].pop("updated_at_ms")))
            assert after == before[token]

    @rule(node=nodes)
    def scan(self, node: str) -> None:
        seen = self.bench.seen(node)
        running = self.bench.rows("SELECT id FROM steps WHERE status='RUNNING' AND lease_owner IS NOT ?", node)
        assert {lease.row_id for lease in seen} == {row["id"] for row in running}
        assert [lease.updated_at_ms for lease in seen] == sorted(lease.updated_at_ms for lease in seen)
        self.scans += seen

    @precondition(lambda self: self.scans)
    @rule(pick=picks, cause=st.sampled_from(["lease_expired", "owner_dead"]))
    def reclaim(self, pick: int, cause: str) -> None:
        seen = self.scans[-1 - pick % min(len(self.scans), 20)]
        (before,) = self.bench.rows("SELECT * FROM steps WHERE id=?", seen.row_id)
        current = (before["status"], before["lease_token"], before["lease_epoch"], before["updated_at_ms"]) == (
            "RUNNING",
            seen.lease_token,
            seen.lease_epoch,
            seen.updated_at_ms,
        )
        cancelled = self.bench.task(str(before["task_id"]))["status"] == "CANCELLED"
        count = self.bench.reclaim(seen, cause=cause)
        assert count.reclaimed == current  # type: ignore[attr-defined]
        after = self.bench.step(str(before["step_id"]))
        if after["status"] == "RETRYING" and current:
            assert after["attempt"] == max(0, int(str(before["attempt"])) - 1)
            assert after["owner_deaths"] == int(str(before["owner_deaths"])) + 1
        conflicts = self.bench.conflicts()
        if current:
            assert conflicts == []
            assert after["status"] in (["CANCELLED"] if cancelled else ["RETRYING", "DEAD_LETTER"])
            return
        assert after == before
        (conflict,) = conflicts
        assert conflict["event_type"] == (
            "reclaim_conflict" if cause == "lease_expired" else "dead_owner_reclaim_conflict"
        )
        assert (conflict["expected_lease_epoch"], conflict["worker_id"]) == (seen.lease_epoch, seen.owner)
        self.bench.store.conn.execute("DELETE FROM lease_conflicts")

    @rule(node=nodes)
    def restart(self, node: str) -> None:
        self.generations[node] += 1
        theirs = self.bench.rows("SELECT count(*) n FROM steps WHERE status='RUNNING' AND lease_owner=?", node)
        with self.bench.store.write():
            count = self.bench.store.requeue_former_generation(
                node_id=node, generation=self.generations[node], policy_of=policy_of, now_ms=self.bench.now_ms
            )
        assert [{"n": count.reclaimed}] == theirs
        assert self.bench.rows("SELECT 1 FROM steps WHERE status='RUNNING' AND lease_owner=?", node) == []

    # -- operators and time

    @rule(pick=picks, mode=st.sampled_from(CancelMode))
    def cancel(self, pick: int, mode: CancelMode) -> None:
        task_id = self.task_ids()[pick % len(self.moves.tasks)]
        before = str(self.bench.task(task_id)["status"])
        with self.bench.store.write():
            cancelled = self.bench.store.cancel(task_id, mode=mode, reason="enough", now_ms=self.bench.now_ms)
        assert cancelled.code == (f"terminal_state:{before}" if before in TERMINAL_TASK else "cancelled")
        left = {str(row["status"]) for row in self.bench.rows("SELECT status FROM steps WHERE task_id=?", task_id)}
        if cancelled.code == "cancelled":
            assert left <= (
                {"SUCCESS", "CANCELLED", "RUNNING"} if mode is CancelMode.SOFT else {"SUCCESS", "CANCELLED"}
            )

    @rule(pick=picks)
    def replay(self, pick: int) -> None:
        dead = [task_id for task_id in self.task_ids() if self.moves.tasks[task_id]["status"] == "DEAD_LETTER"]
        among = dead or self.task_ids()
        self.replayed = among[pick % len(among)]
        with self.bench.store.write():
            code = self.bench.store.replay(str(self.replayed), now_ms=self.bench.now_ms)
        assert code == ("replayed" if dead else "invalid_state")

    def dead_task(self, pick: int) -> str | None:
        dead = [task_id for task_id in self.task_ids() if self.moves.tasks[task_id]["status"] == "DEAD_LETTER"]
        return dead[pick % len(dead)] if dead else None

    @rule(pick=picks, which=picks)
    def replay_from_a_step(self, pick: int, which: int) -> None:
        task_id = self.dead_task(pick)
        if task_id is None:
            return
        rows = [row for row in self.moves.steps.values() if row["task_id"] == task_id and row["map_parent"] is None]
        start = str(sorted(str(row["step_id"]) for row in rows)[which % len(rows)])
        edges = [
            (str(row["step_id"]), str(row["depends_on_step_id"]))
            for row in self.bench.rows("SELECT step_id, depends_on_step_id FROM step_dependencies")
        ]
        again = steps_again(start, edges)
        kept = {
            row["step_id"]: row
            for row in self.moves.steps.values()
            if row["task_id"] == task_id
            and row["status"] in ("SUCCESS", "RUNNING", "RETRYING")
            and row["step_id"] not in again
            and row["map_parent"] not in again
        }
        self.replayed, self.restarted = task_id, True
        with self.bench.store.write():
            code = self.bench.store.replay(task_id, now_ms=self.bench.now_ms, from_step=start)
        assert code == "replayed"
        for step_id, row in kept.items():
            assert self.bench.step(str(step_id))["status"] == row["status"], "what does not depend on it is kept"
        for step_id in again:
            # A map over a list that is in the file may be through at once, when it is empty.
            row = self.bench.step(step_id)
            assert row["status"] == "PENDING" or row["map_template"] is not None
        self.successes = Counter(
            {k: n for k, n in self.successes.items() if k in kept or not k.startswith(f"stp_{task_id}")}
        )

    @rule(pick=picks, which=picks)
    def replay_with_another_input(self, pick: int, which: int) -> None:
        task_id = self.dead_task(pick)
        dead = [
            str(row["step_id"])
            for row in self.moves.steps.values()
            if row["task_id"] == task_id and row["status"] == "DEAD_LETTER" and row["map_template"] is None
        ]
        if task_id is None or not dead:
            return
        self.replayed, self.edited = task_id, sorted(dead)[which % len(dead)]
        with self.bench.store.write():
            self.bench.store.replay(task_id, now_ms=self.bench.now_ms, edits={self.edited: f"input {which}"})
        row = self.bench.step(self.edited)
        assert (row["status"], row["payload"], row["template"]) == ("PENDING", f"input {which}", 0)

    @rule(pick=picks, late=st.booleans())
    def discard(self, pick: int, late: bool) -> None:
        among = self.task_ids()
        if not among:
            return
        task_id = self.dead_task(pick) or among[pick % len(among)]
        dead = self.moves.tasks[task_id]["status"] == "DEAD_LETTER"
        self.replayed = task_id
        with self.bench.store.write():
            code, _ = self.bench.store.discard(
                task_id,
                reason="no use",
                actor="me",
                cluster_epoch=self.cluster_epoch - late,
                now_ms=self.bench.now_ms,
            )
        assert code == ("invalid_state" if not dead else "stale" if late else "discarded")
        assert (self.bench.task(task_id)["last_error"] == "discarded: no use") == (code == "discarded") or not dead

    @rule()
    def bump_the_cluster_epoch(self) -> None:
        self.cluster_epoch += 1
        self.bench.store.conn.execute(
            "UPDATE cluster_state SET state_value=?, version=version+1 WHERE state_key='cluster_epoch'",
            (str(self.cluster_epoch),),
        )

    @rule(by_ms=st.sampled_from([0, 1, 700, 5_000, -3_000]))
    def time_passes(self, by_ms: int) -> None:
        self.bench.now_ms += by_ms

    @rule(limit=st.integers(1, 5))
    def promote(self, limit: int) -> None:
        due = self.bench.store.next_due_ms()
        with self.bench.store.write():
            count = self.bench.store.promote_due(now_ms=self.bench.now_ms, limit=limit)
        assert (count > 0) == (due is not None and due <= self.bench.now_ms)

    @rule()
    def expire(self) -> None:
        with self.bench.store.write():
            self.bench.store.expire_tasks(now_ms=self.bench.now_ms, limit=10)
        assert not self.bench.store.has_expired(now_ms=self.bench.now_ms) or len(self.moves.tasks) > 10

    @rule()
    def count(self) -> None:
        conn = self.bench.store.conn
        shown = stats(conn, self.bench.root, namespace="default", now_ms=self.bench.now_ms)
        for table, counted in (("tasks", shown.task_status), ("steps", shown.step_status)):
            assert counted == dict(conn.execute(f"SELECT status, count(*) FROM {table} GROUP BY status").fetchall())
        states = dict(conn.execute("SELECT state, count(*) FROM messages GROUP BY state").fetchall())
        assert shown.message_state == states
        (twice,) = conn.execute("SELECT count(*)-count(DISTINCT msg_id) FROM messages").fetchone()
        assert twice == 0

    # -- what always holds

    @invariant()
    def every_row_moved_as_the_table_allows(self) -> None:
        self.moves.to(self.bench, replayed=self.replayed, restarted=self.restarted, edited=self.edited)
        self.replayed, self.restarted, self.edited = None, False, None

    @invariant()
    def waiting_on_is_what_is_still_missing(self) -> None:
        wrong = self.bench.rows(
            "SELECT step_id, status, waiting_on, missing FROM (SELECT s.*, CASE"
            # A map step that is spread out waits for its copies, before that for its dependencies and for being spread.
            " WHEN s.map_template IS NOT NULL AND s.map_index IS NOT NULL"
            " THEN (SELECT count(*) FROM steps c WHERE c.map_parent=s.step_id AND c.status<>'SUCCESS')"
            " ELSE (SELECT count(*) FROM step_dependencies d JOIN steps o ON o.step_id=d.depends_on_step_id"
            "       WHERE d.step_id=s.step_id AND o.status<>'SUCCESS') + (s.map_template IS NOT NULL) END AS missing"
            " FROM steps s) WHERE (status='PENDING' AND waiting_on<>missing)"
            " OR (status IN ('RUNNING','RETRYING') AND waiting_on<>0)"
            # A map step itself is never for anybody to claim.
            " OR (status='PENDING' AND map_template IS NOT NULL AND waiting_on=0)"
        )
        assert wrong == []

    @invariant()
    def a_task_is_what_its_steps_make_it(self) -> None:
        by_task: dict[object, list[Row]] = {}
        for row in self.moves.steps.values():
            by_task.setdefault(row["task_id"], []).append(row)
        for task_id, task in self.moves.tasks.items():
            steps = by_task[task_id]
            statuses = {str(step["status"]) for step in steps}
            open_steps = sum(step["status"] != "SUCCESS" for step in steps)
            ended_apart = task["status"] == "CANCELLED" and steps[0]["shape"] == SHAPE_SOLE
            assert task["open_steps"] == open_steps or ended_apart
            assert (task["status"] in TERMINAL_TASK) == (task["finished_at_ms"] is not None)
            match task["status"]:
                case "SUCCESS":
                    assert statuses == {"SUCCESS"} and task["result_payload"] is not None
                case "DEAD_LETTER":
                    assert "DEAD_LETTER" in statuses
                case "CANCELLED":
                    assert statuses <= {"SUCCESS", "CANCELLED", "RUNNING", "DEAD_LETTER"}
                case _:
                    assert "DEAD_LETTER" not in statuses and "CANCELLED" not in statuses and open_steps > 0

    @invariant()
    def nothing_succeeds_twice(self) -> None:
        assert all(count <= 1 for count in self.successes.values())

    # -- the end: everything can be driven to an end

    def teardown(self) -> None:
        if not self.moves.tasks:
            return
        bench = self.bench
        for _ in range(160):
            bench.now_ms += 120_000
            bench.reclaim(*bench.seen())
            self.every_row_moved_as_the_table_allows()
            bench.promote()
            self.every_row_moved_as_the_table_allows()
            leases = bench.claim()
            self.every_row_moved_as_the_table_allows()
            bench.finish(*((lease, report_of(lease, output='["a"]')) for lease in leases))
            self.every_row_moved_as_the_table_allows()
            if not leases and bench.store.next_due_ms() is None:
                break
        self.every_row_moved_as_the_table_allows()
        self.waiting_on_is_what_is_still_missing()
        self.a_task_is_what_its_steps_make_it()
        self.count()
        assert {str(task["status"]) for task in self.moves.tasks.values()} <= TERMINAL_TASK
        for task_id, task in self.moves.tasks.items():
            why = explanations(bench.store.conn, bench.root, str(task_id), lease_timeout_ms=1, now_ms=bench.now_ms)
            reasons = {explanation.reason for explanation in why}
            left = {"blocked_by_dead_dependency", "waiting_dependency", "dead_letter", "cancelled"}
            assert reasons <= (left if task["status"] == "DEAD_LETTER" else {"cancelled", "dead_letter"})
        bench.close()
