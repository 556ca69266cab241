"""Files wait in their lanes while the admission gate is shut, and are taken in when it opens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaymesh import inbox_gate
from relaymesh.audit import AuditTrail
from relaymesh.core.admission import MINUTE_MS
from relaymesh.inbox.intake import Intake
from relaymesh.inbox_gate import InboxGate, explain_file, files_waiting, why_shut
from relaymesh.store.inbox_files import InboxFiles
from tests.inbox.test_intake import SECOND, Desk
from tests.store.bench import NOON


class Gated(Desk):
    """A desk whose intake goes by the settings of its root."""

    def gated(self) -> None:
        gate = InboxGate(self.bench.store, self.now_ms, self.mono_ns)
        files = InboxFiles(self.root, "n1", self.ops)
        self.intake = Intake(files, self.bench.store, self, AuditTrail(self.root), gate=gate)

    def settings(self, **keys: object) -> None:
        (self.root / "relaymesh-settings.json").write_text(json.dumps(keys), encoding="utf-8")
        self.passed_ns += 2 * SECOND  # the gate looks at them again

    def why(self) -> str | None:
        with self.bench.store.reading():
            shut = why_shut(self.bench.store.conn, self.root, now_ms=self.now_ms())
        return None if shut is None else shut.code


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Gated]:
    desk = Gated(tmp_path / "root")
    desk.gated()
    yield desk
    desk.close()


def test_files_beyond_the_depth_stay_in_their_lane_and_follow_when_steps_have_ended(desk: Gated) -> None:
    desk.settings(maxIngressQueueDepth=2)
    for name in "abc":
        desk.drop(name)

    desk.take_in()
    at_first, left, why = desk.tasks(), desk.names("inbox"), desk.why()
    desk.bench.run_all()
    desk.take_in()

    assert (at_first, left, why) == (["a", "b"], ["c"], "queue_depth_limit")
    assert desk.tasks() == ["a", "b", "c"]
    assert desk.names("dead") == []


def test_defaults_that_nobody_set_hold_no_file_back(desk: Gated) -> None:
    for number in range(300):  # more than submitRateLimitPerMin
        desk.drop(f"f{number:03}")

    desk.take_in()

    assert len(desk.tasks()) == 300
    assert desk.why() is None


def test_the_rate_counts_files_in_the_minute_of_the_root_and_gives_back_what_no_file_used(desk: Gated) -> None:
    desk.settings(submitRateLimitPerMin=3)
    desk.drop("a0", b'{"agent": "nobody", "input": ""}')  # refused: it takes nobody's place
    for number in range(1, 6):
        desk.drop(f"a{number}")

    desk.take_in()
    desk.take_in()
    at_first, why = desk.tasks(), desk.why()
    desk.passed_ns += MINUTE_MS * 1_000_000
    desk.take_in()

    assert (at_first, why) == (["a1", "a2", "a3"], "submit_rate_limit")
    assert desk.tasks() == ["a1", "a2", "a3", "a4", "a5"]


def test_a_workflow_counts_with_all_its_steps(desk: Gated) -> None:
    desk.settings(maxIngressQueueDepth=3)
    steps = [{"id": f"s{number}", "agent": "echo", "input": ""} for number in range(3)]
    desk.drop("a.json", json.dumps({"steps": steps}).encode())
    desk.drop("b.json")

    desk.take_in()

    assert desk.tasks() == ["a.json"]
    assert desk.names("inbox") == ["b.json"]


def test_what_is_on_its_way_to_the_commit_takes_up_room(desk: Gated) -> None:
    desk.settings(maxIngressQueueDepth=2)
    for name in "ab":
        desk.drop(name)
    desk.intake.look()
    on_the_way = desk.intake.batch()
    desk.drop("c")
    desk.intake.look()

    beside = desk.intake.batch()
    desk.intake.uncertain(on_the_way)

    assert (len(on_the_way.entries), len(beside.entries)) == (2, 0)
    assert desk.intake.has_more()


def test_a_disk_that_is_short_of_room_holds_files_back_until_there_is_some(
    desk: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [5]
    monkeypatch.setattr(inbox_gate, "free_disk_bytes", lambda _root: free[0])
    desk.settings(minFreeDiskBytes=10)
    desk.drop("a")

    desk.take_in()
    while_short = desk.tasks(), desk.names("inbox"), desk.why()
    free[0] = 10
    desk.passed_ns += 2 * SECOND
    desk.take_in()

    assert while_short == ([], ["a"], "disk_pressure")
    assert (desk.tasks(), desk.why()) == (["a"], None)


def test_a_bad_settings_file_keeps_the_bounds_that_held(desk: Gated) -> None:
    desk.settings(maxIngressQueueDepth=1)
    desk.drop("a")
    desk.take_in()
    (desk.root / "relaymesh-settings.json").write_text("{", encoding="utf-8")
    desk.passed_ns += 2 * SECOND
    desk.drop("b")

    desk.take_in()

    assert desk.tasks() == ["a"]


def test_a_file_is_explained_by_its_name(desk: Gated) -> None:
    desk.settings(maxIngressQueueDepth=1)
    for name in ("a.json", "b.json"):
        desk.drop(name, lane="low")
    desk.take_in()
    conn = desk.bench.store.conn

    with desk.bench.store.reading():
        held = explain_file(conn, desk.root, "b.json", now_ms=NOON, nodes=1)
        none = [explain_file(conn, desk.root, name, now_ms=NOON, nodes=1) for name in ("a.json", "../low/b.json", "")]
        desk.settings()
        alone = explain_file(conn, desk.root, "b.json", now_ms=NOON, nodes=0)

    assert held is not None and alone is not None
    assert (held.step_id, held.reason) == ("inbox/low/b.json", "queue_depth_limit")
    assert "raise maxIngressQueueDepth" in held.detail
    assert (alone.reason, alone.command) == ("no_node", "relaymesh up")
    assert none == [None, None, None]
    assert files_waiting(desk.root) == {"high": 0, "normal": 0, "low": 1}
