"""Tree: the supervision tree of one node, seen from outside: start it, look at it, break it, stop it.

Callable from any thread that is not an actor's.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from actors.address import Address
from actors.base import Actor
from actors.metrics import MetricsSnapshot, Undeliverable
from actors.supervisor import Child, Supervisor
from relaymesh.wire.kernel import ChildEnded, Crash

__all__ = ["Branch", "Tree"]


@dataclass(frozen=True, slots=True)
class Branch:
    """One actor in the tree.

    kind: its class. state: as its supervisor sees it. reason: how its last incarnation ended, or empty.
    """

    name: str
    kind: str
    state: str
    restarts: int
    reason: str
    children: tuple[Branch, ...] = ()


class Tree:
    """A root supervisor and all below it.

    root: makes the root supervisor.
    on_give_up: called once, in an actor's thread, when the root has given up or crashed; all children have been stopped
        then. It should end the process, not stop the tree.
    """

    def __init__(
        self, root: Callable[[], Supervisor], *, on_give_up: Callable[[str], object], name: str = "root"
    ) -> None:
        self._root = root()
        self._address = Address(name)
        self._on_give_up = on_give_up
        self._over = threading.Event()
        self._stopping = False

    def start(self, timeout_s: float) -> bool:
        """Start all; return whether all are up within ``timeout_s``. False may still become true, or give up."""
        self._root.launch(self._address, on_end=self._root_ended)
        deadline = time.monotonic() + timeout_s
        while not self._root.settled.wait(min(0.05, max(0.0, deadline - time.monotonic()))):
            if self._over.is_set() or time.monotonic() >= deadline:
                return False
        return not self._over.is_set()

    def stop_all(self, grace_s: float) -> tuple[str, ...]:
        """Stop all, the last started first; return the names of those whose threads had to be abandoned.

        Each child handles the mail that it has when its turn comes, within its own bound and what is left of
        ``grace_s``. With 0 each gets only a moment to notice. Afterwards nobody takes mail and open asks have failed.
        """
        self._stopping = True
        before = {child.name: child.address.metrics.abandoned for child, _, _ in self._walk()}
        deadline = time.monotonic() + grace_s
        if self._root.thread_alive:
            self._root.finish(deadline)
            # Past the deadline each child still gets a moment; so does the root for each of them.
            if not self._root.wait_ended(grace_s + 1.0 + 0.1 * len(before)):
                self._root.abandon()
                for _, actor, _ in self._walk():
                    if actor is not None:
                        actor.halt()
        self._close()
        return tuple(
            child.name for child, _, _ in self._walk() if child.address.metrics.abandoned > before.get(child.name, 0)
        )

    @property
    def over(self) -> bool:
        """The root supervisor has ended."""
        return self._over.is_set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the root supervisor has ended; return whether it has."""
        if sys.platform == "win32" and timeout_s is None:
            # There a wait without a bound keeps Ctrl-C from being handled.
            while not self._over.wait(0.5):
                pass
        return self._over.wait(timeout_s)

    def crash(self, name: str, reason: str = "ordered") -> bool:
        """Make the actor of this name crash at its next message; return whether there is one."""
        address = self.addresses().get(name)
        return address is not None and address.tell(Crash(reason))

    def addresses(self) -> dict[str, Address]:
        """Return the address of every actor below the root, by name."""
        return {child.name: child.address for child, _, _ in self._walk()}

    def metrics(self) -> dict[str, MetricsSnapshot]:
        """Return every actor's counters, by name, the root included."""
        addresses = {self._address.name: self._address, **self.addresses()}
        return {name: address.snapshot() for name, address in addresses.items()}

    def undeliverable(self) -> list[Undeliverable]:
        """Return what actors refused, oldest first; each keeps its last 256."""
        refused = [entry for address in self.addresses().values() for entry in address.undeliverable()]
        return sorted(refused, key=lambda entry: entry.at_ms)

    def tree(self) -> Branch:
        """Return the tree as it is now."""
        state = "ended" if self._over.is_set() else "running"
        return Branch(self._address.name, type(self._root).__name__, state, 0, "", _branches(self._root))

    def _walk(self) -> Iterator[tuple[Child, Actor | None, Supervisor]]:
        supervisors = [self._root]
        while supervisors:
            supervisor = supervisors.pop(0)
            for child in supervisor.children.values():
                actor = supervisor.actors.get(child.name)
                if isinstance(actor, Supervisor):
                    supervisors.append(actor)
                yield child, actor, supervisor

    def _root_ended(self, ended: ChildEnded) -> None:
        self._close()
        self._over.set()
        if ended.crashed and not self._stopping:
            self._on_give_up(ended.reason)

    def _close(self) -> None:
        for child, _, _ in self._walk():
            child.address.close()
        self._address.close()


def _branches(supervisor: Supervisor) -> tuple[Branch, ...]:
    states = supervisor.states()
    branches = []
    for child in supervisor.children.values():
        actor = supervisor.actors.get(child.name)
        branches.append(
            Branch(
                name=child.name,
                kind=type(actor).__name__ if actor is not None else "",
                state=states[child.name].value,
                restarts=child.address.snapshot().restarts,
                reason=supervisor.last_reasons.get(child.name, ""),
                children=_branches(actor) if isinstance(actor, Supervisor) else (),
            )
        )
    return tuple(branches)
