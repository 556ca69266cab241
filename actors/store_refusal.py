"""What the StoreActor does when the database refuses.

    the disk            who asked gets the error, what must not be lost is kept; all rests for a while
    one write of many   the others are made one by one; that one is given up

How long a rest is, ``relaymesh.core.rest`` says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from actors.address import Address
from actors.store_batch import Batch, failure
from actors.store_needs import StoreNeeds
from actors.timer import Timers
from relaymesh.core.outcome import Failed
from relaymesh.core.rest import Rest
from relaymesh.errors import InputError, RelayMeshError
from relaymesh.store.error import StoreDefectError
from relaymesh.wire.store import Renewed

__all__ = ["Refusals"]

log = logging.getLogger("relaymesh.store")


class Refusals:
    """The refusals of one StoreActor's database, and the rest after them.

    look_in: has the actor look again after so many nanoseconds, at most once for a key.
    """

    def __init__(
        self, node_id: str, needs: StoreNeeds, timers: Timers, lease: Address, look_in: Callable[[int, str], None]
    ) -> None:
        self._node_id = node_id
        self._needs = needs
        self._timers = timers
        self._lease = lease
        self._look_in = look_in
        self._rest = Rest()

    @property
    def resting(self) -> bool:
        """Whether the last that was tried was refused."""
        return self._rest.begun

    @property
    def too_early(self) -> bool:
        """Whether what nobody waits for is not to be tried yet."""
        return self._rest.begun and self._rest.lasts(self._timers.now_ns())

    def over(self) -> None:
        """A transaction has committed."""
        self._rest.over()

    def break_off(self) -> None:
        """Try again now: it is the last chance."""
        self._rest.break_off()

    def rest(self, error: RelayMeshError, what: str) -> None:
        """Let the disk rest for a while, longer each time. what: the predicate of "the store"."""
        delay_ns = self._rest.refused(self._timers.now_ns())
        if self._rest.worth_saying:
            log.error("the store %s (%s): %s", what, error.code, error)
        self._look_in(delay_ns, "retry")

    def take(self, batch: Batch, error: RelayMeshError, later: Batch) -> list[Batch]:
        """Nothing of ``batch`` was written: return parts of it to try one by one, now.

        later: gets what is to be tried with the next transactions.
        """
        if isinstance(error, StoreDefectError | InputError):
            parts = batch.split()
            if len(parts) > 1:
                return parts
            self._give_up(batch, error, later)
        else:
            self.rest(error, "refused a commit")
            self._keep(batch, error, later)
        return []

    def _keep(self, batch: Batch, error: RelayMeshError, later: Batch) -> None:
        """Tell who asked, and keep what must not be lost, in front of what came meanwhile."""
        for reply in batch.replies():
            reply.fail(error)
        for renewal in batch.renewals:
            self._lease.tell(Renewed((), (), renewal.asked_at_ns, failed=True))
        later.finished[:0] = batch.finished
        later.released[:0] = batch.released
        later.lost[:0] = batch.lost
        later.spent[:0] = batch.spent
        later.take_over |= batch.take_over
        later.paused |= batch.paused

    def _give_up(self, batch: Batch, error: RelayMeshError, later: Batch) -> None:
        """It is this one write that cannot be made, not the disk.

        A result that cannot be stored becomes a failure that says so, and is not tried again. What else is given up
        (a release, a lost attempt) leaves its step to the end of its lease.
        """
        log.error("a write cannot be made and is left out (%s): %s", error.code, error)
        for reply in batch.replies():
            reply.fail(error)
        for step in batch.finished:
            if step.report.code != error.code:
                failed = Failed(error.code, str(error), retryable=False)
                later.finished.append(failure(step.lease, failed, node_id=self._node_id, now_ms=self._needs.now_ms()))
