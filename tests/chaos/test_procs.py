"""What real roots say as a history, and what the command makes of it. Processes: tests/integration/test_links.py."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from chaos.checker import Broken, check
from chaos.cli import chaos
from chaos.history import read
from chaos.procs import run as runner
from chaos.procs.record import Record, Root
from chaos.sim.scenario import BadScenarioError, Fault, Scenario, Work
from relaymesh.client import Client

LEASE_MS = 3_000


class Recorded:
    """A root with one step, and what is recorded of it."""

    def __init__(self, folder: Path, *nodes: str) -> None:
        with Client(folder) as client:
            client.init()
        self.record = Record(LEASE_MS)
        self.root = Root("store", folder, self.record, nodes)
        with Client(folder) as client:
            task = client.submit("echo", "x").task_id
        self.step = self.root.step_of(task)
        self.record.note("store", "submit", {"step": self.step})
        self.conn = sqlite3.connect(folder / "relaymesh.db", isolation_level=None)

    def step_is(self, status: str, owner: str | None, le: int, result: str | None = None) -> None:
        sql = "UPDATE steps SET status=?, lease_owner=?, lease_epoch=?, cluster_epoch=1, result_payload=?"
        self.conn.execute(sql, (status, owner, le, result))

    def member_is(self, version: int, state: str, shown: str) -> None:
        self.conn.execute(
            "INSERT OR REPLACE INTO mesh_members(node_id, address, generation, version, state, updated_at_ms)"
            " VALUES ('b', '127.0.0.1:1', 1, ?, ?, 1)",
            (version, state),
        )
        self.conn.execute(
            "INSERT OR REPLACE INTO mesh_nodes(node_id, status, last_heartbeat_ms, updated_at_ms, status_changed_at_ms)"
            " VALUES ('b', ?, 1, 1, 1)",
            (shown,),
        )

    def broken(self, *up: str) -> set[str]:
        self.root.look(up)
        return {one.invariant for one in check(self.record.events)}

    def all_of(self, f: str) -> list[dict[str, Any]]:
        return [event.value for event in self.record.events if event.f == f]


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Recorded]:
    made = Recorded(tmp_path, "a")
    yield made
    made.conn.close()
    made.root.close()


def test_a_step_is_recorded_from_its_claim_to_its_end(recorded: Recorded) -> None:
    recorded.step_is("RUNNING", "a", 1)
    recorded.conn.execute("UPDATE steps SET updated_at_ms=updated_at_ms+1")
    recorded.step_is("PENDING", None, 1)
    recorded.step_is("RUNNING", "b", 2)
    recorded.step_is("SUCCESS", None, 2, "done")

    assert recorded.broken() == set()
    assert [event.f for event in recorded.record.events if event.f != "epoch"] == [
        *("submit", "claim", "heartbeat", "release", "claim", "commit")
    ]
    (commit,) = recorded.all_of("commit")
    assert (commit["owner"], commit["le"], commit["outcome"]) == ("b", 2, "SUCCESS done")


def test_two_outcomes_of_one_claim_are_found(recorded: Recorded) -> None:
    recorded.step_is("RUNNING", "a", 1)
    recorded.step_is("SUCCESS", None, 1, "one")
    recorded.step_is("RUNNING", "a", 1)
    recorded.step_is("SUCCESS", None, 1, "two")

    assert "I2" in recorded.broken()


def test_a_claim_that_passes_over_the_one_before_is_found(recorded: Recorded) -> None:
    recorded.step_is("RUNNING", "a", 2)
    recorded.step_is("RUNNING", "b", 3)
    recorded.step_is("RUNNING", "a", 1)

    assert {"I3", "I5"} <= recorded.broken()


def test_a_step_that_is_gone_in_the_end_is_found(recorded: Recorded) -> None:
    recorded.conn.execute("DELETE FROM steps")
    recorded.record.note("store", "final", {"steps": recorded.root.steps()})

    assert recorded.broken() == {"I1"}


def test_a_result_that_was_refused_is_recorded(recorded: Recorded) -> None:
    recorded.conn.execute(
        "INSERT INTO lease_conflicts(event_type, task_id, step_id, worker_id, expected_status, expected_lease_epoch,"
        " occurred_at_ms) VALUES ('success_commit_conflict', 't', ?, 'a', 'RUNNING', 1, 1)",
        (recorded.step,),
    )
    recorded.root.look([])

    assert [(one["owner"], one["le"]) for one in recorded.all_of("reject")] == [("a", 1)]


def test_a_member_is_recorded_when_it_changes_and_only_while_its_viewer_is_up(recorded: Recorded) -> None:
    recorded.member_is(1, "ALIVE", "ALIVE")
    recorded.root.look([])
    recorded.root.look(["a"])
    recorded.root.look(["a"])
    alive = recorded.root.alive("a")
    recorded.member_is(1, "SUSPECT", "SUSPECT")
    recorded.root.look(["a"])
    recorded.conn.execute("DELETE FROM mesh_members")
    recorded.root.look(["a"])

    assert [one["state"] for one in recorded.all_of("member")] == ["ALIVE", "SUSPECT"]
    assert recorded.all_of("pruned") == [{"about": "b"}]
    assert (alive, recorded.root.alive("a")) == ({"b"}, set())


def test_whose_word_is_alive_before_its_record_is_not_alive_yet(recorded: Recorded) -> None:
    recorded.member_is(1, "DEAD", "ALIVE")
    recorded.root.look(["a"])

    assert recorded.root.alive("a") == set()


def test_a_record_that_falls_and_a_recovery_that_comes_too_soon_are_found(recorded: Recorded) -> None:
    recorded.member_is(2, "DEAD", "DEAD")
    recorded.record.note("", "fault", {"nodes": ["b"]})
    recorded.root.look(["a"])
    recorded.member_is(1, "ALIVE", "ALIVE")

    assert recorded.broken("a") == {"I6", "I10"}


def test_of_a_table_that_several_nodes_write_the_words_count_and_have_to_stand(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path, "a", "c")
    try:
        recorded.member_is(2, "DEAD", "DEAD")
        recorded.record.note("", "fault", {"nodes": ["b"]})
        recorded.root.look(["a", "c"])
        recorded.member_is(1, "ALIVE", "ALIVE")

        assert recorded.broken("a", "c") == {"I10"}
        assert len(recorded.all_of("member")) == 4
    finally:
        recorded.conn.close()
        recorded.root.close()


def test_more_than_real_processes_are_good_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadScenarioError, match="at most 16 nodes"):
        runner.run(Scenario(nodes=runner.NODES_MAX + 1), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_steps_on_the_root_of_a_node_that_stays_away_are_refused(tmp_path: Path) -> None:
    scenario = Scenario(nodes=2, work=Work(steps=1), faults=(Fault(at=1, fault="crash", nodes=(1,)),))

    with pytest.raises(BadScenarioError, match="takes its steps with it"):
        runner.run(scenario, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_command_gives_status_1_for_a_broken_invariant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record(LEASE_MS)
    record.note("a", "start", {"generation": 1})
    broken = (Broken("I7", 0, "in the end a holds b DEAD"),)
    found = runner.Result(broken, {"nodes": 2}, tuple(record.events))
    monkeypatch.setattr(runner, "run", lambda *_, **__: found)
    monkeypatch.setattr("signal.signal", lambda *_: None)

    words = ["procs", "--nodes", "2", "--history", str(tmp_path / "h.jsonl")]
    ran = CliRunner().invoke(chaos, words, standalone_mode=False)

    assert ran.return_value == 1
    assert json.loads(ran.output)["broken"] == ["I7: in the end a holds b DEAD"]
    assert read(tmp_path / "h.jsonl") == record.events


def test_a_folder_that_is_not_empty_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").write_text("x")
    monkeypatch.setattr("signal.signal", lambda *_: None)

    ran = CliRunner().invoke(chaos, ["procs", "--keep", str(tmp_path)])

    assert ran.exit_code == 2
    assert "is not empty" in ran.output
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
