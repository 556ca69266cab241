"""What a WorkerActor does when its process reports late, retires or dies; with a process that does what it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec import structs

from actors.address import Address
from actors.worker import BLAMELESS_MAX, WorkerActor
from relaymesh.agents.process import KILL_MARGIN_MS
from relaymesh.agents.spec import AgentSpec, Isolation, Kind
from relaymesh.wire import codec
from relaymesh.wire.codec import Message
from relaymesh.wire.kernel import Ping
from relaymesh.wire.store import (
    AttemptLost,
    AttemptSpent,
    CancelGrants,
    CutSteps,
    FinishSteps,
    Grant,
    GrantsRefused,
    LeaseRef,
    RunGrants,
    StepCut,
    WorkerCapacity,
    WorkerUp,
)
from relaymesh.wire.work import (
    Allowance,
    CutStep,
    RunSteps,
    StepReport,
    StepReports,
    StepSpent,
    WorkerExited,
    WorkerReady,
    WorkerRetiring,
)
from tests.actors.fakes import PATIENCE_S, ManualTimers

SPECS = {"work": AgentSpec("work", Kind.PYTHON, Isolation.PROCESS)}


class FakeProcess:
    """A worker process that only remembers."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.alive = True
        self.sent: list[Message] = []

    def start(self) -> None:
        pass

    def send(self, message: Message) -> bool:
        if self.alive:
            self.sent.append(message)
        return self.alive

    def kill(self) -> None:
        self.alive = False


class Desk:
    """A WorkerActor between addresses that nobody reads, so that their mail can be looked at."""

    def __init__(self) -> None:
        self.store, self.queue, self.lease = Address("store"), Address("queue"), Address("lease")
        self.processes: list[FakeProcess] = []
        self.timers = ManualTimers()
        self.address = Address("worker-1")
        self.actor = WorkerActor(SPECS, self._make, self.timers, self.store, self.queue, self.lease)
        self.actor.launch(self.address)
        self.start = self._start_of(self.queue)

    def _start_of(self, queue: Address) -> int:
        assert self.address.ask(Ping(), PATIENCE_S) is True
        (up,) = self.mail(queue, WorkerUp)
        return int(up.start)

    def _make(self, _: Callable[[Any], object]) -> Any:
        self.processes.append(FakeProcess(100 + len(self.processes)))
        return self.processes[-1]

    def tell(self, *messages: Message) -> None:
        for message in messages:
            self.address.tell(message)
        assert self.address.ask(Ping(), PATIENCE_S) is True

    def mail(self, address: Address, kind: type[Message]) -> list[Any]:
        """Take the mail that waits at an address; return what is of this kind."""
        found = []
        while address.depth:
            message = codec.decode(address.mailbox.queue.get_nowait())  # type: ignore[arg-type]
            found.append(message)
        return [message for message in found if isinstance(message, kind)]


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.actor.halt()
    assert desk.actor.wait_ended(PATIENCE_S)


def grant(row_id: int, epoch: int = 1) -> Grant:
    lease = LeaseRef(row_id, f"stp_{row_id}", "tsk_1", "work", 1, f"lse_{row_id}.{epoch}", epoch, 1, 0)
    return Grant(lease, "", "process", "")


def report(row_id: int, kind: str = "succeeded") -> StepReport:
    return StepReport(row_id, f"lse_{row_id}.1", kind)


def test_a_success_that_comes_after_its_lease_was_lost_is_left_to_the_store_to_judge(desk: Desk) -> None:
    desk.tell(
        RunGrants((grant(1), grant(2)), desk.start), WorkerReady(100, ()), CancelGrants((1, 2), "the lease is lost")
    )

    desk.tell(StepReports((report(1), report(2, "failed"))))

    (finished,) = desk.mail(desk.store, FinishSteps)
    assert [step.lease.row_id for step in finished.steps] == [1]


def test_grants_that_were_meant_for_the_worker_before_a_crash_are_not_run(desk: Desk) -> None:
    desk.tell(RunGrants((grant(1),), desk.start - 1))

    assert desk.processes == []
    assert desk.mail(desk.queue, GrantsRefused) == []


def test_a_death_is_blamed_on_the_step_that_ran_and_the_others_go_back(desk: Desk) -> None:
    desk.tell(RunGrants((grant(1), grant(2), grant(3)), desk.start), WorkerReady(100, ()))

    desk.tell(WorkerExited(100, -9, 2))

    (lost,) = desk.mail(desk.store, AttemptLost)
    assert [lease.row_id for lease in lost.leases] == [2]
    assert [message.row_ids for message in desk.mail(desk.queue, GrantsRefused)] == [(1, 3)]


def test_a_death_between_two_steps_is_blamed_on_nobody(desk: Desk) -> None:
    desk.tell(RunGrants((grant(1),), desk.start), WorkerReady(100, ()))

    desk.tell(WorkerExited(100, -9, None))

    assert desk.mail(desk.store, AttemptLost) == []
    assert [message.row_ids for message in desk.mail(desk.queue, GrantsRefused)] == [(1,)]


def test_steps_sent_to_a_process_that_is_gone_already_wait_for_word_of_its_end(desk: Desk) -> None:
    desk.tell(RunGrants((grant(1),), desk.start), WorkerReady(100, ()))
    desk.processes[0].alive = False

    desk.tell(RunGrants((grant(2),), desk.start))
    early = desk.mail(desk.queue, GrantsRefused)
    desk.tell(WorkerExited(100, -11, 1))

    # The first one killed it: were it given back with the second, nobody would count that.
    assert early == []
    (lost,) = desk.mail(desk.store, AttemptLost)
    assert [lease.row_id for lease in lost.leases] == [1]
    assert [message.row_ids for message in desk.mail(desk.queue, GrantsRefused)] == [(2,)]


