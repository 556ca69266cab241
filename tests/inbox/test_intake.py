"""Taking in files on a real root: what the database does not answer, what the disk refuses, and any bytes at all."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaymesh.audit import AuditTrail
from relaymesh.core.ident import Ids
from relaymesh.inbox import intake as module
from relaymesh.inbox.delivery import OPEN_MAX
from relaymesh.inbox.intake import Intake
from relaymesh.store.inbox_files import FileOps, InboxFiles
from tests.store.bench import NOON, Bench

SECOND = 1_000_000_000
LONG_AGO = (1_000_000_000, 1_000_000_000)


class Picky(FileOps):
    """The real calls; ``refuses`` says which of them the disk does not take, by the target's name."""

    def __init__(self) -> None:
        self.refuses = ""

    def rename(self, source: str, target: str) -> None:
        self._check(target)
        super().rename(source, target)

    def write_new(self, path: str, data: bytes) -> None:
        self._check(path)
        super().write_new(path, data)

    def link(self, source: str, target: str) -> None:
        self._check(target)
        super().link(source, target)

    def _check(self, path: str) -> None:
        if self.refuses and self.refuses in path:
            raise OSError(errno.ENOSPC, "no space left on device")


class Desk:
    """A root, its database, and an intake whose commits the test makes."""

    def __init__(self, root: Path, owner: str = "n1") -> None:
        self.root = root
        self.bench = Bench(root)
        self.ops = Picky()
        self.passed_ns = 0
        self.ids = Ids(lambda: NOON, random.Random(owner))
        self.intake = self.new_intake(owner)

    def new_intake(self, owner: str = "n1", open_max: int = OPEN_MAX) -> Intake:
        files = InboxFiles(self.root, owner, self.ops)
        return Intake(files, self.bench.store, self, AuditTrail(self.root), open_max=open_max)

    def now_ms(self) -> int:
        return NOON + self.passed_ns // 1_000_000

    def mono_ns(self) -> int:
        return self.passed_ns

    def new_ticket(self) -> str:
        return self.ids.task()

    def known_agents(self) -> Iterable[str]:
        return ["echo", "other"]

    def drop(self, name: str = "a.json", data: bytes | None = None, lane: str = "normal", **more: object) -> None:
        if data is None:
            data = json.dumps({"agent": "echo", "input": "x", **more}).encode()
        path = self.root / "inbox" / lane / name
        path.write_bytes(data)
        os.utime(path, LONG_AGO)

    def take_in(self, intake: Intake | None = None) -> None:
        intake = intake or self.intake
        intake.look()
        while intake.has_more():
            batch = intake.batch()
            if batch.entries:
                intake.committed(batch, self.bench.submit(*batch.tasks))
        while intake.deliver():
            continue

    def run(self) -> None:
        self.take_in()
        self.bench.run_all()
        self.intake.changed()
        self.take_in()

    def tasks(self) -> list[str]:
        return [str(row["idempotency_key"]) for row in self.bench.rows("SELECT idempotency_key FROM tasks ORDER BY id")]

    def names(self, folder: str) -> list[str]:
        return sorted(name for _, _, names in os.walk(self.root / folder) for name in names)

    def reason(self, name: str) -> dict[str, object]:
        read: dict[str, object] = json.loads((self.root / "dead" / f"{name}.reason.json").read_bytes())
        return read

    def audit(self) -> list[tuple[object, object, object]]:
        log = self.root / "audit" / "audit.log"
        rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [(row["action"], row["actor"], row["result"]) for row in rows]

    def close(self) -> None:
        self.bench.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "root")
    yield desk
    desk.close()


# From the lane to the answer ------------------------------------------------------------------------------------------


def test_a_file_becomes_a_task_of_its_lane_with_all_that_it_says(desk: Desk) -> None:
    desk.drop("a.json", lane="high", idempotencyKey="k", delayMs=5, expiresInMs=9, labels={"x": "y"}, priority="HIGH")

    desk.take_in()

    (task,) = desk.bench.rows("SELECT * FROM tasks")
    (step,) = desk.bench.rows("SELECT * FROM steps")
    assert (task["idempotency_key"], task["expires_at_ms"], task["labels"]) == ("k", NOON + 9, '{"x": "y"}')
    assert (step["priority"], step["not_before_ms"], step["payload"]) == ("HIGH", NOON + 5, "x")
    assert desk.audit() == [("task.submit", "inbox", "submitted")]


