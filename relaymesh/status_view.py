"""What ``relaymesh status`` answers: how a root stands at one moment, bounded whatever its history.

Instants are wall milliseconds. Lists say how many there are beside them where they are cut.
"""

from __future__ import annotations

from dataclasses import dataclass

from relaymesh.node_view import AlertState
from relaymesh.rule_view import PauseView
from relaymesh.view import View

__all__ = [
    "MEMBERS_MAX",
    "ROWS_MAX",
    "WINDOW_MS",
    "StatusChecks",
    "StatusHealth",
    "StatusLane",
    "StatusMember",
    "StatusOutcome",
    "StatusPool",
    "StatusRunning",
    "StatusTrouble",
]

MEMBERS_MAX = 200
"""Members that are listed: the worst off first, then those that were heard last."""
ROWS_MAX = 200
"""Running steps that are listed, the least recently renewed first; and retries and dead letters, together."""
WINDOW_MS = 60_000
"""Over this long the throughput is counted and the latency measured."""


class StatusMember(View, frozen=True, kw_only=True):
    """A node of the member table.

    process_alive: whether its process lives; None when that cannot be told from this machine. rtt_ms: the round trip to
    it from the node that heard it last; None while no gossip measures it. address: where it takes gossip; None when it
    never did. host, pid: None for nodes of other roots. running: steps that it owns. drained: it takes nothing new, by
    order. stopping: it was told to end, takes nothing new either, and waits for what runs.
    """

    node_id: str
    status: str
    process_alive: bool | None
    heartbeat_age_ms: int
    status_age_ms: int
    rtt_ms: float | None
    generation: int
    host: str | None
    pid: int | None
    running: int
    drained: bool
    stopping: bool = False
    address: str | None = None


class StatusLane(View, frozen=True, kw_only=True):
    """One priority: what waits, and how long the steps that ended in the last minute took from being made to their end.

    The latencies are None when none ended.
    """

    priority: str
    waiting: int
    ended: int
    latency_p50_ms: int | None
    latency_p95_ms: int | None
    paused: bool


class StatusPool(View, frozen=True, kw_only=True):
    """Slots of all nodes that live, by pool."""

    pool: str
    used: int
    slots: int


class StatusRunning(View, frozen=True, kw_only=True):
    """A step that runs, and the lease under which. lease_age_ms: since the lease was given or last renewed."""

    task_id: str
    step_id: str
    agent: str
    priority: str
    attempt: int
    owner: str
    owner_status: str
    lease_epoch: int
    lease_age_ms: int
    running_ms: int


class StatusTrouble(View, frozen=True, kw_only=True):
    """A step that waits for its retry, or a dead letter. next_retry_in_ms: None for a dead letter."""

    task_id: str
    step_id: str
    agent: str
    status: str
    attempt: int
    age_ms: int
    next_retry_in_ms: int | None
    last_error: str


class StatusHealth(View, frozen=True, kw_only=True):
    """What is wrong, in sentences; the whole check, which also writes, is ``relaymesh health``.

    notes: what is worth knowing and not wrong, a seed that does not answer for instance. checks_age_ms: how
    old those are that are not about queue and mesh, and such problems; None as long as nobody has looked for them.
    """

    ok: bool
    stalled_ms: int
    disk_free_bytes: int
    disk_pressure: bool
    lease_conflicts_1h: int
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    checks_age_ms: int | None = None


@dataclass(frozen=True, slots=True)
class StatusChecks:
    """What a slower look at folders, keys, files and records found, and when."""

    checked_at_ms: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]


class StatusOutcome(View, frozen=True, kw_only=True):
    """How a root stands.

    nodes_alive: nodes that live as far as this machine can tell; with none, all of this is what the store holds.
    throughput_per_s: steps that ended within the last minute, per second; where they were too many to look at, within
    the time that the latest of them took.
    """

    namespace: str
    root: str
    checked_at_ms: int
    nodes_alive: int
    cluster_epoch: int
    paused: bool
    pauses: tuple[PauseView, ...]
    members: tuple[StatusMember, ...]
    members_total: int
    lanes: tuple[StatusLane, ...]
    pools: tuple[StatusPool, ...]
    running: tuple[StatusRunning, ...]
    running_total: int
    trouble: tuple[StatusTrouble, ...]
    retrying_total: int
    dead_letter_total: int
    throughput_per_s: float
    alerts: tuple[AlertState, ...]
    health: StatusHealth
