"""What an InboxActor asks of the store, and what it does with each answer; with a clock that is set."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.address import Address
from actors.inbox import InboxActor
from actors.reply import Asked, Reply
from actors.store_needs import NodeFacts
from relaymesh.audit import AuditTrail
from relaymesh.core.look import ADOPT_TICKS, INBOX_LOOK_NS, REST_TICKS
from relaymesh.core.retry import RetryPolicy
from relaymesh.store.error import StoreFullError
from relaymesh.wire import codec
from relaymesh.wire.kernel import Ping
from relaymesh.wire.store import StoreAnswer, SubmitTasks
from tests.actors.fakes import PATIENCE_S, ManualTimers
from tests.store.bench import NOON, Bench

LONG_AGO = (1_000_000_000, 1_000_000_000)
SECOND = 1_000_000_000


class Desk:
    """An InboxActor whose store is an address that nobody reads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bench = Bench(root)
        self.timers = ManualTimers()
        self.store, self.address = Address("store"), Address("inbox")
        self.actor = self.start()

    def start(self) -> InboxActor:
        facts = NodeFacts(
            root=self.root,
            namespace="default",
            node_id="n1",
            host="here",
            pid=1,
            agents="{}",
            pools={"echo": "inline"},
            limits={},
            policy_of=lambda _: RetryPolicy(),
        )
        actor = InboxActor(facts, self.timers, self.store, lambda: NOON, AuditTrail(self.root))
        actor.launch(self.address)
        assert actor.wait_up(PATIENCE_S)
        return actor

    def drop(self, name: str) -> None:
        path = self.root / "inbox" / "normal" / name
        path.write_bytes(json.dumps({"agent": "echo", "input": "x"}).encode())
        os.utime(path, LONG_AGO)

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.timers.advance(INBOX_LOOK_NS)
            self.settle()

    def settle(self) -> None:
        """Wait until what the actor told itself is handled as well."""
        for _ in range(3):
            assert self.address.ask(Ping(), PATIENCE_S) is True

    def asked(self) -> tuple[SubmitTasks, Reply]:
        """Take the one batch that waits at the store."""
        mail = self.store.mailbox.queue.get_nowait()
        assert isinstance(mail, Asked) and not self.store.depth
        message = codec.decode(mail.data)
        assert isinstance(message, SubmitTasks)
        return message, mail.reply

    def names(self, folder: str) -> list[str]:
        return sorted(name for _, _, names in os.walk(self.root / folder) for name in names)

    def end(self) -> None:
        self.actor.halt()
        assert self.actor.wait_ended(PATIENCE_S)
        self.bench.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "root")
    yield desk
    desk.end()


def test_a_drop_is_asked_of_the_store_at_the_next_look_and_marked_when_it_answers(desk: Desk) -> None:
    desk.drop("a.json")
    desk.look()
    message, reply = desk.asked()
    (ticket,) = [task.task_id for task in message.tasks]
    assert desk.names("processing") == [f"{ticket}~normal~a.json"]

    reply.answer(StoreAnswer(tuple(desk.bench.submit(*message.tasks))))
    desk.settle()

    assert desk.names("processing") == [f"{ticket}~{ticket}~a.json"]


def test_a_task_that_has_ended_is_noticed_by_what_was_committed(desk: Desk) -> None:
    desk.drop("a.json")
    desk.look()
    message, reply = desk.asked()
    reply.answer(StoreAnswer(tuple(desk.bench.submit(*message.tasks))))
    desk.settle()
    desk.look()
    assert desk.names("done") == []

    desk.bench.run_all()
    desk.look()

    assert desk.names("done") == ["a.json", "a.json.result.json"]


def test_a_store_that_refuses_is_asked_again_after_a_rest_under_another_ticket(desk: Desk) -> None:
    desk.drop("a.json")
    desk.look()
    message, reply = desk.asked()

    reply.fail(StoreFullError())
    desk.settle()
    desk.look(REST_TICKS)
    assert not desk.store.depth
    desk.look()
    again, _ = desk.asked()

    assert [task.idempotency_key for task in again.tasks] == ["a.json"]
    assert again.tasks[0].task_id != message.tasks[0].task_id


def test_no_more_than_two_batches_wait_for_the_store(desk: Desk) -> None:
    for number in range(1_600):
        desk.drop(f"{number:04}")

    desk.look(3)

    assert desk.store.depth == 2
    assert len(desk.names("inbox")) == 600


def test_an_actor_that_is_started_anew_goes_on_with_what_the_former_one_held(desk: Desk) -> None:
    desk.drop("a.json")
    desk.look()
    message, _ = desk.asked()
    desk.bench.submit(*message.tasks)
    desk.actor.halt()
    assert desk.actor.wait_ended(PATIENCE_S)

    desk.bench.run_all()
    desk.actor = desk.start()
    desk.look(2)

    assert desk.names("done") == ["a.json", "a.json.result.json"]
    assert not desk.store.depth


def test_what_a_dead_process_held_is_found_in_its_folder(desk: Desk) -> None:
    folder = desk.root / "processing" / "gone"
    folder.mkdir()
    desk.drop("a.json")
    (desk.root / "inbox" / "normal" / "a.json").rename(
        folder / "tsk_018bcfe5-6800-7a3f-9c41-000000000001~normal~a.json"
    )

    desk.look(ADOPT_TICKS)

    message, _ = desk.asked()
    assert [task.idempotency_key for task in message.tasks] == ["a.json"]
    assert not folder.exists()