def test_a_file_brings_the_budget_of_its_task_and_a_wrapper_beats_its_workflow(desk: Desk) -> None:
    flow = {"steps": [{"id": "a", "agent": "echo", "input": ""}], "budget": {"wall_seconds": 9, "units:tokens": 5}}
    desk.drop("a.json", budget={"units:tokens": 1.5})
    desk.drop("b.json", json.dumps({"workflow": flow, "budget": {"units:tokens": "7"}}).encode())

    desk.take_in()

    found = [
        (row["idempotency_key"], row["kind"], row["amount"])
        for row in desk.bench.rows(
            "SELECT t.idempotency_key, b.kind, b.amount FROM budgets b JOIN tasks t ON t.task_id=b.name"
            " WHERE b.scope='task' ORDER BY 1, 2"
        )
    ]
    assert found == [
        ("a.json", "units:tokens", 1_500_000),
        ("b.json", "units:tokens", 7_000_000),
        ("b.json", "wall_seconds", 9_000_000),
    ]


def test_lanes_take_turns_and_a_lane_goes_by_name(desk: Desk) -> None:
    for lane, name in itertools.product(("low", "high"), ("2", "1", "3")):
        desk.drop(f"{lane}{name}", lane=lane)

    desk.take_in()

    assert desk.tasks() == ["high1", "low1", "high2", "low2", "high3", "low3"]


def test_a_second_file_of_a_key_gets_the_result_of_the_first(desk: Desk) -> None:
    desk.drop("a.json", idempotencyKey="k")
    desk.take_in()
    desk.drop("b.json", idempotencyKey="k", input="something else")
    desk.run()

    assert desk.tasks() == ["k"]
    results = [json.loads(path.read_bytes()) for path in (desk.root / "done").rglob("*.result.json")]
    assert {(result["file"], result["deduplicated"]) for result in results} == {("a.json", False), ("b.json", True)}
    assert len({result["taskId"] for result in results}) == 1
    assert desk.audit()[1] == ("task.submit", "inbox", "deduplicated")


def test_a_refused_file_uses_up_no_key(desk: Desk) -> None:
    desk.drop("a.json", agent="nobody")
    desk.take_in()
    desk.drop("a.json")
    desk.run()

    assert desk.names("dead") == ["a.json", "a.json.reason.json"]
    assert "a.json" in desk.names("done")
    assert desk.audit()[0] == ("inbox.refuse", "inbox", "unknown_agent")


def test_a_task_that_is_gone_when_its_file_is_looked_at_is_not_made_again(desk: Desk) -> None:
    desk.drop()
    desk.take_in()
    for table in ("steps", "tasks"):
        desk.bench.store.conn.execute(f"DELETE FROM {table}")

    desk.take_in(desk.new_intake())
    fresh = desk.new_intake()
    fresh.recover()
    desk.take_in(fresh)

    assert desk.tasks() == []
    assert desk.reason("a.json")["code"] == "task_gone"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({"agent": "echo", "input": "x", "priority": "urgent"}, "bad_priority"),
        ({"agent": "echo", "input": "x", "priority": "low"}, "priority_conflict"),
        ({"agent": "echo", "input": "x", "atMs": 2**60}, "bad_time"),
        ({"agent": "echo", "input": "x", "labels": {"": "y"}}, "bad_labels"),
        ({"agent": "echo", "input": "x", "budget": {"tokens": 5}}, "bad_budget"),
        ({"agent": "echo", "input": "x" * 10_485_761}, "payload_too_large"),
        ({"steps": [], "priority": "high"}, "priority_conflict"),
        ({"workflow": {"steps": [{"id": "a", "agent": "echo", "input": "", "priority": "x"}]}}, "bad_priority"),
    ],
)
def test_what_a_submit_refuses_is_refused_here_with_the_same_code(
    desk: Desk, data: dict[str, object], code: str
) -> None:
    desk.drop("a.json", json.dumps(data).encode())
    desk.drop("b.json")

    desk.take_in()

    assert desk.reason("a.json")["code"] == code
    assert desk.tasks() == ["b.json"]


# Whose fate is not known ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [True, False])
def test_a_batch_without_an_answer_is_looked_up_before_it_is_tried_again(desk: Desk, stored: bool) -> None:
    desk.drop()
    desk.intake.look()
    batch = desk.intake.batch()
    if stored:
        desk.bench.submit(*batch.tasks)

    desk.intake.uncertain(batch)
    desk.run()

    assert desk.tasks() == ["a.json"]
    assert desk.names("done") == ["a.json", "a.json.result.json"]


