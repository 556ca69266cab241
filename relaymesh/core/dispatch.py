"""Which worker of a node runs what, and what the queue may ask the store for.

The store owns the queue; this machine only keeps the books of one node: how many slots each worker has, which step is
where. It asks the store for as many steps as there are free slots (a *demand*) and hands out what the store claimed::

    free slots ──Demand──▶ store ──Claimed──▶ Run(worker, steps) ──▶ … ──Ended──▶ free slots
                                                    │ waits behind a slow one: Revoke ──▶ Release
                                                    │ the worker died:                    Release
    Drain ──▶ Withdraw ──▶ nothing new; what is not begun: Revoke ──▶ until nothing runs, or time is over: Release

The store keeps count of the slots by itself and tells its count with each word (``relaymesh.core.demand``). A demand is
made when that count is not ours, with the number of the last word that we have heard: the store ignores one that is
older than its last word, and we look again with the next.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

__all__ = [
    "Ask",
    "Claimed",
    "Close",
    "Dispatch",
    "Drain",
    "DrainTimeout",
    "Drained",
    "Effect",
    "Ended",
    "Event",
    "GaveBack",
    "Lost",
    "Release",
    "Revoke",
    "Run",
    "SetCapacity",
    "Stop",
    "TookOver",
    "Withdraw",
    "Withdrawn",
    "WorkerUp",
]


@dataclass(frozen=True, slots=True)
class TookOver:
    """The store knows us; its last word has this number."""

    number: int


@dataclass(frozen=True, slots=True)
class WorkerUp:
    """A worker is there and holds nothing, whatever an earlier incarnation of it held."""

    worker: str
    pool: str
    capacity: int


@dataclass(frozen=True, slots=True)
class SetCapacity:
    """A worker takes this many steps from now on."""

    worker: str
    capacity: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """The store claimed these: ``(row_id, pool)``. number, free: of its word, and what it counts as free now."""

    number: int
    free: Mapping[str, int]
    steps: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """These are committed, refused or given back: their slots are free. number, free: as in ``Claimed``."""

    row_ids: tuple[int, ...]
    number: int
    free: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class GaveBack:
    """A worker gave these back unstarted."""

    row_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Lost:
    """The leases of these are not ours any more."""

    row_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Drain:
    """Take nothing new, give back what has not begun, and let what runs end."""


@dataclass(frozen=True, slots=True)
class Close:
    """Take nothing new and let all that was taken end."""


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The store claims nothing more; its last word has this number."""

    number: int


@dataclass(frozen=True, slots=True)
class DrainTimeout:
    """What still runs has had its time."""


Event = TookOver | WorkerUp | SetCapacity | Claimed | Ended | GaveBack | Lost | Drain | Close | Withdrawn | DrainTimeout


@dataclass(frozen=True, slots=True)
class Ask:
    """Send a demand for these free slots per pool."""

    after: int
    free: dict[str, int]


