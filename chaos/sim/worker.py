"""What a simulated node does with steps: claim, run, renew, commit, and take back from owners that fell silent.

    every 500 ms: is this node fit to work? ──▶ claim what is open      every second: scan ──▶ expire what was silent
    claimed ──▶ runs ──▶ result ──▶ commit        a third of a lease ──▶ renew        trust ran out ──▶ abandon

The rules are the real ones: ``core.lease`` (how long an owner may believe), ``core.reclaim`` (how long a judge waits),
``core.mesh.liveness`` (whether the node may work) and ``core.mesh.placement`` (who of the judges acts). Between node
and store there are delays, and faults that lose the question or only the answer; then the node does not know what
became of it. A paused process finds what came meanwhile when it goes on, and its clock has gone on.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Generic, TypeVar

from chaos.sim.kernel import Kernel
from chaos.sim.machine import Machine
from chaos.sim.step_store import Note, StepStore
from relaymesh.core.lease import (
    Abandon,
    Claimed,
    Effect,
    Finished,
    Leases,
    Lost,
    Renew,
    Renewed,
    RenewFailed,
    Tick,
    trust_margin_ns,
)
from relaymesh.core.mesh.liveness import Evidence, Mode, judge
from relaymesh.core.mesh.placement import ranked
from relaymesh.core.mesh.tuning import MS, SECOND
from relaymesh.core.reclaim import Expire, Reclaim, RunningRow, Scanned

__all__ = ["Cut", "Worker"]

_POLL_NS: Final = 500 * MS
_SCAN_NS: Final = SECOND
_PATIENCE_NS: Final = 2 * SECOND
_SLOTS: Final = 2
_WISHES_MAX: Final = 1_000
_RUN_SPAN_NS: Final = 20 * SECOND

T = TypeVar("T")


class Cut(Enum):
    """How a node is cut off from the store. ANSWERS: what it asks is done, but it does not hear of it."""

    NONE = 0
    ALL = 1
    ANSWERS = 2


@dataclass(slots=True)
class _Asked(Generic[T]):
    """One question to the store. heard: what to do with the answer, or with None when none came in time."""

    heard: Callable[[T | None], None]
    answered: bool = False


class Worker:
    """The work of one node. note: writes the history, under the node's name; numbers: gives each question its id."""

    def __init__(
        self,
        kernel: Kernel,
        machine: Machine,
        store: StepStore,
        rng: random.Random,
        note: Note,
        numbers: Callable[[], int],
        lease_ms: int,
    ) -> None:
        self._kernel = kernel
        self._machine = machine
        self._store = store
        self._rng = rng
        self._note = note
        self._numbers = numbers
        self._lease_ms = lease_ms
        self._trust_ns = lease_ms * MS - trust_margin_ns(lease_ms)
        self._run = 0
        self._since_ns = 0
        self.cut = Cut.NONE
        self._backlog: list[Callable[[], None]] = []
        self._forget()

    # --- the process ---

    def start(self) -> None:
        """The process has started: what earlier runs of it held is given back first."""
        self._run += 1
        self._since_ns = self._now_ns()
        self._forget()
        self._fence()
        self._later(_POLL_NS, self._poll)
        self._later(_SCAN_NS, self._scan)

    def stop(self) -> None:
        """The process has ended, in order or not; nobody will hear what became of its last results."""
        self._run += 1
        for lease in self._presented.values():
            self._note("unknown", **self._named(lease))
        self._forget()

    def resume(self) -> None:
        """The process goes on: what came meanwhile is taken in order, and its clock has gone on."""
        waiting = self._backlog
        self._backlog = []
        # First of all its timers notice how late it is: a result is not presented on trust that ran out.
        self._tick()
        for go in waiting:
            go()

    def _forget(self) -> None:
        self._leases = Leases(lease_timeout_ms=self._lease_ms)
        self._reclaim = Reclaim(lease_timeout_ms=self._lease_ms)
        self._scanned = False
        self._running: dict[int, Claimed] = {}
        self._presented: dict[int, Claimed] = {}
        self._claiming = 0
        self._wishes: dict[tuple[int, int], int] = {}
        self._backlog = []

    def _now_ns(self) -> int:
        return self._machine.clock_ns(self._kernel.now_ns)

    def _later(self, after_ns: int, what: Callable[[], None]) -> None:
        """Do something after so long by the node's own clock."""
        due_ns = self._machine.true_ns(self._now_ns() + max(0, after_ns)) + self._machine.slow_ns
        self._kernel.at(max(due_ns, self._kernel.now_ns), self._alive(what), meddles=False)

    def _alive(self, what: Callable[[], None]) -> Callable[[], None]:
        run = self._run

        def go() -> None:
            if self._run != run or not self._machine.up:
                return
            if self._machine.paused:
                self._backlog.append(go)
            else:
                what()

        return go

    # --- the store ---

    def _ask(self, do: Callable[[int], T], heard: Callable[[T | None], None]) -> None:
        """Have the store do something. do: takes wall time in ms; heard: see ``_Asked``."""
        asked: _Asked[T] = _Asked(heard)
        kernel = self._kernel
        patience_ns = self._machine.true_ns(self._now_ns() + _PATIENCE_NS)

        def arrive() -> None:
            answer = do(kernel.now_ns // MS)
            comes_ns = kernel.now_ns + self._delay_ns()
            if self.cut is Cut.NONE:
                kernel.at(comes_ns, self._alive(lambda: deliver(answer)), meddles=False)
            if self.cut is not Cut.NONE or comes_ns > patience_ns:
                kernel.at(max(patience_ns, kernel.now_ns), self._alive(give_up), meddles=False)

        def deliver(answer: T) -> None:
            asked.answered = True
            asked.heard(answer)

        def give_up() -> None:
            if not asked.answered:
                asked.heard(None)

        if self.cut is Cut.ALL:
            kernel.at(patience_ns, self._alive(give_up), meddles=False)
        else:
            kernel.at(kernel.now_ns + self._delay_ns(), arrive, meddles=False)

    def _delay_ns(self) -> int:
        draw = self._rng.random()
        # One in fifty waits for a slow disk, up to longer than anybody waits for it.
        return int(draw * 2_000_000) if draw < 0.98 else int(self._rng.random() * 3 * SECOND)

    def _until_ms(self, asked_ns: int) -> int:
        """Return until when, in true time, this node would believe an answer to a question of that time."""
        return self._machine.true_ns(asked_ns + self._trust_ns) // MS

    # --- claiming and running ---

    def _poll(self) -> None:
        self._later(_POLL_NS, self._poll)
        if len(self._running) + self._claiming < _SLOTS:
            # What is open is read a moment before the claim, so claims meet.
            open_rows = self._store.open_rows()
            if open_rows and self._fit():
                self._claim(open_rows[int(self._rng.random() * min(3, len(open_rows)))])

    def _fit(self) -> bool:
        """Whether the node may take new steps, by what it knows itself."""
        membership = self._machine.membership
        conflict = membership.opinions.conflict
        evidence = Evidence(
            now_ns=self._now_ns(),
            mode=Mode.ANY,
            echoes_ns=[peer.echo_ns for peer in membership.view.peers.values()],
            voters=len(membership.view.peers) + 1,
            since_ns=self._since_ns,
            fresh_ns=membership.tuning.suspect_after_ns,
            lag_ns=membership.lag_ns,
            replaced_by=conflict.address if conflict is not None else "",
        )
        return judge(evidence).alive

    def _claim(self, row_id: int) -> None:
        self._claiming += 1
        asked_ns = self._now_ns()
        machine, number = self._machine, self._numbers()
        token = f"{machine.node_id}/{machine.generation}/{number}"
        generation, until_ms = machine.generation, self._until_ms(asked_ns)
        self._note("ask", id=number, do="claim", step=self._store.rows[row_id].step, token=token)
        done = False

        def heard(claimed: tuple[int, int, int] | None) -> None:
            nonlocal done
            if not done:
                self._claiming -= 1
                done = True
            if claimed is not None:
                self._claimed(number, row_id, token, asked_ns, claimed)

        def do(now_ms: int) -> tuple[int, int, int]:
            row = self._store.claim(now_ms, row_id, machine.node_id, generation, token, until_ms)
            return (0, 0, 0) if row is None else (row.lease_epoch, row.cluster_epoch, row.updated_ms)

        self._ask(do, heard)

    def _claimed(self, number: int, row_id: int, token: str, asked_ns: int, claimed: tuple[int, int, int]) -> None:
        lease_epoch, cluster_epoch, updated_ms = claimed
        self._note("answer", id=number, ok=lease_epoch > 0, le=lease_epoch, ce=cluster_epoch, updated=updated_ms)
        if not lease_epoch:
            return
        lease = Claimed(row_id, token, lease_epoch, cluster_epoch, asked_ns)
        self._perform(self._leases.handle(self._now_ns(), lease))
        self._running[row_id] = lease
        self._later(50 * MS + int(self._rng.random() ** 3 * _RUN_SPAN_NS), lambda: self._finish(lease))
        self._tick()

    def _finish(self, lease: Claimed) -> None:
        if self._running.get(lease.row_id) is not lease:
            return  # abandoned
        self._tick()
        if not self._leases.trusted(self._now_ns(), lease.row_id, lease.lease_epoch):
            return
        self._presented[lease.row_id] = lease
        self._note("result", **self._named(lease))
        self._present(lease)

    def _present(self, lease: Claimed) -> None:
        number, run = self._numbers(), self._owner()
        self._note("ask", id=number, do="commit", **self._named(lease), token=lease.token)
        self._ask(
            lambda now_ms: self._store.commit(now_ms, lease, run, f"by {lease.token}"),
            lambda taken: self._answered(number, lease, taken),
        )

    def _answered(self, number: int, lease: Claimed, taken: bool | None) -> None:
        now_ns = self._now_ns()
        row_id, lease_epoch = lease.row_id, lease.lease_epoch
        if taken is not None:
            self._note("answer", id=number, ok=taken)
            self._presented.pop(row_id, None)
            self._running.pop(row_id, None)
            ended = Finished(row_id, lease_epoch) if taken else Lost(row_id, lease_epoch)
            self._perform(self._leases.handle(now_ns, ended))
        elif self._presented.get(row_id) is lease:
            if self._leases.trusted(now_ns, row_id, lease_epoch):
                self._present(lease)  # the second finds out whether the first was taken
            else:
                self._presented.pop(row_id)
                self._note("unknown", **self._named(lease))

    def _owner(self) -> str:
        return f"{self._machine.node_id}/{self._machine.generation}"

    def _named(self, lease: Claimed) -> dict[str, Any]:
        step = self._store.rows[lease.row_id].step
        owner = lease.token.rpartition("/")[0]
        return {"step": step, "ce": lease.cluster_epoch, "le": lease.lease_epoch, "owner": owner}

    # --- leases ---

    def _tick(self) -> None:
        now_ns = self._now_ns()
        self._perform(self._leases.handle(now_ns, Tick()))
        wake_at_ns = self._leases.wake_at_ns
        if wake_at_ns is not None:
            self._later(max(wake_at_ns - now_ns, MS), self._tick_if_due)

    def _tick_if_due(self) -> None:
        wake_at_ns = self._leases.wake_at_ns
        if wake_at_ns is not None and wake_at_ns <= self._now_ns():
            self._tick()

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Abandon):
                lease = self._running.pop(effect.row_id, None)
                if lease is not None:
                    self._note("abandon", **self._named(lease), why=effect.reason.value)
            elif isinstance(effect, Renew):
                self._renew(effect)

    def _renew(self, renew: Renew) -> None:
        until_ms = self._until_ms(renew.asked_at_ns)
        numbers = {lease.row_id: self._numbers() for lease in renew.leases}
        for lease in renew.leases:
            self._note("ask", id=numbers[lease.row_id], do="renew", **self._named(lease), token=lease.token)

        def heard(renewed: dict[int, int] | None) -> None:
            now_ns = self._now_ns()
            if renewed is None:
                self._perform(self._leases.handle(now_ns, RenewFailed(renew.asked_at_ns)))
                self._tick()
                return
            for lease in renew.leases:
                updated_ms = renewed.get(lease.row_id, 0)
                self._note("answer", id=numbers[lease.row_id], ok=updated_ms > 0, updated=updated_ms)
            self._perform(self._leases.handle(now_ns, Renewed(tuple(renewed), renew.asked_at_ns)))
            for lease in renew.leases:
                if lease.row_id not in renewed:
                    self._perform(self._leases.handle(now_ns, Lost(lease.row_id, lease.lease_epoch)))
            self._tick()

        self._ask(lambda now_ms: self._store.renew(now_ms, renew.leases, until_ms), heard)

    # --- judging ---

    def _fence(self) -> None:
        machine, number = self._machine, self._numbers()
        generation = machine.generation
        self._note("ask", id=number, do="fence", node=machine.node_id, generation=generation)

        def heard(steps: list[str] | None) -> None:
            if steps is None:
                self._fence()
            else:
                self._note("answer", id=number, ok=True, steps=steps)

        self._ask(lambda now_ms: self._store.fence(now_ms, machine.node_id, generation), heard)

    def _scan(self) -> None:
        self._later(_SCAN_NS, self._scan)
        if self._scanned and not self._store.busy:
            return  # there is nothing to read
        self._scanned = True
        asked_ns, wall_ms = self._now_ns(), self._kernel.now_ns // MS

        def heard(rows: list[RunningRow] | None) -> None:
            if rows is not None:
                for wish in self._reclaim.handle(self._now_ns(), Scanned(rows, asked_ns, wall_ms)):
                    self._wish(wish)

        self._ask(lambda _now: self._store.running(), heard)

    def _wish(self, wish: Expire) -> None:
        """Act on a wish when it is this node's turn: each next one in the order waits one more lease."""
        row = wish.row
        now_ns, key = self._now_ns(), (row.row_id, row.lease_epoch)
        if len(self._wishes) >= _WISHES_MAX:
            del self._wishes[next(iter(self._wishes))]
        since_ns = self._wishes.setdefault(key, now_ns)
        step = self._store.rows[row.row_id].step
        order = ranked(step, self._machine.membership.shown_alive())
        place = order.index(self._machine.node_id) if self._machine.node_id in order else len(order)
        if now_ns - since_ns < place * self._lease_ms * MS:
            return
        number = self._numbers()
        seen = {"le": row.lease_epoch, "token": row.token, "updated": row.updated_at_ms}
        self._note("ask", id=number, do="expire", step=step, **seen)

        def heard(taken: bool | None) -> None:
            if taken is not None:
                self._note("answer", id=number, ok=taken)

        self._ask(lambda now_ms: self._store.expire(now_ms, row), heard)
