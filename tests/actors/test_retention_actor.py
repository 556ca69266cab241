"""What a node removes by itself: piece by piece, by the ages in the settings, one node at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.address import Address
from actors.retention import FIRST_NS, GUARD, OFF_NS, RetentionActor
from actors.store_needs import NodeFacts
from actors.timer import Target, Timer
from relaymesh.audit import AuditTrail
from relaymesh.audit.verify import verify
from relaymesh.core.retention import ROWS_FIRST
from relaymesh.core.retry import RetryPolicy
from relaymesh.file_lock import Hold, holding
from relaymesh.settings import load_settings
from relaymesh.wire.codec import Message
from relaymesh.wire.kernel import Ping
from tests.actors.fakes import PATIENCE_S, ManualTimers
from tests.store.bench import NOON, Bench

DAY = 86_400_000
MANY = 3 * ROWS_FIRST


class CountingTimers(ManualTimers):
    """Timers that know how many pieces were put off."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces = 0

    def after(self, delay_ns: int, target: Target, message: Message, *, key: str) -> Timer:
        self.pieces += key == "piece"
        return super().after(delay_ns, target, message, key=key)


class Desk:
    """A RetentionActor on a root with tasks that ended at noon, eight days later."""

    def __init__(self, root: Path, **settings: object) -> None:
        self.root = root
        self.bench = Bench(root)
        self.bench.submit(*(self.bench.new_task(key=str(number)) for number in range(MANY)))
        self.bench.run_all()
        self.set(**settings)
        self.timers = CountingTimers()
        self.address = Address("retention")
        self._now_ms = NOON + 8 * DAY
        facts = NodeFacts(
            root=root,
            namespace="default",
            node_id="node-1",
            host="here",
            pid=1,
            agents="{}",
            pools={},
            limits={},
            policy_of=lambda _: RetryPolicy(),
        )
        self.actor = RetentionActor(facts, self, self.timers, load_settings(root))
        self.actor.launch(self.address)
        assert self.actor.wait_up(PATIENCE_S)

    def now_ms(self) -> int:
        return self._now_ms

    def set(self, **settings: object) -> None:
        (self.root / "relaymesh-settings.json").write_text(json.dumps(settings))

    def settled(self) -> None:
        """Return when the actor has handled everything that was sent to it."""
        assert self.address.ask(Ping(), PATIENCE_S) is True

    def pass_ns(self, ns: int) -> None:
        self.timers.advance(ns)
        self.settled()

    @property
    def tasks(self) -> int:
        (row,) = self.bench.rows("SELECT count(*) AS n FROM tasks")
        return int(str(row["n"]))

    def rows(self) -> list[dict[str, object]]:
        log = self.root / "audit" / "audit.log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture
def desks(tmp_path: Path) -> Iterator[list[Desk]]:
    made: list[Desk] = []
    yield made
    for desk in made:
        desk.actor.halt()
        assert desk.actor.wait_ended(PATIENCE_S)
        desk.bench.close()


def desk_of(desks: list[Desk], tmp_path: Path, **settings: object) -> Desk:
    desks.append(Desk(tmp_path / "root", **settings))
    return desks[-1]


def test_a_round_begins_soon_after_the_start_and_goes_on_in_pieces(desks: list[Desk], tmp_path: Path) -> None:
    desk = desk_of(desks, tmp_path)
    assert desk.tasks == MANY

    desk.pass_ns(FIRST_NS)
    for _ in range(50):
        desk.pass_ns(1_000_000_000)

    assert desk.tasks == 0
    assert desk.timers.pieces >= 4  # the keys in two or more, and so the tasks


def test_a_round_leaves_one_row_in_the_audit_log_and_one_that_finds_nothing_none(
    desks: list[Desk], tmp_path: Path
) -> None:
    desk = desk_of(desks, tmp_path, retentionIntervalMs=60_000)
    desk.pass_ns(FIRST_NS)
    for _ in range(400):
        desk.pass_ns(1_000_000_000)

    (row,) = desk.rows()
    assert (row["action"], row["actor"]) == ("storage.purge", "node-1")
    details = row["details"]
    assert isinstance(details, dict)
    assert (details["tasks"], details["idempotency_rows_purged"]) == (MANY, MANY)


