"""The steps of a simulated root: one row each, and the guarded transitions that the real store has in SQL.

    OPEN ──claim: lease_epoch + 1──▶ RUNNING ──commit──▶ DONE
      ▲                                │  └──renew: updated_at_ms grows──┐
      └──expire, fence─────────────────┘◀────────────────────────────────┘

Each method is one transaction: it asks for what it believes, and changes nothing when that is not so any more. What
happens here is the order in which everything happens to a step, whoever heard of it when.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from relaymesh.core.lease import Claimed
from relaymesh.core.reclaim import RunningRow

__all__ = ["DONE", "OPEN", "RUNNING", "Row", "StepStore"]

OPEN: Final = "OPEN"
RUNNING: Final = "RUNNING"
DONE: Final = "DONE"

Note = Callable[..., None]
"""Takes a kind of event and its details."""


def _deaf(what: str, **value: Any) -> None:
    """The note of a store that nobody listens to."""


class Row:
    """One step. owner: node id; generation: that of the owner's run; token: of this lease."""

    __slots__ = (
        "cluster_epoch",
        "generation",
        "lease_epoch",
        "owner",
        "row_id",
        "status",
        "step",
        "token",
        "updated_ms",
    )

    def __init__(self, row_id: int, step: str, now_ms: int) -> None:
        self.row_id = row_id
        self.step = step
        self.status = OPEN
        self.owner = ""
        self.generation = 0
        self.token = ""
        self.lease_epoch = 0
        self.cluster_epoch = 0
        self.updated_ms = now_ms

    @property
    def run(self) -> str:
        """Who owns it, and in which run."""
        return f"{self.owner}/{self.generation}"


class StepStore:
    """All steps. note: told of each transition, in order."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.cluster_epoch = 1
        self.note: Note = _deaf

    def submit(self, now_ms: int, step: str) -> None:
        self.rows.append(Row(len(self.rows), step, now_ms))
        self.note("submit", step=step)

    def open_rows(self) -> list[int]:
        return [row.row_id for row in self.rows if row.status is OPEN]

    @property
    def busy(self) -> bool:
        """Whether any step is running."""
        return any(row.status is RUNNING for row in self.rows)

    def running(self) -> list[RunningRow]:
        """Return what a scan of a judge reads."""
        return [
            RunningRow(row.row_id, row.token, row.updated_ms, row.owner, row.lease_epoch)
            for row in self.rows
            if row.status is RUNNING
        ]

    def claim(self, now_ms: int, row_id: int, owner: str, generation: int, token: str, until_ms: int) -> Row | None:
        """Give an open step to a node. until_ms: how long that will believe it, if it hears of it."""
        row = self.rows[row_id]
        if row.status is not OPEN:
            return None
        row.status = RUNNING
        row.owner, row.generation, row.token = owner, generation, token
        row.lease_epoch += 1
        row.cluster_epoch = self.cluster_epoch
        row.updated_ms = max(now_ms, row.updated_ms + 1)
        self._tell("claim", row, until=until_ms)
        return row

    def holds(self, row: Row, lease: Claimed) -> bool:
        """Whether a write under this lease may be taken."""
        return (
            row.status is RUNNING
            and row.token == lease.token
            and row.lease_epoch == lease.lease_epoch
            and row.cluster_epoch == lease.cluster_epoch == self.cluster_epoch
        )

    def renew(self, now_ms: int, leases: Iterable[Claimed], until_ms: int) -> dict[int, int]:
        """Return updated_at_ms of those that were renewed; the others are lost."""
        renewed: dict[int, int] = {}
        for lease in leases:
            row = self.rows[lease.row_id]
            if self.holds(row, lease):
                row.updated_ms = max(now_ms, row.updated_ms + 1)
                renewed[row.row_id] = row.updated_ms
                self._tell("heartbeat", row, until=until_ms)
        return renewed

    def commit(self, now_ms: int, lease: Claimed, run: str, outcome: str) -> bool:
        """Take a result, or refuse it and say so."""
        row = self.rows[lease.row_id]
        taken = self.holds(row, lease)
        if taken:
            row.status = DONE
            row.updated_ms = max(now_ms, row.updated_ms + 1)
        epochs = {"ce": lease.cluster_epoch, "le": lease.lease_epoch}
        if taken:
            self.note("commit", step=row.step, owner=run, outcome=outcome, **epochs)
        else:
            self.note("reject", step=row.step, owner=run, **epochs)
        return taken

    def expire(self, now_ms: int, seen: RunningRow) -> bool:
        """Take a step from its owner, if the row still is what the judge saw."""
        row = self.rows[seen.row_id]
        if row.status is not RUNNING or (row.token, row.lease_epoch, row.updated_ms) != (
            seen.token,
            seen.lease_epoch,
            seen.updated_at_ms,
        ):
            return False
        self._open(now_ms, row)
        return True

    def fence(self, now_ms: int, owner: str, generation: int) -> list[str]:
        """Give back what earlier runs of a node held; return the steps."""
        old = [row for row in self.rows if row.status is RUNNING and row.owner == owner and row.generation < generation]
        for row in old:
            self._open(now_ms, row)
        return [row.step for row in old]

    def raise_epoch(self) -> None:
        """Fence all leases at once, as an operator may."""
        self.cluster_epoch += 1
        self.note("epoch", ce=self.cluster_epoch)

    def fingerprint(self) -> str:
        return "\n".join(
            f"{row.step} {row.status} {row.run} {row.lease_epoch} {row.cluster_epoch} {row.updated_ms}"
            for row in self.rows
        )

    def _open(self, now_ms: int, row: Row) -> None:
        row.status = OPEN
        row.updated_ms = max(now_ms, row.updated_ms + 1)
        self._tell("reclaim", row)

    def _tell(self, what: str, row: Row, **more: Any) -> None:
        self.note(what, step=row.step, ce=row.cluster_epoch, le=row.lease_epoch, owner=row.run, **more)
