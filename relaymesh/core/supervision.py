"""When to restart which child, and when to give up.

A supervisor has children in start order. They are started one after the other, each when the one before it has
answered, and stopped in reverse. This machine decides only the order and the number of starts; it starts nothing.

                    Begin                 Start                  ChildStarted
    (before) ─────────────▶ WANTED ─────────────▶ STARTING ─────────────────────▶ RUNNING
                               ▲                      │                              │
                               │  to be restarted     │ ChildCrashed, ChildStopped,  │
                               ├──────────────────────┴─ Stop of a later sibling  ───┤
                               │                                                     │
                               └─ (not before its backoff is over)        ENDED ◀────┘  not to be restarted

ONE_FOR_ONE restarts the child that crashed. REST_FOR_ONE first stops its later siblings, in reverse order, and starts
them after it, because they depend on state that it lost. More than ``Intensity.restarts`` restarts within
``Intensity.within_ns`` end everything: all children are stopped in reverse order, then ``GiveUp``.

Source: the supervisor behaviour of Erlang/OTP. Ours differs in three ways: a child that fails to start counts as a
crash instead of failing its supervisor; a TRANSIENT child that ended in order stays ended when REST_FOR_ONE restarts
its elder sibling; a child that crashes again waits (``Backoff``), so that a fault that lasts a moment does not use up
the intensity.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import assert_never

__all__ = [
    "BACKOFF",
    "INTENSITY",
    "Backoff",
    "Begin",
    "ChildCrashed",
    "ChildSpec",
    "ChildStarted",
    "ChildState",
    "ChildStopped",
    "Effect",
    "Event",
    "GiveUp",
    "Intensity",
    "Restart",
    "Shutdown",
    "Start",
    "Stop",
    "Strategy",
    "Supervision",
    "Wake",
    "Woke",
]


class Restart(Enum):
    """Whether a child that ended is started again."""

    PERMANENT = "permanent"  # always
    TRANSIENT = "transient"  # after a crash, not after an orderly end
    TEMPORARY = "temporary"  # never


class Strategy(Enum):
    """Who is restarted with a child that crashed."""

    ONE_FOR_ONE = "one_for_one"
    REST_FOR_ONE = "rest_for_one"


class ChildState(Enum):
    """Where a child stands; drawn at the top."""

    WANTED = "wanted"
    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One child, as the machine needs to know it."""

    name: str
    restart: Restart = Restart.PERMANENT


@dataclass(frozen=True, slots=True)
class Intensity:
    """How many restarts in how long are still borne: the next one gives up.

    restarts: 0 gives up at the first crash. Sane: 3 to 20.
    within_ns: the sliding window. Sane: 10 s to 5 min.
    """

    restarts: int = 5
    within_ns: int = 60_000_000_000

    def __post_init__(self) -> None:
        if self.restarts < 0 or self.within_ns <= 0:
            raise ValueError(f"restart intensity needs restarts >= 0 and a positive window, not {self}")


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long a child waits before it is restarted.

    The first crash within the intensity window is answered at once; the second waits ``first_ns``, each further one
    twice as long, up to ``max_ns``.
    """

    first_ns: int = 50_000_000
    max_ns: int = 5_000_000_000

    def __post_init__(self) -> None:
        if not 0 <= self.first_ns <= self.max_ns:
            raise ValueError(f"backoff needs 0 <= first_ns <= max_ns, not {self}")

    def delay_ns(self, crashes: int) -> int:
        """Return the wait after the ``crashes``-th crash within the window."""
        if crashes <= 1:
            return 0
        return min(self.max_ns, self.first_ns << min(crashes - 2, 62))


INTENSITY = Intensity()
BACKOFF = Backoff()


@dataclass(frozen=True, slots=True)
class Begin:
    """Start all children."""


@dataclass(frozen=True, slots=True)
class ChildStarted:
    """The child is up; the next one may start."""

    name: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class ChildCrashed:
    """The child ended by an error, or could not be started."""

    name: str
    incarnation: int
    reason: str


@dataclass(frozen=True, slots=True)
class ChildStopped:
    """The child ended in order, without having been told to."""

    name: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Woke:
    """A wait is over. Late or doubled ones are harmless: what is due is looked up."""


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Stop all children for good."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start the child; answer with ChildStarted or ChildCrashed of the same incarnation.

    incarnation: 1 for the first start of this child, one more each time; events about an older one are ignored.
    """

    name: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the child and wait until it has ended; no event answers this."""

    name: str


@dataclass(frozen=True, slots=True)
class Wake:
    """Send Woke at this instant."""

    at_ns: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Too many restarts. All children have been stopped."""

    reason: str


Event = Begin | ChildStarted | ChildCrashed | ChildStopped | Woke | Shutdown
Effect = Start | Stop | Wake | GiveUp


@dataclass(slots=True)
class _Child:
    spec: ChildSpec
    state: ChildState = ChildState.ENDED
    incarnation: int = 0
    not_before_ns: int = 0

    @property
    def up(self) -> bool:
        return self.state in (ChildState.STARTING, ChildState.RUNNING)