def test_an_age_of_nought_keeps_things_for_ever(desks: list[Desk], tmp_path: Path) -> None:
    desk = desk_of(desks, tmp_path, doneRetentionMs=0)
    desk.pass_ns(FIRST_NS)
    for _ in range(50):
        desk.pass_ns(1_000_000_000)

    assert desk.tasks == MANY
    assert desk.bench.rows("SELECT count(*) AS n FROM tasks WHERE key_live=1") == [{"n": 0}]


def test_without_an_interval_nothing_goes_until_the_settings_have_changed(desks: list[Desk], tmp_path: Path) -> None:
    desk = desk_of(desks, tmp_path, retentionIntervalMs=0)
    for _ in range(20):
        desk.pass_ns(FIRST_NS)
    assert desk.tasks == MANY and desk.rows() == []

    desk.set(retentionIntervalMs=60_000)
    desk.pass_ns(OFF_NS)
    for _ in range(50):
        desk.pass_ns(1_000_000_000)
    assert desk.tasks == 0


def test_while_another_node_does_a_round_this_one_waits_for_its_next(desks: list[Desk], tmp_path: Path) -> None:
    desk = desk_of(desks, tmp_path, retentionIntervalMs=60_000)
    with holding(desk.root / "run" / GUARD, Hold.EXCLUSIVE):
        for _ in range(20):
            desk.pass_ns(1_000_000_000)
        assert desk.tasks == MANY

    for _ in range(120):
        desk.pass_ns(1_000_000_000)
    assert desk.tasks == 0


def test_a_settings_file_that_is_broken_meanwhile_keeps_the_old_ages(desks: list[Desk], tmp_path: Path) -> None:
    desk = desk_of(desks, tmp_path, doneRetentionMs=0)
    (desk.root / "relaymesh-settings.json").write_text("{broken")

    desk.pass_ns(FIRST_NS)
    for _ in range(50):
        desk.pass_ns(1_000_000_000)

    assert desk.tasks == MANY


def test_old_segments_of_the_audit_log_go_one_a_piece_and_the_rest_still_verifies(
    desks: list[Desk], tmp_path: Path
) -> None:
    at_ms = [NOON]
    trail = AuditTrail(tmp_path / "root", segment_bytes=1, now_ms=lambda: at_ms[0])
    desk = desk_of(desks, tmp_path, auditSegmentRetentionMs=3 * DAY, doneRetentionMs=0, idempotencyKeyRetentionMs=0)
    for _ in range(8):
        trail.record("a", actor="cli", resource="r", result="ok")
        at_ms[0] += DAY
    trail.pack()

    desk.pass_ns(FIRST_NS)
    for _ in range(50):
        desk.pass_ns(1_000_000_000)

    left = sorted(path.name for path in trail.place.segments.glob("*.gz"))
    assert left == ["audit-00000006.jsonl.gz", "audit-00000007.jsonl.gz"]
    assert desk.timers.pieces >= 5
    assert verify(trail.place).reason == ""
    (purged,) = [row for row in desk.rows() if row["action"] == "storage.purge"]
    assert purged["details"]["audit_segments"] == 5  # type: ignore[index]


def test_an_age_of_nought_keeps_the_audit_log_for_ever(desks: list[Desk], tmp_path: Path) -> None:
    trail = AuditTrail(tmp_path / "root", segment_bytes=1, now_ms=lambda: 1_000)
    desk = desk_of(desks, tmp_path, auditSegmentRetentionMs=0)
    for _ in range(3):
        trail.record("a", actor="cli", resource="r", result="ok")
    trail.pack()

    desk.pass_ns(FIRST_NS)
    for _ in range(20):
        desk.pass_ns(1_000_000_000)

    assert len(list(trail.place.segments.glob("*.gz"))) == 2
