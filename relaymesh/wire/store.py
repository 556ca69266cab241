"""Messages around the store: what actors ask of it and what it tells them. Batches travel as tuples."""

from __future__ import annotations

from relaymesh.wire.codec import Message, message
from relaymesh.wire.work import Allowance, StepReport

__all__ = [
    "SHAPE_MAPS",
    "SHAPE_SOLE",
    "AttemptLost",
    "AttemptSpent",
    "CancelGrants",
    "Claimed",
    "Committed",
    "CountOn",
    "CutSteps",
    "Demand",
    "DrainOver",
    "DrainQueue",
    "FinishSteps",
    "FinishedStep",
    "Grant",
    "GrantsRefused",
    "LeaseRef",
    "LeaseTick",
    "LeasesEnded",
    "LeasesLost",
    "LeasesTaken",
    "MaintenanceDone",
    "MaintenanceTick",
    "NewStep",
    "NewTask",
    "NewUnique",
    "ObserveTick",
    "PollStore",
    "QueueDrained",
    "ReleaseSteps",
    "RenewLeases",
    "Renewed",
    "ResealBegin",
    "ResealPiece",
    "ResendLeases",
    "RetentionBegin",
    "RetentionPiece",
    "RevokeGrants",
    "RunGrants",
    "RunMaintenance",
    "SeenLease",
    "SpendSteps",
    "SpendTick",
    "StepCut",
    "StoreAnswer",
    "StoreChanged",
    "SubmitTasks",
    "TakeOver",
    "TellLeases",
    "TookOver",
    "VerifyLeases",
    "WithdrawDemand",
    "Withdrawn",
    "WorkerCapacity",
    "WorkerTick",
    "WorkerUp",
    "WriteAlerts",
    "WriteNode",
]

SHAPE_SOLE = 1
"""The step is the only one of its task: finishing it finishes the task."""
SHAPE_MAPS = 2
"""The task has map steps, so a success may have to spread one out."""


class NewStep(Message, frozen=True):
    """One step to store. ``payload`` is None when it lies in a file (``payload_path``) or is encrypted (``sealed``).

    sealed_map: the same for ``map_template``, which is "" then.
    waiting_on: unmet dependencies, plus one for a map step that is not spread out yet.
    """

    step_id: str
    agent_id: str
    priority: str
    payload: str | None
    payload_path: str = ""
    template: bool = False
    map_template: str | None = None
    waiting_on: int = 0
    depends_on: tuple[str, ...] = ()
    shape: int = SHAPE_SOLE
    not_before_ms: int | None = None
    traceparent: str | None = None
    concurrency_key: str | None = None
    sealed: bytes | None = None
    sealed_map: bytes | None = None

    @property
    def stored(self) -> str | bytes | None:
        """What the payload column takes."""
        return self.payload if self.sealed is None else self.sealed


class NewUnique(Message, frozen=True):
    """What else keeps a task from being stored twice: the words and numbers of ``relaymesh.core.uniqueness``."""

    key: str
    mode: str
    on_duplicate: str
    period_ms: int = 0
    delay_ms: int = 0


class NewTask(Message, frozen=True):
    """One task to store, with all its steps. ``labels`` is the JSON text of an object, or None.

    budget: what it may spend in all, ``(kind, micros)``.
    """

    task_id: str
    idempotency_key: str
    trace_id: str
    steps: tuple[NewStep, ...]
    expires_at_ms: int | None = None
    labels: str | None = None
    traceparent: str | None = None
    unique: NewUnique | None = None
    budget: tuple[tuple[str, int], ...] = ()


class SeenLease(Message, frozen=True):
    """A lease of another owner as a scan saw it; a reclaim is refused unless the row still looks like this."""

    row_id: int
    lease_token: str | None
    lease_epoch: int
    updated_at_ms: int
    owner: str
    step_id: str = ""


@message("store.submit")
class SubmitTasks(Message, frozen=True):
    """Store these tasks; answered after the commit, with one ``(task_id, deduplicated)`` for each.

    actor: who the audit log is to name as their submitter. Empty: who sends this records it.
    """

    tasks: tuple[NewTask, ...]
    actor: str = ""


class LeaseRef(Message, frozen=True):
    """The right to run one step, as it was granted: what every later write about the step must present."""

    row_id: int
    step_id: str
    task_id: str
    agent_id: str
    attempt: int
    lease_token: str
    lease_epoch: int
    cluster_epoch: int
    shape: int


class Grant(Message, frozen=True):
    """A step that this node may run now, with its input. allowances: what it may spend, where somebody counts."""

    lease: LeaseRef
    payload: str
    pool: str
    traceparent: str
    allowances: tuple[Allowance, ...] = ()


@message("store.demand")
class Demand(Message, frozen=True):
    """Standing order of the queue: claim for these free slots as soon as something is ready.

    after: number of the last word of the store (``Claimed``, ``Committed``) that the queue has taken in. The store
        ignores a demand from before its last word: it tells its own count with each, and the queue answers if it is
        wrong (relaymesh.core.demand).
    free: free slots per pool. position, high_run: where dispatch stands (relaymesh.core.fairness).
    once: answer now, also when there is nothing to claim.
    """

    after: int
    free: dict[str, int]
    limit: int
    position: int
    high_run: int
    once: bool = False