@dataclass(frozen=True, slots=True)
class Run:
    """Hand these steps to the worker."""

    worker: str
    row_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Revoke:
    """Ask the worker to give back what it has not begun of these."""

    worker: str
    row_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """Have the worker end these; their results are not wanted."""

    worker: str
    row_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Release:
    """Give these back to the queue; no attempt is counted."""

    row_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Tell the store to claim nothing more."""


@dataclass(frozen=True, slots=True)
class Drained:
    """Nothing runs here any more."""

    released: int


Effect = Ask | Run | Revoke | Stop | Release | Withdraw | Drained


@dataclass(slots=True)
class _Worker:
    pool: str
    capacity: int
    held: OrderedDict[int, None] = field(default_factory=OrderedDict)


class Dispatch:
    """The books of one node."""

    def __init__(self) -> None:
        self._workers: dict[str, _Worker] = {}
        self._where: dict[int, str] = {}
        # The last word of the store that we have heard, and what it counts as free, or was told since.
        self._number: int | None = None
        self._standing: Mapping[str, int] | None = None
        self._draining = False
        self._revoking = False
        self._last_number: int | None = None
        self._gave_up = False
        self._drained = False
        self._released = 0

    def __len__(self) -> int:
        return len(self._where)

    def held(self) -> tuple[int, ...]:
        """Return all steps that are with a worker."""
        return tuple(self._where)

    def free(self) -> dict[str, int]:
        """Return the free slots of each pool that has any."""
        free: dict[str, int] = {}
        for worker in self._workers.values():
            room = worker.capacity - len(worker.held)
            if room > 0:
                free[worker.pool] = free.get(worker.pool, 0) + room
        return free

    def handle(self, event: Event) -> list[Effect]:
        """Take one event; return what to do about it, in order. No event depends on the time."""
        match event:
            case TookOver(number):
                self._number, self._standing = number, None
                return self._ask()
            case WorkerUp(worker, pool, capacity):
                return self._worker_up(worker, pool, capacity)
            case SetCapacity(worker, capacity):
                if worker in self._workers:
                    self._workers[worker].capacity = capacity
                return self._ask()
            case Claimed(number, free, steps):
                self._hear(number, free)
                return self._claimed(steps)
            case Ended(row_ids, number, free):
                self._hear(number, free)
                self._forget(row_ids)
                return self._after_end()
            case Lost(row_ids):
                stops = self._stops(row_ids)
                self._forget(row_ids)
                return [*stops, *self._after_end()]
            case GaveBack(row_ids):
                known = tuple(row_id for row_id in row_ids if row_id in self._where)
                self._forget(known)
                self._released += len(known) if self._draining else 0
                return [*([Release(known)] if known else []), *self._after_end()]
            case Drain() | Close():
                self._draining = True
                self._revoking |= isinstance(event, Drain)
                return [Withdraw()]
            case Withdrawn(number):
                self._last_number = number
                revokes: list[Effect] = [
                    Revoke(name, tuple(worker.held))
                    for name, worker in self._workers.items()
                    if worker.held and self._revoking
                ]
                return [*revokes, *self._after_end()]
            case DrainTimeout() if not self._draining:
                return []
            case DrainTimeout():
                return self._give_up()
        assert_never(event)

    def _hear(self, number: int, free: Mapping[str, int]) -> None:
        # Before the store knows us, a claim was made for the demand of a former queue, and will be fenced.
        if self._number is not None:
            self._number, self._standing = number, free

    def _ask(self) -> list[Effect]:
        if self._draining or self._number is None:
            return []
        free = self.free()
        if self._standing == free:
            return []
        self._standing = free
        return [Ask(self._number, free)]

    def _claimed(self, steps: Sequence[tuple[int, str]]) -> list[Effect]:
        if not self._draining and self._number is not None:
            return [*self._hand_out(steps), *self._ask()]
        self._released += len(steps) if self._draining else 0
        release: list[Effect] = [Release(tuple(row_id for row_id, _ in steps))] if steps else []
        return [*release, *self._after_end()]

    def _worker_up(self, name: str, pool: str, capacity: int) -> list[Effect]:
        former = self._workers.get(name)
        lost = tuple(former.held) if former is not None else ()
        self._workers[name] = _Worker(pool, capacity)
        for row_id in lost:
            del self._where[row_id]
        release: list[Effect] = [Release(lost)] if lost else []
        return [*release, *self._after_end()]

    def _hand_out(self, steps: Sequence[tuple[int, str]]) -> list[Effect]:
        orders: dict[str, list[int]] = {}
        homeless: list[int] = []
        rooms: dict[str, list[tuple[str, _Worker]]] = {}
        for row_id, pool in steps:
            if pool not in rooms:
                rooms[pool] = [(n, w) for n, w in self._workers.items() if w.pool == pool and len(w.held) < w.capacity]
                # Idle workers first: nobody waits behind somebody else while one is free.
                rooms[pool].sort(key=lambda entry: len(entry[1].held))
            if not rooms[pool]:
                homeless.append(row_id)
                continue
            name, worker = rooms[pool].pop(0)
            worker.held[row_id] = None
            self._where[row_id] = name
            orders.setdefault(name, []).append(row_id)
            if len(worker.held) < worker.capacity:
                rooms[pool].append((name, worker))
        effects: list[Effect] = [Run(name, tuple(row_ids)) for name, row_ids in orders.items()]
        if homeless:
            effects.append(Release(tuple(homeless)))
        return effects

    def _stops(self, row_ids: Iterable[int]) -> list[Effect]:
        by_worker: dict[str, list[int]] = {}
        for row_id in row_ids:
            if row_id in self._where:
                by_worker.setdefault(self._where[row_id], []).append(row_id)
        return [Stop(name, tuple(ids)) for name, ids in by_worker.items()]

    def _forget(self, row_ids: Iterable[int]) -> None:
        for row_id in row_ids:
            name = self._where.pop(row_id, None)
            if name is not None:
                self._workers[name].held.pop(row_id, None)

    def _after_end(self) -> list[Effect]:
        if not self._draining:
            return self._ask()
        if self._withdrawn() and not self._where and not self._drained:
            self._drained = True
            return [Drained(self._released)]
        return []

    def _withdrawn(self) -> bool:
        """Return whether no claim is on its way to us any more."""
        if self._gave_up or self._last_number is None:
            return self._gave_up
        return self._number is None or self._number >= self._last_number

    def _give_up(self) -> list[Effect]:
        row_ids = tuple(self._where)
        stops = self._stops(row_ids)
        self._forget(row_ids)
        self._released += len(row_ids)
        self._gave_up = True
        release: list[Effect] = [Release(row_ids)] if row_ids else []
        return [*stops, *release, *self._after_end()]
