"""What the StoreActor collects for one transaction, and what that transaction came to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.address import Address
from actors.reply import Reply
from relaymesh.core.outcome import Failed
from relaymesh.store.claim import Claim, ClaimedRow
from relaymesh.wire.mesh import WriteMembers
from relaymesh.wire.store import (
    AttemptLost,
    AttemptSpent,
    FinishedStep,
    LeaseRef,
    ReleaseSteps,
    RenewLeases,
    RunMaintenance,
    SubmitTasks,
    WriteAlerts,
    WriteNode,
)
from relaymesh.wire.work import StepReport

__all__ = ["Batch", "Done", "failure"]


@dataclass(slots=True)
class Batch:
    """What one transaction will carry, by kind: the order between kinds is fixed, and harmless."""

    messages: int = 0
    submits: list[tuple[SubmitTasks, Reply]] = field(default_factory=list)
    finished: list[FinishedStep] = field(default_factory=list)
    released: list[ReleaseSteps] = field(default_factory=list)
    lost: list[AttemptLost] = field(default_factory=list)
    renewals: list[RenewLeases] = field(default_factory=list)
    spent: list[AttemptSpent] = field(default_factory=list)
    nodes: list[WriteNode] = field(default_factory=list)
    maintenance: list[tuple[RunMaintenance, Reply]] = field(default_factory=list)
    alerts: list[tuple[WriteAlerts, Reply]] = field(default_factory=list)
    members: list[tuple[WriteMembers, Reply]] = field(default_factory=list)
    take_over: bool = False
    paused: bool = False

    def split(self) -> list[Batch]:
        """Return batches of one write each, in the order in which this one would make them."""
        parts = [Batch(submits=[entry]) for entry in self.submits]
        parts += [Batch(finished=[step]) for step in self.finished]
        parts += [Batch(released=[message]) for message in self.released]
        parts += [Batch(lost=[message]) for message in self.lost]
        parts += [Batch(renewals=[message]) for message in self.renewals]
        parts += [Batch(spent=[attempt]) for attempt in self.spent]
        parts += [Batch(nodes=[message]) for message in self.nodes]
        parts += [Batch(maintenance=[entry]) for entry in self.maintenance]
        parts += [Batch(alerts=[entry]) for entry in self.alerts]
        parts += [Batch(members=[entry]) for entry in self.members]
        parts += [Batch(take_over=True)] if self.take_over else []
        return parts + ([Batch(paused=True)] if self.paused else [])

    def replies(self) -> Iterator[Reply]:
        """Return the replies that somebody waits for."""
        for entries in (self.submits, self.maintenance, self.alerts, self.members):
            for _, reply in entries:
                yield reply

    @property
    def asked(self) -> bool:
        """Whether somebody waits for an answer."""
        return bool(self.submits or self.maintenance or self.alerts or self.members)

    @property
    def writes(self) -> bool:
        """Whether there is anything to write."""
        return bool(
            self.submits
            or self.finished
            or self.released
            or self.lost
            or self.renewals
            or self.spent
            or self.nodes
            or self.maintenance
            or self.alerts
            or self.members
            or self.take_over
            or self.paused
        )

    @property
    def size(self) -> int:
        """How many tasks, results and other writes it carries."""
        return (
            sum(len(message.tasks) for message, _ in self.submits)
            + len(self.finished)
            + sum(len(message.leases) for message in self.released)
            + len(self.lost)
            + len(self.renewals)
            + len(self.spent)
            + len(self.nodes)
            + len(self.maintenance)
            + len(self.alerts)
            + len(self.members)
            + self.take_over
            + self.paused
        )


@dataclass(slots=True)
class Done:
    """What a transaction came to; told to others only after its commit."""

    answers: list[tuple[Reply, object]] = field(default_factory=list)
    tells: list[tuple[Address, Any]] = field(default_factory=list)
    ended: list[LeaseRef] = field(default_factory=list)
    refused: tuple[int, ...] = ()
    claim: Claim | None = None
    free: dict[str, int] = field(default_factory=dict)
    renewed: int = 0
    ready: bool = False
    due_changed: bool = False
    generation: int = 0
    requeued: int = 0

    @property
    def claimed(self) -> Sequence[ClaimedRow]:
        """The steps that were claimed."""
        return () if self.claim is None else self.claim.rows


def failure(lease: LeaseRef, failed: Failed, *, node_id: str, now_ms: int) -> FinishedStep:
    """Return the result of a step that ends without being run, for good."""
    report = StepReport(
        lease.row_id,
        lease.lease_token,
        "failed",
        code=failed.code,
        error=failed.error,
        retryable=False,
        started_at_ms=now_ms,
        finished_at_ms=now_ms,
    )
    return FinishedStep(lease, report, node_id)