@message("store.claimed")
class Claimed(Message, frozen=True):
    """Answer to a demand: what was claimed, and where dispatch stands now.

    number: counts the words of this incarnation of the store. free: the slots per pool that it counts as free now.
    asked_at_ns: monotonic time at which the claim began, from which its leases are trusted.
    """

    number: int
    free: dict[str, int]
    grants: tuple[Grant, ...]
    position: int
    high_run: int
    asked_at_ns: int


@message("store.take_over")
class TakeOver(Message, frozen=True):
    """A new queue starts: fence what the one before it ran, and tell it the new generation."""


@message("store.took_over")
class TookOver(Message, frozen=True):
    """The store knows this generation of the node now; ``requeued`` steps of the former one are ready again."""

    generation: int
    requeued: int
    number: int


@message("store.withdraw")
class WithdrawDemand(Message, frozen=True):
    """Claim nothing more; answered by ``Withdrawn``."""


@message("store.withdrawn")
class Withdrawn(Message, frozen=True):
    """No claim follows; ``number`` is that of the last word of the store."""

    number: int


@message("work.worker_up")
class WorkerUp(Message, frozen=True):
    """A worker actor has started and holds nothing; what an earlier incarnation of it held was not run to its end.

    start: names this start; grants that were meant for an earlier one are not run.
    """

    worker: str
    start: int


@message("work.capacity")
class WorkerCapacity(Message, frozen=True):
    """The worker takes this many steps at a time from now on."""

    worker: str
    capacity: int


@message("work.tick")
class WorkerTick(Message, frozen=True):
    """Time for a worker actor to look at what it runs."""


@message("work.grants_refused")
class GrantsRefused(Message, frozen=True):
    """The worker gives these back unstarted."""

    row_ids: tuple[int, ...]


@message("work.cancel_grants")
class CancelGrants(Message, frozen=True):
    """Stop these steps; nobody waits for their results."""

    row_ids: tuple[int, ...]
    reason: str


@message("work.revoke_grants")
class RevokeGrants(Message, frozen=True):
    """Give back what has not begun."""

    row_ids: tuple[int, ...]


@message("queue.drain")
class DrainQueue(Message, frozen=True):
    """Claim nothing more, let what runs end until ``within_ms`` has passed, then give it back."""

    within_ms: int


@message("queue.drained")
class QueueDrained(Message, frozen=True):
    """Nothing runs on this node any more; ``released`` steps went back to the queue."""

    finished: bool
    released: int


@message("queue.drain_over")
class DrainOver(Message, frozen=True):
    """The time for a drain has run out."""


@message("lease.store_changed")
class StoreChanged(Message, frozen=True):
    """Another process committed something: a cancel or a takeover may be among it."""


@message("store.verify")
class VerifyLeases(Message, frozen=True):
    """Say which of these leases, ``(row_id, lease_epoch)``, are no longer ours; answered by ``Renewed``."""

    leases: tuple[tuple[int, int], ...]


@message("lease.tick")
class LeaseTick(Message, frozen=True):
    """Time for the leases: renew, or stop trusting."""


@message("queue.tell_leases")
class TellLeases(Message, frozen=True):
    """Time to hand leases that are still held to the LeaseActor."""


@message("lease.resend")
class ResendLeases(Message, frozen=True):
    """A new LeaseActor starts: tell it what is held."""


@message("maintenance.tick")
class MaintenanceTick(Message, frozen=True):
    """Time for a round of maintenance."""


@message("maintenance.run")
class RunMaintenance(Message, frozen=True):
    """One round of maintenance, done by the store; answered by ``MaintenanceDone``.

    clock_set_back: the wall clock was; waits that were set by the former one begin anew.
    """

    expired: tuple[SeenLease, ...] = ()
    dead: tuple[SeenLease, ...] = ()
    clock_set_back: bool = False
    judge_members: bool = False
    prune_members: bool = False


@message("maintenance.done")
class MaintenanceDone(Message, frozen=True):
    """What a round of maintenance changed."""

    expired_reclaimed: int
    dead_reclaimed: int
    promoted: int
    expired_tasks: int
    suspected: int = 0
    dead: int = 0
    pruned: int = 0


@message("store.poll")
class PollStore(Message, frozen=True):
    """Look whether another process committed something, or something became due.

    hint: somebody says so.
    """

    hint: bool = False


class FinishedStep(Message, frozen=True):
    """One attempt that ended, and what it came to."""

    lease: LeaseRef
    report: StepReport
    worker_id: str


@message("store.finish")
class FinishSteps(Message, frozen=True):
    """Commit these results."""

    steps: tuple[FinishedStep, ...]


@message("store.committed")
class Committed(Message, frozen=True):
    """These leases, ``(row_id, lease_epoch)``, are off our hands: committed, or refused because we were fenced.

    number, free: as in ``Claimed``.
    """

    leases: tuple[tuple[int, int], ...]
    refused: tuple[int, ...]
    number: int
    free: dict[str, int]