def test_a_batch_that_comes_through_after_it_was_given_up_makes_no_second_task(desk: Desk) -> None:
    desk.drop()
    desk.intake.look()
    late = desk.intake.batch()
    desk.intake.uncertain(late)
    again = desk.intake.batch()

    desk.bench.submit(*late.tasks)
    desk.intake.committed(again, desk.bench.submit(*again.tasks))
    desk.run()

    assert late.tasks[0].task_id != again.tasks[0].task_id  # a ticket is shown once
    assert desk.tasks() == ["a.json"]
    assert desk.names("done") == ["a.json", "a.json.result.json"]


def test_what_a_dead_owner_held_is_taken_over_and_its_folder_removed(desk: Desk) -> None:
    for name in ("a.json", "b.json", "c.json"):
        desk.drop(name)
    gone = desk.new_intake("gone")
    gone.look()
    batch = gone.batch()
    results = desk.bench.submit(*batch.tasks[:2])  # of the third nothing is known; of the second it is not marked
    gone.committed(module.Batch(batch.entries[:1]), results[:1])

    assert desk.intake.adopt(lambda owner: owner == "gone") == 3
    desk.run()

    assert sorted(desk.tasks()) == ["a.json", "b.json", "c.json"]
    assert len(desk.names("done")) == 6
    assert not (desk.root / "processing" / "gone").exists()


def test_a_live_owner_keeps_its_files(desk: Desk) -> None:
    desk.drop()
    other = desk.new_intake("other")
    other.look()
    other.batch()

    assert desk.intake.adopt(lambda _: False) == 0
    assert len(desk.names("processing/other")) == 1


def test_files_beyond_those_that_are_watched_are_answered_all_the_same(
    desk: Desk,
) -> None:
    desk.intake = desk.new_intake(open_max=4)
    for number in range(11):
        desk.drop(f"{number:02}")
    desk.take_in()

    for _ in range(5):
        desk.run()

    assert len(desk.names("done")) == 22


# What the disk refuses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refuses", ["processing", "~normal~bad", "done", "dead", ".tmp", ".json.result"])
def test_a_full_disk_loses_nothing_and_is_tried_again(desk: Desk, refuses: str) -> None:
    desk.drop("good.json")
    desk.drop("bad.json", b"{")
    desk.ops.refuses = refuses
    desk.take_in()
    desk.run()

    assert desk.intake.trouble() is not None
    desk.ops.refuses = ""
    desk.passed_ns += 60 * SECOND
    desk.take_in()
    desk.run()

    assert desk.tasks() == ["good.json"]
    assert desk.names("done") == ["good.json", "good.json.result.json"]
    assert desk.names("dead") == ["bad.json", "bad.json.reason.json"]


def test_one_file_that_the_disk_refuses_does_not_hold_up_the_others(desk: Desk) -> None:
    for name in ("a.json", "b.json", "c.json"):
        desk.drop(name)
    desk.ops.refuses = "b.json"

    desk.take_in()
    desk.run()

    assert desk.tasks() == ["a.json", "c.json"]
    assert desk.names("done") == ["a.json", "a.json.result.json", "c.json", "c.json.result.json"]


# Any bytes, any name --------------------------------------------------------------------------------------------------

names = st.binary(min_size=1, max_size=60).filter(
    lambda name: not set(name) & set(b"/\0") and name not in (b".", b"..")
)
contents = st.binary(max_size=60) | st.just(b'{"agent": "echo", "input": ""}')


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(names, contents, min_size=1, max_size=8))
def test_whatever_is_dropped_is_taken_refused_or_left_and_never_in_the_way(
    tmp_path_factory: pytest.TempPathFactory, files: dict[bytes, bytes]
) -> None:
    desk = Desk(tmp_path_factory.mktemp("any") / "root")
    lane = os.fsencode(desk.root / "inbox" / "normal")
    for name, data in files.items():
        with open(os.path.join(lane, name), "wb") as file:
            file.write(data)
        os.utime(os.path.join(lane, name), LONG_AGO)
    desk.drop("zzz-last.json", lane="low")

    desk.take_in()
    desk.run()

    assert "zzz-last.json" in desk.tasks()
    assert desk.names("processing") == []
    left = os.listdir(lane)
    assert all(name.startswith(b".") or name.endswith((b".tmp", b".part", b".meta.json")) for name in left)
    answered = [*desk.names("done"), *desk.names("dead")]
    assert len(answered) == 2 * (len(files) - len(left) + 1)
    desk.close()