class Supervision:
    """The children of one supervisor.

    Raises:
        ValueError: two children have one name.
    """

    def __init__(
        self,
        children: Sequence[ChildSpec],
        *,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: Intensity = INTENSITY,
        backoff: Backoff = BACKOFF,
    ) -> None:
        self._children = [_Child(spec) for spec in children]
        self._by_name = {child.spec.name: child for child in self._children}
        if len(self._by_name) != len(self._children):
            raise ValueError(f"children need names of their own: {[spec.name for spec in children]}")
        self._strategy = strategy
        self._intensity = intensity
        self._backoff = backoff
        # The last restarts, oldest first: (instant, child). One more than allowed is enough to know.
        self._restarts: deque[tuple[int, str]] = deque(maxlen=intensity.restarts + 1)
        self._over = False

    def handle(self, now_ns: int, event: Event) -> list[Effect]:
        """Take one event; return what to do about it, in order."""
        if self._over:
            return []
        match event:
            case Begin():
                return self._begin(now_ns)
            case ChildStarted() | ChildCrashed() | ChildStopped() if not self._current(event):
                return []  # about an incarnation that was stopped or replaced since
            case ChildStarted(name):
                self._by_name[name].state = ChildState.RUNNING
                return self._start_next(now_ns)
            case ChildCrashed(name, _, reason):
                return self._ended(now_ns, self._by_name[name], reason, crashed=True)
            case ChildStopped(name):
                return self._ended(now_ns, self._by_name[name], "stopped by itself", crashed=False)
            case Woke():
                return self._start_next(now_ns)
            case Shutdown():
                return self._stop_all()
        assert_never(event)

    def states(self) -> dict[str, ChildState]:
        """Return each child's state, in start order."""
        return {child.spec.name: child.state for child in self._children}

    @property
    def settled(self) -> bool:
        """No child is waiting for its start."""
        return all(child.state in (ChildState.RUNNING, ChildState.ENDED) for child in self._children)

    def _current(self, event: ChildStarted | ChildCrashed | ChildStopped) -> bool:
        child = self._by_name[event.name]
        return child.up and child.incarnation == event.incarnation

    def _begin(self, now_ns: int) -> list[Effect]:
        for child in self._children:
            if not child.up:
                child.state, child.not_before_ns = ChildState.WANTED, now_ns
        return self._start_next(now_ns)

    def _ended(self, now_ns: int, child: _Child, reason: str, *, crashed: bool) -> list[Effect]:
        child.state = ChildState.ENDED
        if not (child.spec.restart is Restart.PERMANENT or (crashed and child.spec.restart is Restart.TRANSIENT)):
            return self._start_next(now_ns)
        crashes = self._count(now_ns, child.spec.name)
        if len(self._restarts) > self._intensity.restarts:
            return [*self._stop_all(), GiveUp(self._sentence(child.spec.name, reason))]
        effects = self._stop_later_than(child) if self._strategy is Strategy.REST_FOR_ONE else []
        child.state = ChildState.WANTED
        child.not_before_ns = now_ns + self._backoff.delay_ns(crashes)
        return [*effects, *self._start_next(now_ns)]

    def _count(self, now_ns: int, name: str) -> int:
        """Enter one restart; return how many of the window were this child's."""
        while self._restarts and self._restarts[0][0] <= now_ns - self._intensity.within_ns:
            self._restarts.popleft()
        self._restarts.append((now_ns, name))
        return sum(1 for _, whose in self._restarts if whose == name)

    def _sentence(self, name: str, reason: str) -> str:
        seconds = self._intensity.within_ns / 1e9
        return f"more than {self._intensity.restarts} restarts in {seconds:g} s; the last was {name}: {reason}"

    def _stop_later_than(self, child: _Child) -> list[Effect]:
        effects: list[Effect] = []
        for sibling in reversed(self._children[self._children.index(child) + 1 :]):
            if sibling.up:
                effects.append(Stop(sibling.spec.name))
                temporary = sibling.spec.restart is Restart.TEMPORARY
                sibling.state = ChildState.ENDED if temporary else ChildState.WANTED
        return effects

    def _stop_all(self) -> list[Effect]:
        self._over = True
        up = [child for child in reversed(self._children) if child.up]
        for child in self._children:
            child.state = ChildState.ENDED
        return [Stop(child.spec.name) for child in up]

    def _start_next(self, now_ns: int) -> list[Effect]:
        """Start the first child that may start; its answer brings the next."""
        if any(child.state is ChildState.STARTING for child in self._children):
            return []
        waits: list[int] = []
        for child in self._children:
            if child.state is not ChildState.WANTED:
                continue
            if child.not_before_ns <= now_ns:
                child.state = ChildState.STARTING
                child.incarnation += 1
                return [Start(child.spec.name, child.incarnation)]
            waits.append(child.not_before_ns)
            if self._strategy is Strategy.REST_FOR_ONE:
                break  # later siblings need this one
        return [Wake(min(waits))] if waits else []
