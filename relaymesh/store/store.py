"""Store: one process's door to the database of a root. Not thread-safe: one actor, or one client, has one.

    with store.write():            one BEGIN IMMEDIATE … COMMIT; everything inside is on disk when it leaves
        store.submit(...)
        store.finish(...)
    store.task(...)                reads need no transaction

Every write method must be called inside ``write()``; the group commit of the StoreActor puts many into one. The
statements stand in the modules beside this one, and what a store remembers from one transaction to the next in two of
them: ``root_state`` and ``latency``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from relaymesh.core.clock_guard import ClockState
from relaymesh.core.fairness import Fairness
from relaymesh.core.outcome import Failed
from relaymesh.core.retry import RetryPolicy
from relaymesh.core.throttle import Limit, LimitScope, PauseScope, Rules
from relaymesh.store import admin, control, due, lease, recover, schedule_due
from relaymesh.store.claim import Claim, Claimant, ClaimedRow, Slots, choose, claim, ready_groups
from relaymesh.store.clock import save_clock
from relaymesh.store.counter import DEAD_OWNER_RECLAIMED, add_counter
from relaymesh.store.database import Database
from relaymesh.store.direct import submit_and_claim
from relaymesh.store.finish import FinishResult, Spilled, commit_reports
from relaymesh.store.latency import LatencyTally
from relaymesh.store.log_file import checkpoint, make_room
from relaymesh.store.payload import Stored
from relaymesh.store.render import render
from relaymesh.store.root_state import RootState
from relaymesh.store.spill import spill_outputs
from relaymesh.store.submitter import Submitter
from relaymesh.store.throttle import forget_buckets, load_rules
from relaymesh.store.ticker import Ticker
from relaymesh.wire.store import AttemptSpent, FinishedStep, Grant, LeaseRef, NewTask, SeenLease, StepCut, WriteNode

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

    from relaymesh.core.admission import Bounds
    from relaymesh.core.mesh.silence import Heard, Patience
    from relaymesh.store.admission import Refusal
    from relaymesh.store.budget import Row as BudgetRow
    from relaymesh.store.schedule_fire import Fired, Press

__all__ = ["PolicyOf", "Store"]

PolicyOf = Callable[[str], RetryPolicy]


class Store(Database):
    """A database that tasks are submitted to, claimed from and committed to."""

    used_up: tuple[BudgetRow, ...] = ()
    """Budgets that a transaction has used up, until ``take_used_up``."""

    def __init__(self, conn: sqlite3.Connection, root: Path, namespace: str, rng: Random | None) -> None:
        super().__init__(conn, root, namespace, rng)
        self.state = RootState(self)
        self.latencies = LatencyTally(conn)
        self._submitter = Submitter(self, self.state)
        self._ticker = Ticker(self, self._submitter)

    # -- submit ------------------------------------------------------------------------------------------------------

    def submit(self, tasks: Sequence[NewTask], *, now_ms: int) -> list[tuple[str, bool]]:
        """Store tasks; return ``(task_id, deduplicated)`` for each."""
        return self._submitter.submit(tasks, now_ms)

    def admit(self, tasks: Sequence[NewTask], bounds: Bounds, *, now_ms: int) -> list[Refusal | None]:
        """Return for each task why the gate keeps it out, or None; submit the others in this transaction."""
        from relaymesh.store.admission import admit

        return admit(self.conn, tasks, bounds, now_ms=now_ms)

    # -- limits and pauses -------------------------------------------------------------------------------------------

    def rules(self) -> Rules:
        """Return the limits and pauses of the root; a read."""
        with self.reading():
            return load_rules(self.conn)

    def set_limit(self, scope: LimitScope, name: str, change: Limit, *, now_ms: int) -> Limit:
        """Set what ``change`` names; return the limit that holds now."""
        self.state.forget()
        return control.set_limit(self.conn, scope, name, change, now_ms=now_ms)

    def remove_limit(self, scope: LimitScope, name: str, *, now_ms: int) -> bool:
        """Remove a limit; return whether there was one."""
        self.state.forget()
        return control.remove_limit(self.conn, scope, name, now_ms=now_ms)

    def pause(self, scope: PauseScope, name: str, *, reason: str, now_ms: int) -> bool:
        """Let nothing new be taken there; return False when it was paused already."""
        self.state.forget()
        return control.pause(self.conn, scope, name, reason=reason, now_ms=now_ms)

    def resume(self, scope: PauseScope, name: str, *, now_ms: int) -> bool:
        """End a pause; return whether there was one."""
        self.state.forget()
        return control.resume(self.conn, scope, name, now_ms=now_ms)

    def forget_buckets(self, *, now_ms: int, limit: int) -> int:
        """Remove buckets of rates that are full again; return how many."""
        return forget_buckets(self.conn, self.state.read().rules, now_ms=now_ms, limit=limit)

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
        root = self.state.read()
        claimant = Claimant(node_id, generation, token, root.epoch)
        if root.generation > generation:
            return self._refuse_claim(slots, state, claimant, now_ms)
        return claim(self.conn, slots, state, claimant, now_ms, groups, root.throttle(node_id, now_ms))

    def _refuse_claim(self, slots: Slots, state: Fairness, claimant: Claimant, now_ms: int) -> Claim:
        from relaymesh.store.refused_claim import refuse

        choice = choose(self.conn, slots, state, throttle=self.state.throttle(claimant.node_id, now_ms))
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
        self._submitter.expect_keys(tasks, now_ms)
        root = self.state.read()
        claimant = Claimant(node_id, generation, token, root.epoch)
        if root.generation > generation:
            return self._submitter.insert(tasks, now_ms), self._refuse_claim(slots, state, claimant, now_ms)
        return submit_and_claim(
            self.conn,
            tasks,
            slots,
            state,
            claimant,
            namespace=self.namespace,
            now_ms=now_ms,
            throttle=lambda: root.throttle(node_id, now_ms),
            key_age_ms=self._submitter.key_age_ms,
            nothing_waits=nothing_waits,
        )

    def render(self, row: ClaimedRow) -> Grant | tuple[LeaseRef, Failed]:
        """Return a claimed step with its input, or why it has none; see ``relaymesh.store.render``."""
        return render(self, row)

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
            cluster_epoch=self.state.read().epoch,
            spilled=spilled,
            policy_of=policy_of,
            rng=self.rng,
            now_ms=now_ms,
            payloads=self.payloads,
        )
        if self.state.rules.budgets is not None:
            from relaymesh.store.charge import charge_ended  # a root without budgets does not pay for it

            self.used_up += tuple(charge_ended(self.conn, self.state.rules.budgets, steps, now_ms))
        if result.ended:
            self.latencies.ended(result.ended, now_ms)
        return result

    def spend(self, attempts: Sequence[AttemptSpent], *, now_ms: int) -> tuple[StepCut, ...]:
        """Charge what running attempts have spent; return those that have to end."""
        budgets = self.state.read().rules.budgets
        if budgets is None:
            return ()
        from relaymesh.store.charge import charge_running

        cuts, used_up = charge_running(self.conn, budgets, attempts, now_ms)
        self.used_up += tuple(used_up)
        return cuts

    def take_used_up(self) -> Sequence[BudgetRow]:
        """Return the budgets that were used up since this was asked last, for the audit log."""
        taken, self.used_up = self.used_up, ()
        return taken

    def spill_outputs(self, steps: list[FinishedStep]) -> dict[str, Stored]:
        """Write long outputs to their files before the transaction; see ``relaymesh.store.spill``."""
        return spill_outputs(self.payloads, steps)

    # -- leases ------------------------------------------------------------------------------------------------------

    def renew(
        self,
        leases: Sequence[tuple[int, str, int, int]],
        *,
        progress: Sequence[tuple[int, str]] = (),
        now_ms: int,
    ) -> tuple[int, ...]:
        """Renew leases, keep what agents said of their progress; return the rows that are no longer ours."""
        lost = lease.renew(self.conn, leases, cluster_epoch=self.state.read().epoch, now_ms=now_ms)
        lease.store_progress(self.conn, progress, leases, self.payloads)
        return lost

    def lost_leases(self, leases: Sequence[tuple[int, int]], *, node_id: str) -> tuple[tuple[int, int], ...]:
        """Return those of these ``(row_id, lease_epoch)`` that the node does not hold any more; a read."""
        with self.reading():
            return lease.lost_leases(self.conn, leases, node_id=node_id)

    def cancel_reasons(self, row_ids: Iterable[int]) -> tuple[tuple[int, str], ...]:
        """Return those of these rows whose task was cancelled, with the reason; a read."""
        with self.reading():
            return lease.cancel_reasons(self.conn, row_ids)

    def release(self, leases: Sequence[LeaseRef], *, worker_id: str, now_ms: int) -> int:
        """Give steps back; no attempt is counted."""
        return lease.release(
            self.conn, leases, cluster_epoch=self.state.read().epoch, worker_id=worker_id, now_ms=now_ms
        )

    def lose_attempts(
        self, leases: Sequence[LeaseRef], *, error: str, worker_id: str, policy_of: PolicyOf, now_ms: int
    ) -> int | None:
        """Take back steps whose worker process died."""
        return recover.lose_attempts(
            self.conn,
            leases,
            error=error,
            cluster_epoch=self.state.read().epoch,
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
            instants = (due.next_due_ms(self.conn), schedule_due.next_due_ms(self.conn))
        return min((at_ms for at_ms in instants if at_ms is not None), default=None)

    def next_step_due_ms(self) -> int | None:
        """Return when the next delayed or retrying step is due, or None."""
        with self.reading():
            return due.next_due_ms(self.conn)

    def promote_due(self, *, now_ms: int, limit: int) -> int:
        """Make steps ready whose time has come."""
        return due.promote_due(self.conn, now_ms=now_ms, limit=limit)

    def restart_waits(self, *, now_ms: int) -> int:
        """Let backoffs and schedules begin anew that were set by a wall clock which was then set back."""
        return due.restart_waits(self.conn, now_ms=now_ms) + schedule_due.rewind(self.conn, now_ms=now_ms)

    def has_queued_tick(self) -> bool:
        """Return whether a tick waits for the end of the run before it; a read."""
        with self.reading():
            return schedule_due.has_queued_tick(self.conn)

    def press(self, *, now_ms: int) -> Press:
        """Return what makes tasks out of ticks in this transaction."""
        return self._ticker.press(now_ms)

    def fire_due(self, *, now_ms: int) -> list[Fired]:
        """Make the ticks of schedules that are due; return what became of each."""
        return self._ticker.fire_due(now_ms)

    def expire_tasks(self, *, now_ms: int, limit: int) -> list[str]:
        """Cancel what has not been started of tasks whose expiry has passed; return the tasks that changed."""
        return due.expire_tasks(self.conn, now_ms=now_ms, limit=limit)

    def has_expired(self, *, now_ms: int) -> bool:
        """Return whether some task's expiry has passed."""
        with self.reading():
            return due.has_expired(self.conn, now_ms=now_ms)

    def make_room_in_log(self) -> None:
        """Let the write-ahead log have its length before commits need it; a commit that has to add to it is slow."""
        with self.reading():
            make_room(self.conn, self.path)

    def checkpoint(self, *, idle: bool) -> None:
        """Copy the write-ahead log into the database as far as readers let us; ``idle``: and cut it if it is long."""
        with self.reading():
            checkpoint(self.conn, self.path, idle=idle)

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
        from relaymesh.store.replay import replay_edited  # only who asks for it pays

        return replay_edited(
            self, task_id, cluster_epoch=cluster_epoch, edits=edits, from_step=from_step, now_ms=now_ms
        )

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
        self.state.forget()
        return admin.bump_epoch(self.conn, now_ms=now_ms)
