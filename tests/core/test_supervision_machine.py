"""Supervision under any order of events."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from relaymesh.core.supervision import (
    Backoff,
    Begin,
    ChildCrashed,
    ChildSpec,
    ChildStarted,
    ChildState,
    ChildStopped,
    Event,
    GiveUp,
    Intensity,
    Restart,
    Shutdown,
    Start,
    Stop,
    Strategy,
    Supervision,
    Wake,
    Woke,
)


class AnyOrder(RuleBasedStateMachine):
    """Performs the effects on a model of the children, and reports what it likes in any order."""

    @initialize(
        restarts=st.lists(st.sampled_from(Restart), min_size=1, max_size=5),
        strategy=st.sampled_from(Strategy),
        intensity=st.builds(Intensity, st.sampled_from([0, 1, 4, 20]), st.integers(1, 100)),
        backoff=st.builds(lambda first, more: Backoff(first, first + more), st.integers(0, 20), st.integers(0, 20)),
    )
    def begin(self, restarts: list[Restart], strategy: Strategy, intensity: Intensity, backoff: Backoff) -> None:
        self.specs = [ChildSpec(f"c{i}", restart) for i, restart in enumerate(restarts)]
        self.names = [spec.name for spec in self.specs]
        self.policy = {spec.name: spec.restart for spec in self.specs}
        self.strategy, self.intensity = strategy, intensity
        self.machine = Supervision(self.specs, strategy=strategy, intensity=intensity, backoff=backoff)
        self.now_ns = 0
        self.up: dict[str, int] = {}  # running or starting, with its incarnation
        self.starting: str | None = None
        self.seen: dict[str, int] = {}  # newest incarnation
        self.restarted_at: list[int] = []
        self.over = False
        self.wake_at_ns: int | None = None
        self.give(Begin())

    def give(self, event: Event) -> None:
        effects = self.machine.handle(self.now_ns, event)
        if self.over:
            assert effects == []
        kinds = [type(effect) for effect in effects]
        assert kinds == sorted(kinds, key=[Stop, Start, Wake, GiveUp].index), "stops come first"
        stopped = [self.names.index(effect.name) for effect in effects if isinstance(effect, Stop)]
        assert stopped == sorted(stopped, reverse=True), "stopped in reverse order"
        for effect in effects:
            match effect:
                case Stop(name):
                    assert name in self.up
                    self.forget(name)
                case Start(name, incarnation):
                    self.check_start(name, incarnation)
                case Wake(at_ns):
                    assert at_ns > self.now_ns
                    self.wake_at_ns = at_ns
                case GiveUp():
                    assert not self.up, "all are stopped before it gives up"
                    self.over = True

    def check_start(self, name: str, incarnation: int) -> None:
        assert name not in self.up
        assert self.starting is None, "one start at a time"
        assert incarnation == self.seen.get(name, 0) + 1
        if incarnation > 1:
            assert self.policy[name] is not Restart.TEMPORARY
        if self.strategy is Strategy.REST_FOR_ONE:
            mine = self.names.index(name)
            states = self.machine.states()
            assert all(states[elder] in (ChildState.RUNNING, ChildState.ENDED) for elder in self.names[:mine])
            assert not any(later in self.up for later in self.names[mine + 1 :]), "later siblings were stopped"
        self.seen[name] = incarnation
        self.up[name] = incarnation
        self.starting = name

    def forget(self, name: str) -> None:
        del self.up[name]
        if self.starting == name:
            self.starting = None

    def ended(self, name: str, *, crashed: bool) -> None:
        incarnation = self.up[name]
        self.forget(name)
        restart = self.policy[name]
        counts = restart is Restart.PERMANENT or (restart is Restart.TRANSIENT and crashed)
        if counts:
            self.restarted_at.append(self.now_ns)
        within = [at for at in self.restarted_at if at > self.now_ns - self.intensity.within_ns]
        self.give(ChildCrashed(name, incarnation, "boom") if crashed else ChildStopped(name, incarnation))
        if counts:
            assert self.over == (len(within) > self.intensity.restarts), "gives up at one more than allowed, not before"

    @rule(by_ns=st.integers(1, 30))
    def time_passes(self, by_ns: int) -> None:
        self.now_ns += by_ns

    @precondition(lambda self: self.starting is not None)
    @rule()
    def child_answers(self) -> None:
        assert self.starting is not None
        name, self.starting = self.starting, None
        self.give(ChildStarted(name, self.up[name]))

    @precondition(lambda self: self.up)
    @rule(data=st.data(), crashed=st.booleans())
    def child_ends(self, data: st.DataObject, crashed: bool) -> None:
        self.ended(data.draw(st.sampled_from(sorted(self.up))), crashed=crashed)

    @precondition(lambda self: self.seen)
    @rule(data=st.data(), kind=st.sampled_from([ChildStarted, ChildStopped]), back=st.integers(1, 3))
    def late_report_changes_nothing(
        self, data: st.DataObject, kind: type[ChildStarted] | type[ChildStopped], back: int
    ) -> None:
        name = data.draw(st.sampled_from(sorted(self.seen)))
        before = self.machine.states()
        self.give(kind(name, self.seen[name] - back))
        assert self.machine.states() == before

    @rule()
    def wakes(self) -> None:
        if self.wake_at_ns is not None and self.wake_at_ns <= self.now_ns:
            self.wake_at_ns = None
        self.give(Woke())

    @precondition(lambda self: len(self.seen) > 2)
    @rule()
    def shuts_down(self) -> None:
        self.give(Shutdown())
        assert not self.up
        self.over = True

    @invariant()
    def the_machine_and_the_model_agree_who_is_up(self) -> None:
        if not hasattr(self, "machine"):
            return
        up = {n for n, state in self.machine.states().items() if state in (ChildState.STARTING, ChildState.RUNNING)}
        assert up == set(self.up)

    @invariant()
    def nobody_is_forgotten(self) -> None:
        """Whoever waits for its start has a start under way, or a wake to come."""
        if hasattr(self, "machine") and not self.over and not self.machine.settled:
            assert self.starting is not None or self.wake_at_ns is not None


AnyOrder.TestCase.settings = settings(deadline=None, max_examples=100, stateful_step_count=30)
TestAnyOrder = AnyOrder.TestCase