@message("store.release")
class ReleaseSteps(Message, frozen=True):
    """Give these steps back to the queue; no attempt is counted."""

    leases: tuple[LeaseRef, ...]


@message("store.attempt_lost")
class AttemptLost(Message, frozen=True):
    """The worker process died under these steps."""

    leases: tuple[LeaseRef, ...]
    error: str
    worker_id: str


@message("lease.spent")
class AttemptSpent(Message, frozen=True):
    """What a running attempt has spent so far, in all: ``(kind, micros)``; and the name of its worker."""

    lease: LeaseRef
    worker: str
    spent: tuple[tuple[str, int], ...]


@message("lease.spend_tick")
class SpendTick(Message, frozen=True):
    """Time to tell the store what attempts have spent."""


@message("store.spend")
class SpendSteps(Message, frozen=True):
    """Charge what is new of what these attempts have spent; those that crossed a budget are cut (``CutSteps``)."""

    attempts: tuple[AttemptSpent, ...]


class StepCut(Message, frozen=True):
    """An attempt that has to end because of a budget, and with what error."""

    worker: str
    row_id: int
    lease_token: str
    error: str
    retryable: bool


@message("work.cut_steps")
class CutSteps(Message, frozen=True):
    """End these attempts; each reports how it ended."""

    cuts: tuple[StepCut, ...]


@message("store.renew")
class RenewLeases(Message, frozen=True):
    """Heartbeat of these leases. asked_at_ns: when we asked, on our monotonic clock."""

    leases: tuple[tuple[int, str, int, int], ...]
    asked_at_ns: int
    progress: tuple[tuple[int, str], ...] = ()


@message("store.renewed")
class Renewed(Message, frozen=True):
    """Which leases were renewed, and which, ``(row_id, lease_epoch)``, are no longer ours.

    failed: the store could not be written. cancelled: of the lost rows those whose task was cancelled, and why.
    """

    row_ids: tuple[int, ...]
    lost: tuple[tuple[int, int], ...]
    asked_at_ns: int
    failed: bool = False
    cancelled: tuple[tuple[int, str], ...] = ()


@message("lease.taken")
class LeasesTaken(Message, frozen=True):
    """The node holds these leases: ``(row_id, token, lease_epoch, cluster_epoch)``.

    asked_at_ns: since when they are trusted; 0 when nobody remembers it.
    """

    leases: tuple[tuple[int, str, int, int], ...]
    asked_at_ns: int


@message("lease.ended")
class LeasesEnded(Message, frozen=True):
    """The node does not hold these leases, ``(row_id, lease_epoch)``, any more."""

    leases: tuple[tuple[int, int], ...]


@message("lease.lost")
class LeasesLost(Message, frozen=True):
    """Stop these, ``(row_id, lease_epoch)``: another owner has them, or the trust in the lease ran out."""

    leases: tuple[tuple[int, int], ...]
    reason: str


@message("work.run_grants")
class RunGrants(Message, frozen=True):
    """Run these steps; ``start`` is that of the worker they are meant for."""

    grants: tuple[Grant, ...]
    start: int


@message("store.node")
class WriteNode(Message, frozen=True):
    """Heartbeat of a node: its row in ``mesh_nodes``, and what its clock guard knows, for the next process.

    clock: the fields of ``relaymesh.core.clock_guard.ClockState``, in order.
    """

    node_id: str
    generation: int
    status: str
    agents: str
    clock: tuple[int, int, str, int, int] | None = None


@message("store.local_verdict")
class LocalVerdict(Message, frozen=True):
    """The mesh's own judgement whether this node may work (relaymesh.core.mesh.liveness). reason: a sentence when not.

    It holds until the next one; without any, only the member table counts.
    """

    alive: bool
    reason: str = ""


@message("store.alerts")
class WriteAlerts(Message, frozen=True):
    """Write the state of the root's alerts over the version that was read; answered with whether it still was that one.

    states: the text of the row (relaymesh/store/alert.py). fired: alerts that fired, for the counter.
    """

    states: str
    over_version: int
    fired: int


@message("observe.tick")
class ObserveTick(Message, frozen=True):
    """Write the node's report, and look at the alerts."""


@message("observe.count_on")
class CountOn(Message, frozen=True):
    """Do the next piece of counting what is too much to be counted by who asks."""


@message("retention.begin")
class RetentionBegin(Message, frozen=True):
    """Begin a round of removing what is old."""


@message("retention.piece")
class RetentionPiece(Message, frozen=True):
    """Do the next piece of the round."""


@message("reseal.begin")
class ResealBegin(Message, frozen=True):
    """Look whether the payload keys were rotated, and bring what is stored under the new one."""


@message("reseal.piece")
class ResealPiece(Message, frozen=True):
    """Do the next piece of it."""


@message("store.answer")
class StoreAnswer(Message, frozen=True):
    """What a write came to: ``(task_id, deduplicated)`` for each task of a submit.

    recorded: the audit rows are on their way with those of the node.
    """

    results: tuple[tuple[str, bool], ...]
    recorded: bool = False
