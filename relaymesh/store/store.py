"""Store: one process's door to the database of a root. Not thread-safe: one actor, or one client, has one.

    with store.write():            one BEGIN IMMEDIATE … COMMIT; everything inside is on disk when it leaves
        store.submit(...)
        store.finish(...)
    store.task(...)                reads need no transaction

Every write method must be called inside ``write()``; the group commit of the StoreActor puts many into one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from relaymesh.core.clock_guard import ClockState
from relaymesh.core.fairness import Fairness
from relaymesh.core.ident import Ids
from relaymesh.core.latency import SPAN_MS
from relaymesh.core.outcome import Failed
from relaymesh.core.retry import RetryPolicy
from relaymesh.core.template import render_stored
from relaymesh.core.throttle import Limit, LimitScope, PauseScope, Rules
from relaymesh.core.workflow_error import StepInputError
from relaymesh.errors import RootError
from relaymesh.store import admin, control, recover, schedule_due
from relaymesh.store.claim import Claim, Claimant, ClaimedRow, Slots, choose, claim, ready_groups
from relaymesh.store.clock import save_clock
from relaymesh.store.connection import BUSY_TIMEOUT_MS
from relaymesh.store.counter import BUDGET_CUT, BUDGET_USED_UP, DEAD_OWNER_RECLAIMED, add_counter
from relaymesh.store.database import Database
from relaymesh.store.direct import submit_and_claim
from relaymesh.store.error import KeyringError, SealError
from relaymesh.store.finish import FinishResult, Spilled, commit_reports, finish_tasks
from relaymesh.store.latency import Latencies, count_latencies, forget_latencies, latencies_of
from relaymesh.store.log_file import LOG_KEPT_BYTES, log_bytes, make_room
from relaymesh.store.payload import PayloadMissingError, Stored
from relaymesh.store.release import dependency_outputs, spread_roots
from relaymesh.store.submit import insert_tasks
from relaymesh.store.throttle import RULES_STATE, KeyCursors, Throttle, forget_buckets, load_rules
from relaymesh.wire.store import AttemptSpent, FinishedStep, Grant, LeaseRef, NewTask, SeenLease, StepCut, WriteNode
from relaymesh.wire.work import LogLine

if TYPE_CHECKING:
    from relaymesh.core.admission import Bounds
    from relaymesh.core.mesh.silence import Heard, Patience
    from relaymesh.store.admission import Refusal
    from relaymesh.store.budget import Row as BudgetRow
    from relaymesh.store.budget import Spending
    from relaymesh.store.schedule_fire import Fired, Press

__all__ = ["PolicyOf", "Store"]

COUNTED_AT_ONCE = 16
"""Results of one commit that are counted in it."""
PolicyOf = Callable[[str], RetryPolicy]

_STATE = f"""
SELECT state_key, state_value FROM cluster_state WHERE state_key IN ('cluster_epoch', '{RULES_STATE}')
UNION ALL SELECT 'generation', generation FROM mesh_nodes WHERE node_id=?
"""


class Store(Database):
    """A database that tasks are submitted to, claimed from and committed to."""

    claims_as = ""
    """The node that claims through this store: a claim is refused when a later generation of it has been entered."""
    # Read once in each write transaction, and true until it ends: the cluster epoch, the generation that is entered for
    # the node, and the number of the rules.
    _state_of = -1
    _state_version = (-1, -1)
    remembers_state = False
    """They stay true until another connection commits: so on one where only the methods of this class change them. It
    costs less to ask whether one did than to read them, in the thread that everybody waits for."""
    _epoch_read = 0
    _generation_read = 0
    _rules_read = ""
    _latencies_kept = -1
    counts_later = False
    """A few results are counted with a later commit, which saves an idle node a statement and a page for each; whoever
    sets this calls ``count_latencies`` now and then. Until then they are in memory, and die with the process."""
    _uncounted: Latencies | None = None
    _rules = Rules()
    _cursors: KeyCursors | None = None
    _fresh_ids: Ids | None = None
    _ids_ms = 0
    used_up: tuple[BudgetRow, ...] = ()
    """Budgets that a transaction has used up, until ``take_used_up``."""

    # -- submit ------------------------------------------------------------------------------------------------------

    def submit(self, tasks: Sequence[NewTask], *, now_ms: int) -> list[tuple[str, bool]]:
        """Store tasks; return ``(task_id, deduplicated)`` for each."""
        self._expect_keys(tasks, now_ms)
        if any(task.unique is not None for task in tasks):
            results = self._submit_unique(tasks, now_ms)
        else:
            results = self._insert(tasks, now_ms)
        if any(task.budget for task in tasks):
            self._store_budgets(tasks, results, now_ms)
        spread = [
            task.task_id
            for task, (_, deduplicated) in zip(tasks, results, strict=True)
            if not deduplicated and any(step.map_template is not None and step.waiting_on == 1 for step in task.steps)
        ]
        if spread:
            settled = spread_roots(self.conn, spread, now_ms=now_ms, payloads=self.payloads)
            finish_tasks(self.conn, settled, now_ms)
        return results

    def _insert(self, tasks: Sequence[NewTask], now_ms: int) -> list[tuple[str, bool]]:
        return insert_tasks(self.conn, tasks, namespace=self.namespace, now_ms=now_ms, key_age_ms=self._key_age_ms)

    def _key_age_ms(self) -> int:
        from relaymesh.core.retention import KEEP
        from relaymesh.settings import load_settings

        try:
            return load_settings(self.root).idempotency_key_retention_ms
        except RootError:
            return KEEP  # rather a duplicate that is refused than a task that runs twice

    def _expect_keys(self, tasks: Sequence[NewTask], now_ms: int) -> None:
        """Let claims look for keys from now on, when one of these has the first."""
        if any(step.concurrency_key is not None for task in tasks for step in task.steps):
            self._read_state()
            if not self._rules.keyed:
                control.expect_keys(self.conn, now_ms=now_ms)
                self._state_of = -1

    def _store_budgets(self, tasks: Sequence[NewTask], results: Sequence[tuple[str, bool]], now_ms: int) -> None:
        """Store the budgets of new tasks, and let claims look for such from now on, when these have the first."""
        from relaymesh.store import budget_rows

        self._read_state()  # before there is one of these, which others have not heard of
        budget_rows.store_task_budgets(self.conn, tasks, results, now_ms=now_ms)
        if self._rules.budgets is None or not self._rules.budgets.tasks:
            control.tell_rules(self.conn, now_ms)
            self._state_of = -1

    def _submit_unique(self, tasks: Sequence[NewTask], now_ms: int) -> list[tuple[str, bool]]:
        from relaymesh.store.unique import submit_unique

        def insert(some: Sequence[NewTask]) -> list[tuple[str, bool]]:
            return self._insert(some, now_ms)

        return submit_unique(self.conn, tasks, insert, now_ms=now_ms)

    def admit(self, tasks: Sequence[NewTask], bounds: Bounds, *, now_ms: int) -> list[Refusal | None]:
        """Return for each task why the gate keeps it out, or None; submit the others in this transaction."""
        from relaymesh.store.admission import admit

        return admit(self.conn, tasks, bounds, now_ms=now_ms)

    def _epoch(self) -> int:
        """Return the cluster epoch."""
        self._read_state()
        return self._epoch_read

    def _read_state(self) -> None:
        """Read the cluster epoch and, when they have changed, the rules: nobody else can change them meanwhile."""
        if self._state_of == self.transactions:
            return
        if self.remembers_state:
            # What a transaction read that was rolled back may have been its own.
            version = (self.data_version(), self.undone)
            if self._state_of >= 0 and version == self._state_version:
                self._state_of = self.transactions
                return
            self._state_version = version
        state = dict(self.conn.execute(_STATE, (self.claims_as,)).fetchall())
        self._epoch_read = int(state["cluster_epoch"])
        self._generation_read = state.get("generation", 0)
        version = state.get(RULES_STATE, "")
        if version != self._rules_read:
            self._rules, self._rules_read = load_rules(self.conn), version
        self._state_of = self.transactions

    def nobody_else_since(self, data_version: int) -> bool:
        """Return whether no other connection has committed since ``data_version``; within a write transaction."""
        self._read_state()
        return self.remembers_state and self._state_version[0] == data_version

    def rules(self) -> Rules:
        """Return the limits and pauses of the root; a read."""
        with self.reading():
            return load_rules(self.conn)

    def _throttle(self, node_id: str, now_ms: int) -> Throttle | None:
        """Return what holds for one claim of this transaction; None when there is nothing."""
        self._read_state()
        if not self._rules:
            return None
        if self._cursors is None:
            self._cursors = {}
        return Throttle(self.conn, self._rules, node_id=node_id, now_ms=now_ms, cursors=self._cursors)

    def set_limit(self, scope: LimitScope, name: str, change: Limit, *, now_ms: int) -> Limit:
        """Set what ``change`` names; return the limit that holds now."""
        self._state_of = -1
        return control.set_limit(self.conn, scope, name, change, now_ms=now_ms)

    def remove_limit(self, scope: LimitScope, name: str, *, now_ms: int) -> bool:
        """Remove a limit; return whether there was one."""
        self._state_of = -1
        return control.remove_limit(self.conn, scope, name, now_ms=now_ms)

    def pause(self, scope: PauseScope, name: str, *, reason: str, now_ms: int) -> bool:
        """Let nothing new be taken there; return False when it was paused already."""
        self._state_of = -1
        return control.pause(self.conn, scope, name, reason=reason, now_ms=now_ms)

    def resume(self, scope: PauseScope, name: str, *, now_ms: int) -> bool:
        """End a pause; return whether there was one."""
        self._state_of = -1
        return control.resume(self.conn, scope, name, now_ms=now_ms)

    def forget_buckets(self, *, now_ms: int, limit: int) -> int:
        """Remove buckets of rates that are full again; return how many."""
        self._read_state()
        return forget_buckets(self.conn, self._rules, now_ms=now_ms, limit=limit)

    def forget_latencies(self, *, now_ms: int) -> None:
        """Remove counts of latencies that are older than the window; looks once in a span of time."""
        if now_ms // SPAN_MS != self._latencies_kept:
            self._latencies_kept = now_ms // SPAN_MS
            forget_latencies(self.conn)

    # -- claim and commit --------------------------------------------------------------------------------------------

    def has_ready(self, pools: Callable[[str], bool]) -> bool:
        """Return whether something is ready whose agent passes ``pools``."""
        return any(pools(agent) for agent, _ in self.ready_groups())

    def ready_groups(self) -> list[tuple[str, str]]:
        """Return the ``(agent_id, priority)`` pairs that have a ready step."""
        with self.reading():
            return ready_groups(self.conn)

    def claim(
        self,
        slots: Slots,
        state: Fairness,
        *,
        node_id: str,
        generation: int,
        token: str,
        now_ms: int,
        groups: Sequence[tuple[str, str]] | None = None,
    ) -> Claim:
        """Claim ready steps for free slots. groups: what ``ready_groups`` said a moment ago, if it was asked."""
        claimant = Claimant(node_id, generation, token, self._epoch())
        if self._generation_read > generation:
            return self._refuse_claim(slots, state, claimant, now_ms)
        return claim(self.conn, slots, state, claimant, now_ms, groups, self._throttle(node_id, now_ms))

    def _refuse_claim(self, slots: Slots, state: Fairness, claimant: Claimant, now_ms: int) -> Claim:
        from relaymesh.store.refused_claim import refuse

        choice = choose(self.conn, slots, state, throttle=self._throttle(claimant.node_id, now_ms))
        return refuse(self.conn, choice.planned.picks, state, claimant, now_ms)

    def submit_and_claim(
        self,
        tasks: Sequence[NewTask],
        slots: Slots,
        state: Fairness,
        *,
        node_id: str,
        generation: int,
        token: str,
        now_ms: int,
        nothing_waits: bool = False,
    ) -> tuple[list[tuple[str, bool]], Claim]:
        """Store single-step tasks and claim ready steps, these or others; see ``submit`` and ``claim``.

        nothing_waits: the caller knows that no step is ready that these slots could have taken.
        """
        self._expect_keys(tasks, now_ms)
        claimant = Claimant(node_id, generation, token, self._epoch())
        if self._generation_read > generation:
            return self._insert(tasks, now_ms), self._refuse_claim(slots, state, claimant, now_ms)
        return submit_and_claim(
            self.conn,
            tasks,
            slots,
            state,
            claimant,
            namespace=self.namespace,
            now_ms=now_ms,
            throttle=lambda: self._throttle(node_id, now_ms),
            key_age_ms=self._key_age_ms,
            nothing_waits=nothing_waits,
        )

    def render(self, row: ClaimedRow) -> Grant | tuple[LeaseRef, Failed]:
        """Return a claimed step with its input, or why it has none; needs no transaction, outputs do not change.

        Raises:
            KeyringError: it is the keyring, and not the step; once that is put back, the step can run.
        """
        if row.allowances:
            from relaymesh.store.budget import task_exhausted

            failed = task_exhausted(row.allowances)
            if failed is not None:
                return row.lease, failed
        if not row.payload_path and not row.template and not isinstance(row.payload, bytes):
            return Grant(row.lease, row.payload or "", row.pool, row.traceparent or "", row.allowances)
        step_id, text = row.lease.step_id, self.payloads.text
        try:
            payload = text("payload", _origin(row), row.payload, row.payload_path)
            if row.template:
                item = text("item", step_id, row.map_item, None)
                payload = render_stored(payload or "", self._outputs_for(row), item_json=item, index=row.map_index)
        except StepInputError as error:
            return row.lease, Failed(error.code, str(error), retryable=False)
        except KeyringError:
            raise
        except (PayloadMissingError, SealError) as error:
            return row.lease, Failed(error.code, str(error), retryable=False)
        return Grant(row.lease, payload or "", row.pool, row.traceparent or "", row.allowances)

    def _outputs_for(self, row: ClaimedRow) -> dict[str, str]:
        # A copy of a map step has the dependencies of the step that it is a copy of.
        with self.reading():
            return dependency_outputs(self.conn, _origin(row), self.payloads.text)

    def finish(
        self,
        steps: Sequence[FinishedStep],
        *,
        node_id: str,
        spilled: Spilled,
        policy_of: PolicyOf,
        now_ms: int,
    ) -> FinishResult:
        """Commit what attempts came to, and charge what they have spent."""
        result = commit_reports(
            self.conn,
            steps,
            node_id=node_id,
            cluster_epoch=self._epoch(),
            spilled=spilled,
            policy_of=policy_of,
            rng=self.rng,
            now_ms=now_ms,
            payloads=self.payloads,
        )
        if self._rules.budgets is not None:
            self._charge_ended(steps, now_ms)
        if result.ended:
            found = latencies_of(self.conn, result.ended, now_ms)
            self._uncounted = found if self._uncounted is None else self._uncounted + found
            if len(result.ended) >= COUNTED_AT_ONCE or not self.counts_later:
                self.count_latencies()
        return result

    def count_latencies(self) -> None:
        """Count steps that ended in earlier commits and were not counted in them; part of a transaction."""
        if self._uncounted:
            count_latencies(self.conn, self._uncounted)
            self._uncounted = None

    def spend(self, attempts: Sequence[AttemptSpent], *, now_ms: int) -> tuple[StepCut, ...]:
        """Charge what running attempts have spent; return those that have to end."""
        self._read_state()
        if self._rules.budgets is None:
            return ()
        crossed = self._charge([(attempt.lease, dict(attempt.spent)) for attempt in attempts], now_ms)
        return tuple(
            StepCut(attempt.worker, lease.row_id, lease.lease_token, failed.error, failed.retryable)
            for attempt in attempts
            for lease in (attempt.lease,)
            if (failed := crossed.get((lease.row_id, lease.lease_epoch))) is not None
        )

    def _charge_ended(self, steps: Sequence[FinishedStep], now_ms: int) -> None:
        from relaymesh.core.budget import BUDGET_EXHAUSTED
        from relaymesh.store.budget import spending_of

        self._charge(spending_of(steps), now_ms)
        cut = sum(step.report.code == BUDGET_EXHAUSTED for step in steps)
        if cut:
            add_counter(self.conn, BUDGET_CUT, cut)

    def _charge(self, spending: Sequence[Spending], now_ms: int) -> Mapping[tuple[int, int], Failed]:
        from relaymesh.store.budget import charge  # a root without budgets does not pay for it

        assert self._rules.budgets is not None
        done = charge(self.conn, self._rules.budgets, spending, now_ms=now_ms)
        if done.used_up:
            add_counter(self.conn, BUDGET_USED_UP, len(done.used_up))
            self.used_up = (*self.used_up, *done.used_up)
        return done.crossed

    def take_used_up(self) -> Sequence[BudgetRow]:
        """Return the budgets that were used up since this was asked last, for the audit log."""
        taken, self.used_up = self.used_up, ()
        return taken

    def spill_outputs(self, steps: list[FinishedStep]) -> dict[str, Stored]:
        """Write outputs that are too long for a row to their files, and encrypt them if the settings say so.

        Call it before the transaction. An output that cannot be encrypted is replaced in ``steps`` by a failure which
        is not retried: it must not be stored in clear text, and running the agent again would not help. What an agent
        said of its failure goes to the encrypted log of the attempt, for it may quote its input.
        """
        spilled: dict[str, Stored] = {}
        sealing: bool | None = None
        for index, step in enumerate(steps):
            if step.report.kind == "snoozed":
                continue
            if sealing is None:
                sealing = self.payloads.seal.on()
            if step.report.kind == "failed":
                if sealing:
                    steps[index] = _unsaid(step)
                continue
            try:
                if sealing:
                    kept = self.payloads.keep_result("output", step.lease.step_id, step.report.output)
                elif (path := self.payloads.spill(step.report.output)) is not None:
                    kept = Stored(None, None, path)
                else:
                    continue
            except SealError as error:
                steps[index] = _unkept(step, error)
            else:
                spilled[step.lease.lease_token] = kept
        return spilled

    # -- leases ------------------------------------------------------------------------------------------------------

    def renew(
        self,
        leases: Sequence[tuple[int, str, int, int]],
        *,
        progress: Sequence[tuple[int, str]] = (),
        now_ms: int,
    ) -> tuple[int, ...]:
        """Renew leases, keep what agents said of their progress; return the rows that are no longer ours."""
        lost = recover.renew(self.conn, leases, cluster_epoch=self._epoch(), now_ms=now_ms)
        recover.store_progress(self.conn, progress, leases, self.payloads)
        return lost

    def lost_leases(self, leases: Sequence[tuple[int, int]], *, node_id: str) -> tuple[tuple[int, int], ...]:
        """Return those of these ``(row_id, lease_epoch)`` that the node does not hold any more; a read."""
        with self.reading():
            return recover.lost_leases(self.conn, leases, node_id=node_id)

    def cancel_reasons(self, row_ids: Iterable[int]) -> tuple[tuple[int, str], ...]:
        """Return those of these rows whose task was cancelled, with the reason; a read."""
        with self.reading():
            return recover.cancel_reasons(self.conn, row_ids)

    def release(self, leases: Sequence[LeaseRef], *, worker_id: str, now_ms: int) -> int:
        """Give steps back; no attempt is counted."""
        return recover.release(self.conn, leases, cluster_epoch=self._epoch(), worker_id=worker_id, now_ms=now_ms)

    def lose_attempts(
        self, leases: Sequence[LeaseRef], *, error: str, worker_id: str, policy_of: PolicyOf, now_ms: int
    ) -> int | None:
        """Take back steps whose worker process died."""
        return recover.lose_attempts(
            self.conn,
            leases,
            error=error,
            cluster_epoch=self._epoch(),
            worker_id=worker_id,
            policy_of=policy_of,
            rng=self.rng,
            now_ms=now_ms,
        )

    def reclaim(
        self, leases: Sequence[SeenLease], *, cause: str, policy_of: PolicyOf, now_ms: int
    ) -> recover.Reclaimed:
        """Take steps from dead or silent owners."""
        count = recover.reclaim(self.conn, leases, cause=cause, policy_of=policy_of, rng=self.rng, now_ms=now_ms)
        if cause == "owner_dead" and count.reclaimed:
            add_counter(self.conn, DEAD_OWNER_RECLAIMED, count.reclaimed)
        return count

    def requeue_former_generation(
        self, *, node_id: str, generation: int, policy_of: PolicyOf, now_ms: int, died: bool = True
    ) -> recover.Reclaimed:
        """Fence what an earlier generation of this node ran; a death of its process counts against the steps."""
        return recover.requeue_former_generation(
            self.conn,
            node_id=node_id,
            generation=generation,
            policy_of=policy_of,
            rng=self.rng,
            now_ms=now_ms,
            died=died,
        )

    def running_elsewhere(self, *, node_id: str, limit: int) -> list[SeenLease]:
        """Return RUNNING rows of other owners, longest silent first."""
        with self.reading():
            return recover.running_elsewhere(self.conn, node_id=node_id, limit=limit)

    def nodes_marked_dead(self) -> frozenset[str]:
        """Return the nodes that membership holds dead."""
        from relaymesh.store.member import dead_members

        with self.reading():
            return frozenset(dead_members(self.conn))

    # -- what comes with time ----------------------------------------------------------------------------------------

    def next_due_ms(self) -> int | None:
        """Return when the next delayed or retrying step or the next tick of a schedule is due, or None."""
        with self.reading():
            instants = (recover.next_due_ms(self.conn), schedule_due.next_due_ms(self.conn))
        return min((at_ms for at_ms in instants if at_ms is not None), default=None)

    def next_step_due_ms(self) -> int | None:
        """Return when the next delayed or retrying step is due, or None."""
        with self.reading():
            return recover.next_due_ms(self.conn)

    def promote_due(self, *, now_ms: int, limit: int) -> int:
        """Make steps ready whose time has come."""
        return recover.promote_due(self.conn, now_ms=now_ms, limit=limit)

    def restart_waits(self, *, now_ms: int) -> int:
        """Let backoffs and schedules begin anew that were set by a wall clock which was then set back."""
        return recover.restart_waits(self.conn, now_ms=now_ms) + schedule_due.rewind(self.conn, now_ms=now_ms)

    def has_queued_tick(self) -> bool:
        """Return whether a tick waits for the end of the run before it; a read."""
        with self.reading():
            return schedule_due.has_queued_tick(self.conn)

    def press(self, *, now_ms: int) -> Press:
        """Return what makes tasks out of ticks in this transaction."""
        from relaymesh.store.schedule_fire import Press  # a root without schedules does not pay for it

        self._ids_ms = now_ms
        if self._fresh_ids is None:
            self._fresh_ids = Ids(lambda: self._ids_ms, self.rng)
        return Press(self.conn, self._fresh_ids, self.payloads, lambda tasks: self.submit(tasks, now_ms=now_ms), now_ms)

    def fire_due(self, *, now_ms: int) -> list[Fired]:
        """Make the ticks of schedules that are due; return what became of each."""
        due_ms = schedule_due.next_due_ms(self.conn)
        if due_ms is None or due_ms > now_ms:
            return []
        from relaymesh.store.schedule_count import count_fired
        from relaymesh.store.schedule_fire import fire_due

        fired = fire_due(self.press(now_ms=now_ms))
        count_fired(self.conn, fired, now_ms=now_ms)
        return fired

    def expire_tasks(self, *, now_ms: int, limit: int) -> list[str]:
        """Cancel what has not been started of tasks whose expiry has passed; return the tasks that changed."""
        return recover.expire_tasks(self.conn, now_ms=now_ms, limit=limit)

    def has_expired(self, *, now_ms: int) -> bool:
        """Return whether some task's expiry has passed."""
        with self.reading():
            return (
                self.conn.execute(
                    "SELECT 1 FROM tasks INDEXED BY tasks_expiry WHERE expires_at_ms IS NOT NULL"
                    " AND finished_at_ms IS NULL AND expires_at_ms<=? LIMIT 1",
                    (now_ms,),
                ).fetchone()
                is not None
            )

    def make_room_in_log(self) -> None:
        """Let the write-ahead log have its length before commits need it; a commit that has to add to it is slow."""
        with self.reading():
            make_room(self.conn, self.path)

    def checkpoint(self, *, idle: bool) -> None:
        """Copy the write-ahead log into the database as far as readers let us; ``idle``: and cut it if it is long."""
        with self.reading():
            self.conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            if idle and log_bytes(self.path) > LOG_KEPT_BYTES:
                # A reader that holds an old view keeps it from being cut: try, do not wait for it.
                self.conn.execute("PRAGMA busy_timeout=0")
                try:
                    self.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                finally:
                    self.conn.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
            if idle:
                make_room(self.conn, self.path)

    def forget_keys(self, *, before_ms: int, limit: int) -> int:
        """Let go of the idempotency keys of tasks that ended before this; return how many."""
        return admin.forget_keys(self.conn, before_ms=before_ms, limit=limit)

    # -- nodes and counters ------------------------------------------------------------------------------------------

    def register_node(
        self, node_id: str, *, pid: int, host: str, agents: str, now_ms: int, patience: Patience | None = None
    ) -> int:
        """Enter a starting node; return its generation."""
        from relaymesh.store import member  # only nodes pay for it

        return member.register_node(
            self.conn, node_id, pid=pid, host=host, agents=agents, now_ms=now_ms, patience=patience
        )

    def write_heartbeat(self, node: WriteNode, *, now_ms: int, patience: Patience | None = None) -> Heard | None:
        """Write a node's heartbeat; return what it came to, None when a later generation has taken over."""
        if node.clock is not None:
            save_clock(self.conn, ClockState(*node.clock), now_ms)
        from relaymesh.store import member

        return member.write_heartbeat(
            self.conn,
            node.node_id,
            generation=node.generation,
            status=node.status,
            agents=node.agents,
            now_ms=now_ms,
            patience=patience,
        )

    def cancel(self, task_id: str, *, mode: admin.CancelMode, reason: str, now_ms: int) -> admin.Cancelled:
        """Cancel a task."""
        return admin.cancel(self.conn, task_id, mode=mode, reason=reason, now_ms=now_ms)

    def replay(
        self,
        task_id: str,
        *,
        now_ms: int,
        cluster_epoch: int | None = None,
        edits: Mapping[str, str] = MappingProxyType({}),
        from_step: str | None = None,
    ) -> str:
        """Replay a dead-lettered task; return a code of the reference.

        edits: step id to the input that it gets before. from_step: id of a step that runs again with all behind it.

        Raises:
            NotEditableError, SealError: the transaction must not be committed.
        """
        from relaymesh.store import dead_letter  # only who asks for it pays

        for step_id, text in edits.items():
            dead_letter.edit_input(self.conn, step_id, text, self.payloads.keep)
        code = dead_letter.replay(self.conn, task_id, cluster_epoch=cluster_epoch, now_ms=now_ms)
        if code == "replayed":
            if from_step is not None:
                dead_letter.restart_from(self.conn, task_id, from_step, now_ms=now_ms)
            # A map step whose list was refused has nothing left to wait for: look at the list again now.
            settled = spread_roots(self.conn, [task_id], now_ms=now_ms, payloads=self.payloads)
            finish_tasks(self.conn, settled, now_ms)
        return code

    def discard(
        self, task_id: str, *, reason: str, actor: str, cluster_epoch: int | None = None, now_ms: int
    ) -> tuple[str, int]:
        """Take a task off the dead letters for good; return a code, and how many steps moved."""
        from relaymesh.store.dead_letter import discard

        return discard(self.conn, task_id, reason=reason, actor=actor, cluster_epoch=cluster_epoch, now_ms=now_ms)

    def add_counter(self, name: str, amount: int) -> None:
        """Add to a counter of the root."""
        add_counter(self.conn, name, amount)

    def bump_epoch(self, *, now_ms: int) -> tuple[int, int, int]:
        """Raise the cluster epoch; return the new epoch, its version and time."""
        self._state_of = -1  # what this transaction writes from here on is of the new one
        return admin.bump_epoch(self.conn, now_ms=now_ms)


def _origin(row: ClaimedRow) -> str:
    """Return the step that a copy of a map step is a copy of: it has its payload; of others, the step itself."""
    return row.lease.step_id if row.map_index is None else row.lease.step_id.rsplit("[", 1)[0]


def _unsaid(step: FinishedStep) -> FinishedStep:
    """Return a failure without the agent's words, which its log has instead."""
    report, told = step.report, f"{step.report.code}: see `relaymesh logs {step.lease.task_id}`, the text is encrypted"
    if not report.error or report.error == told:  # a commit that is tried again
        return step
    line = LogLine(report.finished_at_ms, "ERROR", report.error)
    return msgspec.structs.replace(step, report=msgspec.structs.replace(report, error=told, log=(*report.log, line)))


def _unkept(step: FinishedStep, error: SealError) -> FinishedStep:
    report = msgspec.structs.replace(
        step.report, kind="failed", output="", code=error.code, error=str(error), retryable=False
    )
    return msgspec.structs.replace(step, report=report)
