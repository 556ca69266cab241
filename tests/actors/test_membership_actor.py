"""What a MembershipActor asks of the store, tells the GossipActor, and records; the test is the store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.address import Address
from actors.membership import SHOWN_MAX, MembershipActor
from actors.reply import Asked
from actors.store_needs import NodeFacts
from relaymesh.core.mesh.hint import Source
from relaymesh.core.mesh.member import State
from relaymesh.core.retry import RetryPolicy
from relaymesh.core.setting_table import Settings
from relaymesh.store.database import Database
from relaymesh.store.error import StoreBusyError
from relaymesh.store.mesh import write_members
from relaymesh.wire import codec
from relaymesh.wire.kernel import Ping
from relaymesh.wire.mesh import (
    AddressHints,
    BeginGossip,
    GossipUp,
    MemberRow,
    MembersChanged,
    MeshCheckpoint,
    OwnGeneration,
    WriteMembers,
)
from tests.actors.fakes import PATIENCE_S

NOW_MS = 1_700_000_000_000
WHERE = "127.0.0.1:17888"


class Bench:
    """A MembershipActor on a real database; ``orders`` are what it asks to be written, and ``write`` does so."""

    def __init__(self, root: Path) -> None:
        self.database = Database.open(root, now_ms=NOW_MS)
        self.generation = 0
        self.bodies: list[dict[str, Any]] = []
        self.store, self.gossip, self.address = Address("store"), Address("gossip"), Address("membership")
        facts = NodeFacts(
            root=root,
            namespace="default",
            node_id="me",
            host="here",
            pid=1,
            agents="{}",
            pools={},
            limits={},
            policy_of=lambda _: RetryPolicy(),
        )
        self.actor = MembershipActor(facts, self, self.store, self.gossip, self)
        self.actor.launch(self.address)

    # MembershipNeeds, and the desk of the audit log.

    def now_ms(self) -> int:
        return NOW_MS

    def current_generation(self) -> int:
        return self.generation

    def settings(self) -> Settings:
        return Settings()

    def offer(self, bodies: list[str]) -> None:
        self.bodies += [json.loads(f'{body}"}}') for body in bodies]

    # What the test does.

    def tell(self, message: codec.Message) -> None:
        assert self.address.tell(message)
        self.settle()

    def settle(self) -> None:
        """Everything that was told has been handled."""
        assert self.address.ask(Ping(), PATIENCE_S) is True

    def order(self) -> Asked:
        item = self.store.mailbox.queue.get(timeout=PATIENCE_S)
        assert isinstance(item, Asked)
        return item

    def asks_nothing(self) -> bool:
        self.settle()
        return self.store.depth == 0

    def write(self, asked: Asked | None = None) -> WriteMembers:
        """Be the store: write what it asks for, and answer."""
        asked = asked or self.order()
        wanted = codec.decode(asked.data)
        assert isinstance(wanted, WriteMembers)
        with self.database.write():
            turned = write_members(self.database.conn, wanted, now_ms=NOW_MS)
        asked.reply.answer(turned)
        self.settle()
        return wanted

    def told(self) -> list[codec.Message]:
        found = []
        while self.gossip.depth:
            item = self.gossip.mailbox.queue.get(timeout=PATIENCE_S)
            assert isinstance(item, bytes)
            found.append(codec.decode(item))
        return found

    def begin(self) -> BeginGossip:
        """Let a GossipActor come up."""
        self.tell(GossipUp(WHERE))
        self.write()
        *_, begin = self.told()
        assert isinstance(begin, BeginGossip)
        return begin


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "root")
    yield made
    made.actor.halt()
    made.actor.wait_ended(PATIENCE_S)
    made.database.close()


def row(node_id: str, shown: State, state: State | None = None) -> MemberRow:
    return MemberRow(node_id, "127.0.0.1:9", 3, 0, int(shown if state is None else state), int(shown))


def checkpoint(**fields: Any) -> MeshCheckpoint:
    own = MemberRow("me", WHERE, 1, 0, 0, 0)
    return MeshCheckpoint(**{"own": own, "heard": (), "marks": b"", "merged": 0, **fields})


def test_gossip_begins_when_the_store_has_the_generation_on_its_disk(bench: Bench) -> None:
    bench.tell(GossipUp(WHERE))
    assert bench.asks_nothing()  # the node has no generation yet

    bench.generation = 4
    bench.tell(OwnGeneration(4))
    asked = bench.order()
    assert not bench.told()
    wanted = bench.write(asked)

    assert wanted.own == MemberRow("me", WHERE, 4, 0, int(State.ALIVE), int(State.ALIVE))
    assert wanted.owner_generation == 4
    assert bench.told() == [AddressHints(int(Source.STORE), ()), BeginGossip(4, (), b"")]


def test_each_gossip_actor_speaks_as_a_later_generation(bench: Bench) -> None:
    bench.generation = 1

    generations = [bench.begin().generation for _ in range(3)]

    assert generations == [1, 2, 3]


def test_what_was_known_before_comes_along(bench: Bench) -> None:
    bench.generation = 1
    bench.begin()
    bench.tell(MembersChanged((row("far", State.ALIVE), row("gone", State.DEAD))))
    bench.write()
    bench.tell(checkpoint(marks=b"m" * 24))
    bench.write()

    begin = bench.begin()

    assert [member.node_id for member in begin.members] == ["far"]
    assert begin.marks == b"m" * 24


def test_a_store_that_refuses_is_asked_again_with_all_that_happened_meanwhile(bench: Bench) -> None:
    bench.generation = 1
    bench.begin()
    bench.tell(MembersChanged((row("a", State.SUSPECT), row("b", State.ALIVE)), (), ("c",)))
    asked = bench.order()
    bench.tell(MembersChanged((row("a", State.DEAD),)))
    asked.reply.fail(StoreBusyError(5_000))
    bench.settle()

    bench.tell(checkpoint())
    wanted = bench.write()

    assert {one.node_id: State(one.shown) for one in wanted.changed} == {"a": State.DEAD, "b": State.ALIVE}
    assert wanted.pruned == ("c",)


def test_a_start_that_the_store_refused_is_begun_when_it_is_asked_for_again(bench: Bench) -> None:
    bench.generation = 1
    bench.tell(GossipUp(WHERE))
    bench.order().reply.fail(StoreBusyError(5_000))
    bench.settle()
    assert not bench.told()

    assert bench.begin().generation == 1


def test_a_change_is_recorded_when_it_is_on_the_disk_and_ours(bench: Bench) -> None:
    bench.generation = 1
    bench.begin()
    bench.tell(MembersChanged((row("far", State.ALIVE),)))
    bench.write()
    bench.tell(MembersChanged((row("far", State.DEAD),)))
    asked = bench.order()
    assert len(bench.bodies) == 1

    bench.write(asked)

    last = bench.bodies[-1]
    assert (last["action"], last["resource"], last["result"]) == ("membership.state", "node/far", "dead")
    assert last["details"] == {
        "previous_status": "ALIVE",
        "current_status": "DEAD",
        "address": "127.0.0.1:9",
        "generation": 3,
        "observer": "me",
    }


def test_a_change_that_another_node_wrote_first_is_recorded_by_that_one(bench: Bench) -> None:
    bench.generation = 1
    bench.begin()
    bench.tell(MembersChanged((row("far", State.ALIVE),)))
    bench.write()
    with bench.database.write():
        bench.database.conn.execute("UPDATE mesh_nodes SET status='DEAD'")

    bench.tell(MembersChanged((row("far", State.DEAD),)))
    bench.write()

    assert len(bench.bodies) == 1


def test_a_recovery_that_is_held_back_is_recorded_and_counted(bench: Bench) -> None:
    bench.generation = 1
    bench.begin()

    bench.tell(MembersChanged((row("far", State.DEAD, State.ALIVE),), (row("far", State.DEAD, State.ALIVE),)))
    wanted = bench.write()

    (held,) = [body for body in bench.bodies if body["action"] == "membership.recovery.suppressed"]
    assert (held["resource"], held["result"]) == ("node/far", "suppressed")
    assert held["details"]["previous_status"] == held["details"]["current_status"] == "DEAD"
    assert wanted.counters == (("membership_recovery_suppressed", 1),)


def test_a_node_that_is_alone_writes_nothing(bench: Bench) -> None:
    bench.generation = 1
    bench.begin()

    bench.tell(checkpoint())

    assert bench.asks_nothing()


def test_all_rows_are_put_right_in_turn_however_many_members_there_are(bench: Bench) -> None:
    bench.generation = 1
    bench.begin()
    names = [f"n{number}" for number in range(SHOWN_MAX + 10)]
    bench.tell(MembersChanged(tuple(row(name, State.ALIVE) for name in names)))
    bench.write()

    seen: set[str] = set()
    for _ in range(2):
        bench.tell(checkpoint())
        shown = bench.write().shown
        assert len(shown) == SHOWN_MAX
        seen |= {node_id for node_id, _ in shown}

    assert seen == set(names)


def test_at_an_orderly_end_the_last_word_is_written(bench: Bench) -> None:
    bench.generation = 1
    bench.begin()
    left = MemberRow("me", WHERE, 1, 0, int(State.LEFT), int(State.LEFT))
    assert bench.address.tell(checkpoint(own=left))

    bench.actor.finish()
    assert bench.actor.wait_ended(PATIENCE_S)

    asked = bench.order()
    wanted = codec.decode(asked.data)
    assert isinstance(wanted, WriteMembers) and wanted.own == left
