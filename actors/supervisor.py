"""Supervisor: starts its children, restarts them when they crash, stops them in reverse order.

It holds no rules: which child, in which order, and when it is too much, is decided by
``relaymesh.core.supervision``. A supervisor is an actor, so it may be another supervisor's child; when it gives up, it
crashes, and its parent decides.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

from actors.address import Address
from actors.base import Actor
from actors.timer import Timers
from relaymesh.core import supervision
from relaymesh.core.supervision import Backoff, ChildSpec, Intensity, Restart, Strategy
from relaymesh.wire import codec
from relaymesh.wire.kernel import ChildEnded, Sweep, Woke

__all__ = ["SLOW_SWEEP_NS", "Child", "GaveUpError", "Supervisor"]

log = logging.getLogger("relaymesh.actors")

SWEEP_NS = 1_000_000_000
# For a branch whose silent end does no harm for so long: a wake-up a second less for a node that has nothing to do.
SLOW_SWEEP_NS = 10_000_000_000
# How often a start that takes its time looks whether it is still wanted.
START_POLL_S = 0.1
# Even when the grace time is over, each child gets this long to notice.
STOP_S_MIN = 0.05


class GaveUpError(Exception):
    """More restarts than the supervisor bears."""


@dataclass(frozen=True, slots=True)
class Child:
    """How to start and stop one child.

    address: where it reads its mail; lives as long as the node.
    factory: makes a new actor for each start; runs in the supervisor's thread, so it opens nothing.
    start_within_s: how long ``started`` may take before that counts as a crash.
    stop_within_s: how long it may take to end; then its thread is abandoned. For a supervisor: longer than its
        children's together.
    """

    address: Address
    factory: Callable[[], Actor]
    restart: Restart = Restart.PERMANENT
    start_within_s: float = 30.0
    stop_within_s: float = 5.0

    @property
    def name(self) -> str:
        return self.address.name


class Supervisor(Actor):
    """Children in start order, and what to do when one of them ends.

    timers: brings the sweep for threads that died without a word, and the end of a backoff. sweep_ns: between two
        sweeps; how long such a death may go unnoticed.

    Raises:
        ValueError: two children have one name.
    """

    takes = ChildEnded | Sweep | Woke

    def __init__(
        self,
        children: Sequence[Child],
        timers: Timers,
        *,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: Intensity = supervision.INTENSITY,
        backoff: Backoff = supervision.BACKOFF,
        sweep_ns: int = SWEEP_NS,
    ) -> None:
        super().__init__()
        self.children = {child.name: child for child in children}
        self._timers = timers
        self._sweep_ns = sweep_ns
        self._machine = supervision.Supervision(
            [ChildSpec(child.name, child.restart) for child in children],
            strategy=strategy,
            intensity=intensity,
            backoff=backoff,
        )
        # Written by the supervisor's own thread only; others read copies.
        self.actors: dict[str, Actor] = {}
        self.last_reasons: dict[str, str] = {}
        self._incarnations: dict[str, int] = {}
        self.settled = threading.Event()  # no child waits for its start

    def started(self) -> None:
        self._timers.every(self._sweep_ns, self.address, Sweep(), key="sweep")
        self._handle(supervision.Begin())

    def receive(self, message: ChildEnded | Sweep | Woke) -> None:
        match message:
            case ChildEnded(name, launch, crashed, reason):
                self._child_ended(name, launch, crashed, reason)
            case Sweep():
                self._sweep()
            case Woke():
                self._handle(supervision.Woke())
            case _:
                assert_never(message)

    def stopping(self) -> None:
        self._timers.cancel(self.address, "sweep")
        self._handle(supervision.Shutdown())

    def crashed(self) -> None:
        self.stopping()  # nobody else knows the children

    def states(self) -> dict[str, supervision.ChildState]:
        """Return each child's state, in start order. Callable from any thread."""
        return self._machine.states()

    def _handle(self, event: supervision.Event) -> None:
        """Give one event to the machine, perform what it orders, and so on until nothing more follows."""
        events = deque([event])
        while events:
            for effect in self._machine.handle(self._timers.now_ns(), events.popleft()):
                answer = self._perform(effect)
                if answer is not None:
                    events.append(answer)
        if self._machine.settled:
            self.settled.set()
        else:
            self.settled.clear()

    def _perform(self, effect: supervision.Effect) -> supervision.Event | None:
        match effect:
            case supervision.Start(name, incarnation):
                return self._start_child(self.children[name], incarnation)
            case supervision.Stop(name):
                self._stop_child(self.children[name])
            case supervision.Wake(at_ns):
                self._timers.after(at_ns - self._timers.now_ns(), self.address, Woke(), key="woke")
            case supervision.GiveUp(reason):
                raise GaveUpError(f"{self.address.name} gives up: {reason}")
            case _:
                assert_never(effect)
        return None

    def _start_child(self, child: Child, incarnation: int) -> supervision.Event | None:
        name = child.name
        self._incarnations[name] = incarnation
        if incarnation > 1:
            log.warning("%s restarts %s", self.address.name, name)
        try:
            actor = child.factory()
            self.actors[name] = actor
            actor.launch(child.address, on_end=self._report)
        except Exception as error:
            log.exception("%s: %s could not be made", self.address.name, name)
            self.actors.pop(name, None)
            return self._crashed(name, f"{type(error).__name__}: {error} (while making it)")
        give_up_at = time.monotonic() + child.start_within_s
        while not actor.wait_up(START_POLL_S):
            if actor.ended:
                return None  # its own report is in our mailbox
            if self.stop_ordered:
                return None  # Shutdown is next, and stops it like the others
            if time.monotonic() >= give_up_at:
                actor.abandon()
                log.error("%s: %s did not start within %g s", self.address.name, name, child.start_within_s)
                return self._crashed(name, f"did not start within {child.start_within_s:g} s")
        return supervision.ChildStarted(name, incarnation)

    def _stop_child(self, child: Child) -> None:
        """End one child; from here on it is gone, whatever its thread does."""
        actor = self.actors.get(child.name)
        if actor is None or not actor.thread_alive:
            return
        began = time.monotonic()
        until = began + child.stop_within_s
        if self.stop_deadline is None:
            actor.halt()  # for a restart: its mail waits for the next incarnation
        else:
            until = max(min(until, self.stop_deadline), time.monotonic() + STOP_S_MIN)
            actor.finish(until)
            # The last fifth is for one that would end, but has too much mail.
            if not actor.wait_ended((until - time.monotonic()) * 0.8):
                actor.halt()
        if not actor.wait_ended(until - time.monotonic()):
            actor.abandon()
            log.error("%s: %s did not end within %.3g s", self.address.name, child.name, time.monotonic() - began)

    def _report(self, ended: ChildEnded) -> None:
        """Runs in the child's thread. Past the mailbox's bound: a report that is lost is a child that is lost."""
        self.address.mailbox.post(codec.encode(ended))

    def _child_ended(self, name: str, launch: int, crashed: bool, reason: str) -> None:
        actor = self.actors.get(name)
        if actor is None or actor.launch_number != launch:
            return  # of a child that was replaced since, or of our predecessor's
        self.last_reasons[name] = reason
        self._handle(
            self._crashed(name, reason) if crashed else supervision.ChildStopped(name, self._incarnations[name])
        )
        if self._machine.states()[name] is supervision.ChildState.ENDED:
            self.children[name].address.close()

    def _crashed(self, name: str, reason: str) -> supervision.ChildCrashed:
        self.last_reasons[name] = reason
        return supervision.ChildCrashed(name, self._incarnations[name], reason)

    def _sweep(self) -> None:
        """Find children whose thread is over, or hangs while closing, without a report."""
        for name, actor in list(self.actors.items()):
            if actor.reported:
                continue
            closing_since = actor.closing_since
            if not actor.thread_alive:
                reason = "its thread ended without a word"
            elif closing_since is not None and time.monotonic() - closing_since > self.children[name].stop_within_s:
                reason = "it hangs while closing"
            else:
                continue
            actor.abandon()
            log.error("%s: %s is gone: %s", self.address.name, name, reason)
            self._handle(self._crashed(name, reason))
