"""What an ObserverActor writes, asks of the store, and tells; with a clock that is set, on a real database."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.address import Address
from actors.measure import Measures
from actors.observer import FIRST_NS, TICK_NS, ObserverActor
from actors.reply import Asked
from actors.store_needs import NodeFacts
from relaymesh.core.alert import Phase
from relaymesh.core.retry import RetryPolicy
from relaymesh.core.slo import Levels
from relaymesh.store.alert import load_alerts, recent_changes, save_alerts
from relaymesh.store.counter import counters
from relaymesh.store.lease_report import hourly_path
from relaymesh.store.node_report import read_reports
from relaymesh.store.store import Store
from relaymesh.wire import codec
from relaymesh.wire.kernel import Ping
from relaymesh.wire.node_report import NodeReport
from relaymesh.wire.store import WriteAlerts
from tests.actors.fakes import PATIENCE_S, ManualTimers

NOW_MS = 1_700_000_000_000


class Desk:
    """An ObserverActor; the test is its store, and answers when it likes."""

    def __init__(self, root: Path, node_id: str = "n1") -> None:
        self.root = root
        self.timers = ManualTimers()
        self.store, self.address = Address("store"), Address("observer")
        self.writes = Store.open(root, now_ms=NOW_MS)
        self.free_bytes_min = 0
        self.node_id = node_id
        facts = NodeFacts(
            root=root,
            namespace="default",
            node_id=node_id,
            host="elsewhere",
            pid=1,
            agents="{}",
            pools={},
            limits={},
            policy_of=lambda _: RetryPolicy(),
        )
        self.actor = ObserverActor(facts, self, self.timers, self.store)
        self.actor.launch(self.address)
        assert self.actor.wait_up(PATIENCE_S)

    def now_ms(self) -> int:
        return NOW_MS + self.timers.now_ns() // 1_000_000

    def report(self) -> NodeReport:
        return Measures().report({}, {}, node_id=self.node_id, host="elsewhere", pid=1, now_ms=self.now_ms())

    def targets(self) -> Levels:
        return Levels(1_000, 1_000, 1_000, 10, 1_000)

    def min_free_disk_bytes(self) -> int:
        return self.free_bytes_min

    def waiting_task(self) -> None:
        """A step that is ready, and that nobody takes: the queue lags."""
        with self.writes.write():
            conn = self.writes.conn
            conn.execute(
                "INSERT INTO tasks(task_id, status, created_at_ms, updated_at_ms) VALUES ('t', 'PENDING', ?1, ?1)",
                (NOW_MS,),
            )
            conn.execute(
                "INSERT INTO steps(step_id, task_id, agent_id, status, created_at_ms, updated_at_ms)"
                " VALUES ('s', 't', 'echo', 'PENDING', ?1, ?1)",
                (NOW_MS,),
            )

    def tick(self, by_ns: int = TICK_NS) -> list[tuple[WriteAlerts, Asked]]:
        """One look; return what the store was asked."""
        self.timers.advance(by_ns)
        assert self.address.ask(Ping(), PATIENCE_S) is True
        found = []
        while self.store.depth:
            mail = self.store.mailbox.queue.get_nowait()
            assert isinstance(mail, Asked)
            message = codec.decode(mail.data)
            assert isinstance(message, WriteAlerts)
            found.append((message, mail))
        return found

    def commit(self, order: tuple[WriteAlerts, Asked]) -> None:
        """Be the store: write what was asked, and answer."""
        message, mail = order
        with self.writes.write():
            taken = save_alerts(
                self.writes.conn,
                message.states,
                over_version=message.over_version,
                fired=message.fired,
                now_ms=self.now_ms(),
            )
        mail.reply.answer(taken)

    def run(self, looks: int) -> None:
        for _ in range(looks):
            for order in self.tick():
                self.commit(order)

    def end(self) -> None:
        self.actor.halt()
        assert self.actor.wait_ended(PATIENCE_S)
        self.writes.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.end()


def test_the_report_is_there_soon_after_the_start_and_gone_after_the_end(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.tick(FIRST_NS)

    assert [report.node_id for report in read_reports(tmp_path / "run", now_ms=desk.now_ms())] == ["n1"]

    desk.end()
    assert read_reports(tmp_path / "run", now_ms=NOW_MS) == []


def test_a_root_where_all_is_well_is_not_written_to(desk: Desk) -> None:
    assert [desk.tick() for _ in range(20)] == [[]] * 20


def test_a_queue_that_lags_for_the_sustain_window_fires_one_alert_with_counter_record_and_audit(desk: Desk) -> None:
    desk.waiting_task()

    desk.run(20)

    states = load_alerts(desk.writes.conn).states
    assert {name for name, state in states.items() if state.phase is Phase.FIRING} == {"queue_lag"}
    assert counters(desk.writes.conn)["slo_alert_fire"] == 1
    assert [(line["rule"], line["event"]) for line in recent_changes(desk.root, 10)] == [("queue_lag", "fired")]
    rows = [json.loads(line) for line in (desk.root / "audit" / "audit.log").read_text().splitlines()]
    told = [(row["action"], row["actor"], row["result"]) for row in rows if row["action"] != "lease.report.generate"]
    assert told == [("slo.evaluate", "runtime", "alert")]


def test_it_is_over_once_the_queue_has_been_empty_for_the_recovery_window(desk: Desk) -> None:
    desk.waiting_task()
    desk.run(10)
    with desk.writes.write():
        desk.writes.conn.execute("UPDATE steps SET status='CANCELLED'")

    desk.run(20)

    assert [line["event"] for line in recent_changes(desk.root, 10)] == ["recovered", "fired"]
    assert desk.tick() == []


def test_a_change_that_the_store_did_not_take_is_told_by_nobody(desk: Desk) -> None:
    desk.waiting_task()
    desk.run(6)
    refused = []

    for _ in range(5):
        for message, mail in desk.tick():
            refused.append(message.fired)
            mail.reply.answer(False)

    assert refused == [1] * 5
    assert recent_changes(desk.root, 10) == []


def test_while_the_store_stands_still_no_second_write_is_asked_for(desk: Desk) -> None:
    desk.waiting_task()

    asked = [len(desk.tick()) for _ in range(5)]

    assert asked == [1, 0, 0, 0, 0]


def test_of_two_nodes_one_tells_of_the_alert(tmp_path: Path) -> None:
    first, second = Desk(tmp_path, "n1"), Desk(tmp_path, "n2")
    first.waiting_task()

    for _ in range(20):
        # Both look at the same moment, and then both ask.
        orders = [(first, order) for order in first.tick()] + [(second, order) for order in second.tick()]
        for desk, order in orders:
            desk.commit(order)

    assert [line["event"] for line in recent_changes(tmp_path, 10)] == ["fired"]
    assert counters(first.writes.conn)["slo_alert_fire"] == 1
    first.end()
    second.end()


def test_a_short_disk_is_an_alert(desk: Desk) -> None:
    desk.free_bytes_min = 1 << 60

    desk.run(5)

    assert [(line["rule"], line["severity"]) for line in recent_changes(desk.root, 10)] == [
        ("disk_pressure", "critical")
    ]


def test_an_alert_is_logged_with_its_rule(desk: Desk, caplog) -> None:
    desk.waiting_task()

    with caplog.at_level(logging.INFO, "relaymesh.alerts"):
        desk.run(20)

    (record,) = [record for record in caplog.records if record.name == "relaymesh.alerts"]
    assert (record.levelno, record.rule) == (logging.WARNING, "queue_lag")
    assert "queue_lag fired" in record.getMessage()


def test_a_node_writes_the_report_of_lease_conflicts_once_an_hour(desk: Desk) -> None:
    desk.tick()
    first = hourly_path(desk.root, desk.now_ms())
    written_ns = first.stat().st_mtime_ns
    desk.tick()
    assert first.stat().st_mtime_ns == written_ns

    desk.tick(3_600_000_000_000)

    assert hourly_path(desk.root, desk.now_ms()).exists()
    assert len(list(first.parent.glob("lease-conflicts-*.json"))) == 2
