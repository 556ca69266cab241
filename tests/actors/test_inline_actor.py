"""The actor that runs built-ins: one step that cannot be run does not hold up, or take along, the others."""

from __future__ import annotations

from actors.address import Address
from actors.inline import InlineWorkerActor
from relaymesh.agents.spec import AgentSpec, Isolation, Kind
from relaymesh.wire import codec
from relaymesh.wire.kernel import Ping
from relaymesh.wire.store import FinishSteps, Grant, LeaseRef, RunGrants, WorkerUp
from tests.actors.fakes import PATIENCE_S

# No code of this name is built in, so running it raises inside of what runs agents.
SPECS = {name: AgentSpec(name, Kind.BUILTIN, Isolation.INLINE) for name in ("echo", "broken")}


def grant(row_id: int, agent_id: str) -> Grant:
    lease = LeaseRef(row_id, f"stp_{row_id}", "tsk_1", agent_id, 1, f"lse_{row_id}", 1, 1, 0)
    return Grant(lease, "", "inline", "")


def test_a_step_that_cannot_be_run_fails_and_the_others_of_its_batch_succeed() -> None:
    store, queue, address = Address("store"), Address("queue"), Address("inline")
    actor = InlineWorkerActor(SPECS, store, queue)
    actor.launch(address)
    try:
        assert actor.wait_up(PATIENCE_S)
        up = codec.decode(queue.mailbox.queue.get(timeout=PATIENCE_S))  # type: ignore[arg-type]
        assert isinstance(up, WorkerUp)

        address.tell(RunGrants((grant(1, "echo"), grant(2, "broken"), grant(3, "echo")), up.start))
        assert address.ask(Ping(), PATIENCE_S) is True

        finished = codec.decode(store.mailbox.queue.get(timeout=PATIENCE_S))  # type: ignore[arg-type]
        assert isinstance(finished, FinishSteps)
        assert [(step.lease.row_id, step.report.kind) for step in finished.steps] == [
            (1, "succeeded"),
            (2, "failed"),
            (3, "succeeded"),
        ]
        assert "AssertionError" in finished.steps[1].report.error
        assert actor.thread_alive
    finally:
        actor.halt()
        assert actor.wait_ended(PATIENCE_S)