def test_what_a_retired_process_still_had_goes_back_when_it_dies(desk: Desk) -> None:
    desk.tell(RunGrants((grant(1),), desk.start), WorkerReady(100, ()), WorkerRetiring(100, "steps", ()))
    desk.tell(RunGrants((grant(2),), desk.start))
    assert len(desk.processes) == 2

    desk.tell(WorkerExited(100, 0, None))

    assert [message.row_ids for message in desk.mail(desk.queue, GrantsRefused)] == [(1,)]
    desk.tell(WorkerReady(101, ()), StepReports((report(2),)))
    (finished,) = desk.mail(desk.store, FinishSteps)
    assert [step.lease.row_id for step in finished.steps] == [2]


def test_a_worker_whose_processes_keep_dying_with_nobody_to_blame_takes_a_pause(desk: Desk) -> None:
    for number in range(BLAMELESS_MAX):
        desk.tell(RunGrants((grant(number + 1),), desk.start), WorkerExited(100 + number, -9, None))

    assert [message.capacity for message in desk.mail(desk.queue, WorkerCapacity)] == [0]
    desk.timers.advance(6_000_000_000)
    desk.tell()
    assert [message.capacity for message in desk.mail(desk.queue, WorkerCapacity)] == [1]


def test_a_step_that_does_not_end_is_reported_with_the_time_at_which_it_began(desk: Desk) -> None:
    spec = SPECS["work"]
    lasts_ms = spec.timeout_ms + spec.grace_ms + KILL_MARGIN_MS
    desk.tell(RunGrants((grant(1),), desk.start), WorkerReady(100, ()))

    desk.timers.advance((lasts_ms + 100) * 1_000_000)
    desk.tell()

    (finished,) = desk.mail(desk.store, FinishSteps)
    (step,) = finished.steps
    assert step.report.code == "timeout"
    assert lasts_ms <= step.report.finished_at_ms - step.report.started_at_ms <= lasts_ms + 100


def budgeted(row_id: int) -> Grant:
    return structs.replace(grant(row_id), allowances=(Allowance("agent", "work", "units:a", 10),))


def test_a_step_with_a_budget_is_not_sent_ahead_and_a_quick_one_earns_no_credit(desk: Desk) -> None:
    desk.tell(RunGrants((budgeted(1), budgeted(2), grant(3)), desk.start), WorkerReady(100, ()))
    (refused,) = desk.mail(desk.queue, GrantsRefused)
    desk.tell(RunGrants((budgeted(4),), desk.start))
    (again,) = desk.mail(desk.queue, GrantsRefused)
    desk.tell(StepReports((report(1),)))

    assert (refused.row_ids, again.row_ids) == ((2,), (4,))
    sent = [order.row_id for part in desk.processes[0].sent if isinstance(part, RunSteps) for order in part.orders]
    assert sent == [1, 3]
    assert desk.mail(desk.queue, WorkerCapacity) == []


def test_a_step_that_is_cut_is_told_once_and_its_report_is_committed(desk: Desk) -> None:
    cut = StepCut("worker-1", 1, "lse_1.1", "used up", False)
    desk.tell(RunGrants((budgeted(1),), desk.start), WorkerReady(100, ()))
    desk.tell(CutSteps((cut,)), CutSteps((cut,)), CutSteps((structs.replace(cut, lease_token="lse_1.0"),)))
    desk.tell(StepReports((structs.replace(report(1, "failed"), code="budget_exhausted"),)))

    assert [part for part in desk.processes[0].sent if isinstance(part, CutStep)] == [
        CutStep(1, "lse_1.1", "used up", False)
    ]
    (finished,) = desk.mail(desk.store, FinishSteps)
    assert finished.steps[0].report.code == "budget_exhausted"


def test_a_step_that_was_cut_and_does_not_end_costs_its_process_and_fails_for_its_budget(desk: Desk) -> None:
    desk.tell(RunGrants((budgeted(1),), desk.start), WorkerReady(100, ()))
    desk.tell(StepSpent(1, "lse_1.1", (("units:a", 11),), cut="used up", retryable=False))
    desk.timers.advance((SPECS["work"].grace_ms + KILL_MARGIN_MS) * 1_000_000 + 100_000_000)
    desk.tell()

    (spent,) = desk.mail(desk.lease, AttemptSpent)
    assert (spent.worker, spent.spent) == ("worker-1", (("units:a", 11),))
    assert not desk.processes[0].alive
    (finished,) = desk.mail(desk.store, FinishSteps)
    report_ = finished.steps[0].report
    assert (report_.code, report_.error, report_.retryable) == ("budget_exhausted", "used up", False)


def test_what_a_cancelled_step_has_spent_is_charged_although_its_report_is_dropped(desk: Desk) -> None:
    desk.tell(RunGrants((budgeted(1),), desk.start), WorkerReady(100, ()), CancelGrants((1,), "cancelled"))
    desk.tell(StepReports((structs.replace(report(1, "failed"), spent=(("units:a", 4),)),)))

    assert desk.mail(desk.store, FinishSteps) == []
    (spent,) = desk.mail(desk.lease, AttemptSpent)
    assert spent.spent == (("units:a", 4),)
