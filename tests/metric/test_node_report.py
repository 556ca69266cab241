"""Reports of nodes, as files that others read."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from actors.measure import Measures
from actors.metrics import MetricsSnapshot
from relaymesh.store.node_report import NODES_MAX, read_reports, remove_report, write_report
from relaymesh.store.node_row import HEARTBEAT_STALE_MS
from relaymesh.store.presence import host_name, take_presence
from relaymesh.wire.node_report import AGENTS_MAX, OTHERS, NodeReport, decode_report, encode_report
from relaymesh.wire.store import FinishedStep, LeaseRef
from relaymesh.wire.work import StepReport

NOON = 1_700_000_000_000


def report(node_id: str = "n1", host: str = "elsewhere", *, measures: Measures | None = None) -> NodeReport:
    return (measures or Measures()).report({}, {}, node_id=node_id, host=host, pid=1, now_ms=NOON)


def ended(agent: str = "echo", kind: str = "succeeded", ms: int = 7) -> FinishedStep:
    lease = LeaseRef(1, "stp_1", "tsk_1", agent, 1, "lse_1", 1, 1, 1)
    return FinishedStep(lease, StepReport(1, "lse_1", kind, started_at_ms=NOON, finished_at_ms=NOON + ms), "w")  # type: ignore[arg-type]


def test_a_report_comes_back_as_it_was_written(tmp_path: Path) -> None:
    measures = Measures()
    measures.committed(2_000_000, 3, [ended(), ended(kind="failed", ms=2_000)])
    measures.refused()
    written = report(measures=measures)

    write_report(tmp_path, written)

    assert read_reports(tmp_path, now_ms=NOON) == [written]
    (agent,) = written.agents
    assert (agent.agent_id, agent.succeeded, agent.failed, agent.seconds.total) == ("echo", 1, 1, 2.007)
    assert (sum(written.commit_seconds.counts), written.commit_writes.total, written.commits_failed) == (1, 3.0, 1)


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")
def test_a_report_is_for_its_owner_only_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    write_report(tmp_path, report())

    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_node_of_this_machine_lives_as_long_as_its_lock_is_held(tmp_path: Path) -> None:
    presence = take_presence(tmp_path, "n1")
    write_report(tmp_path, report(host=host_name()))
    assert [found.node_id for found in read_reports(tmp_path, now_ms=NOON + 10 * HEARTBEAT_STALE_MS)] == ["n1"]

    presence.release()

    assert read_reports(tmp_path, now_ms=NOON) == []


def test_a_node_of_another_machine_lives_for_a_while_after_its_last_report(tmp_path: Path) -> None:
    write_report(tmp_path, report())

    assert len(read_reports(tmp_path, now_ms=NOON + HEARTBEAT_STALE_MS)) == 1
    assert read_reports(tmp_path, now_ms=NOON + HEARTBEAT_STALE_MS + 1) == []


def test_a_node_that_ends_takes_its_report_away(tmp_path: Path) -> None:
    write_report(tmp_path, report())

    remove_report(tmp_path, "n1")
    remove_report(tmp_path, "n1")

    assert read_reports(tmp_path, now_ms=NOON) == []


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b"\xff\xfe", b'{"node_id":"n1"}'])
def test_what_is_no_report_is_left_out_and_hurts_no_other(tmp_path: Path, broken: bytes) -> None:
    write_report(tmp_path, report("n2"))
    (tmp_path / "n1.metrics").write_bytes(broken)

    assert [found.node_id for found in read_reports(tmp_path, now_ms=NOON)] == ["n2"]


def test_a_report_under_another_name_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "n2.metrics").write_bytes(encode_report(report("n1")))

    assert read_reports(tmp_path, now_ms=NOON) == []


def test_a_histogram_whose_buckets_do_not_fit_its_bounds_is_no_report() -> None:
    data = msgspec.to_builtins(report())
    data["commit_seconds"]["counts"] = [1]

    assert decode_report(msgspec.json.encode(data)) is None


def test_of_many_nodes_those_are_shown_that_wrote_last(tmp_path: Path) -> None:
    for number in range(NODES_MAX + 3):
        write_report(tmp_path, report(f"n{number:03}"))
        os.utime(tmp_path / f"n{number:03}.metrics", (number, number))

    found = read_reports(tmp_path, now_ms=NOON)

    assert [one.node_id for one in found] == [f"n{number:03}" for number in range(3, NODES_MAX + 3)]


def test_agents_beyond_the_bound_are_counted_together() -> None:
    measures = Measures()
    measures.committed(1, 1, [ended(f"agent-{number:03}") for number in range(AGENTS_MAX + 5)])

    agents = report(measures=measures).agents

    assert len(agents) == AGENTS_MAX + 1
    assert {agent.agent_id: agent.succeeded for agent in agents}[OTHERS] == 5


def test_worker_actors_are_counted_together() -> None:
    one = MetricsSnapshot(1, 9, 10, 1, 0, 0, 5_000_000_000, 2_000_000_000, 0, 0, True)

    found = Measures().report(
        {"worker-1": one, "worker-2": one, "store": one}, {}, node_id="n", host="h", pid=1, now_ms=NOON
    )

    assert [(actor.name, actor.waiting, actor.handling_s, actor.handling_s_max) for actor in found.actors] == [
        ("store", 1, 5.0, 2.0),
        ("worker", 2, 10.0, 2.0),
    ]
