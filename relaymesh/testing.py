"""For users' own tests: run workflows in the calling thread, on a clock that the test sets.

    def test_the_report_counts_words() -> None:
        with InlineRelay([count_words, render]) as relay:
            task = relay.submit("count_words", "a b c")

            assert relay.result(task.task_id, type=dict[str, int]) == {"words": 3}

No process, no thread, no waiting: ``run`` runs what is ready, one step after another, and moves the clock to whatever
is due next; ``wait`` and ``result`` run first. The store is a real one, in a temporary folder, so retries, dead
letters, maps and idempotency are the real ones. What only a worker process can do is not there: an attempt that takes
too long is not stopped, and heartbeats go nowhere.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from relaymesh.agents.builtin import BUILTINS, SLEEP_MS_MAX, run_builtin_inline
from relaymesh.agents.context import Attempt
from relaymesh.agents.decorate import SPEC_ATTRIBUTE, input_type_of
from relaymesh.agents.execute import report_of, run_attempt
from relaymesh.agents.order import order_for
from relaymesh.agents.python import CoroutineLoop
from relaymesh.agents.registry import Registry, load_registry
from relaymesh.agents.spec import AgentSpec, Isolation, Kind, PythonTarget
from relaymesh.client import Client
from relaymesh.core.fairness import Fairness
from relaymesh.core.ident import Ids
from relaymesh.core.outcome import Outcome, Succeeded
from relaymesh.core.retry import RetryPolicy
from relaymesh.errors import AgentLoadError
from relaymesh.store.claim import Slots
from relaymesh.view import Event, TaskView
from relaymesh.wire.store import FinishedStep, Grant
from relaymesh.wire.work import StepReport

__all__ = ["InlineRelay", "VirtualClock"]

_POOL = "inline"
_NODE = "node-inline"
_STEPS_MAX = 100_000


@dataclass(slots=True)
class VirtualClock:
    """Wall time in ms that only moves when it is told to."""

    ms: int = 1_700_000_000_000

    def now_ms(self) -> int:
        """Return the time."""
        return self.ms

    def advance(self, by_ms: int) -> None:
        """Move on; raises ValueError for a negative step."""
        if by_ms < 0:
            raise ValueError(f"a clock is not advanced by {by_ms} ms")
        self.ms += by_ms


class InlineRelay(Client):
    """A client whose tasks are run by ``run``, in this thread.

    agents: functions with ``@agent``; the built-ins are there as well.
    seed: of the retry jitter and of ids, so that a test sees the same in each run.
    """

    def __init__(
        self, agents: Sequence[Callable[..., Any]] = (), *, clock: VirtualClock | None = None, seed: int = 0
    ) -> None:
        self.clock = clock or VirtualClock()
        self._folder = tempfile.TemporaryDirectory(prefix="relaymesh-inline-", ignore_cleanup_errors=True)
        super().__init__(Path(self._folder.name) / "data", now_ms=self.clock.now_ms)
        self.init()
        self._fresh_ids = Ids(self.clock.now_ms, random.Random(seed))
        self._writable().reseed(random.Random(seed))
        loaded = load_registry(self.root, ())
        specs = {**BUILTINS, **{spec.agent_id: spec for spec in map(_spec_of, agents)}}
        self._registry = Registry(specs, specs, (), loaded.scripts, loaded.retries)
        self._fairness = Fairness()
        self._loop = CoroutineLoop()

    def __enter__(self) -> InlineRelay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.close()
        self.close()
        self._folder.cleanup()

    def run(self, *, until_ms: int | None = None) -> int:
        """Run everything that is ready or becomes due, and return how many attempts that took.

        until_ms: do not move the clock beyond this; schedules tick up to it. Default: go on until nothing is left, and
            wait for no tick of a schedule, as there always is another.

        Raises:
            RuntimeError: more attempts than any test means to run: an agent snoozes for ever.
        """
        store, attempts = self._writable(), 0
        while attempts < _STEPS_MAX:
            if self.run_one():
                attempts += 1
                continue
            due_ms = store.next_due_ms() if until_ms is not None else store.next_step_due_ms()
            if due_ms is None or (until_ms is not None and due_ms > until_ms):
                return attempts
            self.clock.ms = max(self.clock.now_ms(), due_ms)
        raise RuntimeError(f"{_STEPS_MAX} attempts and still not done: does an agent snooze for ever?")

    def run_one(self) -> bool:
        """Run one attempt of the step that is next, if one is ready now; return whether there was one."""
        store, specs = self._writable(), self._local_agents().specs
        now_ms = self.clock.now_ms()
        with store.write():
            store.expire_tasks(now_ms=now_ms, limit=1_000)
            store.promote_due(now_ms=now_ms, limit=1_000)
            store.fire_due(now_ms=now_ms)
        slots = Slots(dict.fromkeys(specs, _POOL), {_POOL: 1}, {}, {}, 1)
        with store.write():
            claim = store.claim(
                slots, self._fairness, node_id=_NODE, generation=1, token=f"{self._ids.lease()}.", now_ms=now_ms
            )
        self._fairness = claim.state
        if not claim.rows:
            return False
        rendered = store.render(claim.rows[0])
        if isinstance(rendered, Grant):
            lease, report = rendered.lease, self._attempt(rendered, specs[rendered.lease.agent_id])
        else:
            lease, failed = rendered
            report = StepReport(
                lease.row_id, lease.lease_token, "failed", code=failed.code, error=failed.error, retryable=False
            )
        finished = [FinishedStep(lease, report, _NODE)]
        spilled = store.spill_outputs(finished)
        with store.write():
            store.finish(
                finished,
                node_id=_NODE,
                spilled=spilled,
                policy_of=lambda agent_id: _policy(specs.get(agent_id)),
                now_ms=self.clock.now_ms(),
            )
        return True

    def wait(self, task_id: str, *, timeout_ms: int | None = None) -> TaskView:
        """Run everything, and return the task; nobody else would run it.

        timeout_ms: how far the clock may be moved. Default: as far as it takes.

        Raises:
            WaitTimeoutError: it has not ended by then, or nothing that is left can end it.
        """
        self.task(task_id)
        self.run(until_ms=None if timeout_ms is None else self.clock.now_ms() + timeout_ms)
        return super().wait(task_id, timeout_ms=0)

    def events(self, task_id: str, *, timeout_ms: int | None = None) -> Iterator[Event]:
        """Run everything, and yield how the task and its steps ended."""
        self.wait(task_id, timeout_ms=timeout_ms)
        return super().events(task_id, timeout_ms=0)

    def _attempt(self, grant: Grant, spec: AgentSpec) -> StepReport:
        order, started_at_ms = order_for(grant, spec), self.clock.now_ms()
        attempt = Attempt(order, grace_ms=spec.grace_ms)
        outcome: Outcome
        if spec is BUILTINS["sleep"] and order.payload.strip().isdecimal():
            # The clock sleeps, not the test.
            self.clock.advance(min(int(order.payload), SLEEP_MS_MAX))
            outcome = Succeeded(order.payload.strip())
        elif spec.kind is Kind.BUILTIN and spec.isolation is Isolation.INLINE:
            outcome = run_builtin_inline(order, started_at_ms)
        else:
            outcome = run_attempt(spec, attempt, self._loop)
        return report_of(order, outcome, attempt.log_lines(), started_at_ms, self.clock.now_ms())


def _policy(spec: AgentSpec | None) -> RetryPolicy:
    return spec.retry if spec is not None and spec.retry is not None else RetryPolicy()


def _spec_of(function: Callable[..., Any]) -> AgentSpec:
    spec = getattr(function, SPEC_ATTRIBUTE, None)
    if not isinstance(spec, AgentSpec):
        raise AgentLoadError(repr(function), "it is not decorated with @agent")
    target = spec.target
    if isinstance(target, PythonTarget) and target.input_type is None:
        # Its annotation named something that was not there yet when the decorator ran.
        try:
            return replace(spec, target=replace(target, input_type=input_type_of(function)))
        except (NameError, TypeError) as error:
            raise AgentLoadError(spec.source, f"the annotation of its input cannot be used: {error}") from error
    return spec
