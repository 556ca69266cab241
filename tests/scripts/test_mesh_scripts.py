"""The scripts that fill tables over several calls: what is known is not run again, and no call goes on for long."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import mesh_figures
import sim_seeds

from chaos.sim.goal import GOALS, Job, Result, jobs, rows


class Clock:
    """Time that passes when something runs."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.ran: list[Job] = []

    def now(self) -> float:
        return self.now_s

    def run(self, job: Job) -> dict[str, int]:
        self.ran.append(job)
        self.now_s += 10
        return {"ms": job.seed}


def test_no_job_is_begun_that_would_not_end_in_the_budget() -> None:
    clock, kept = Clock(), []
    wanted = [Job("join", 10, seed) for seed in range(1, 9)]

    left = mesh_figures.fill(wanted, [], 45, kept.append, do=clock.run, now=clock.now)

    assert [result.job.seed for result in kept] == [1, 2, 3, 4]
    assert left == 4


def test_a_later_call_runs_what_is_left_and_prints_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "figures.jsonl"
    call = ["--results", str(results), "--nodes", "10", "--only", "join", "--budget"]

    mesh_figures.main([*call, "0"])
    assert results.read_text() == ""
    mesh_figures.main([*call, "60"])
    first = results.read_text()
    mesh_figures.main([*call, "60"])

    assert len(first.splitlines()) == 20
    assert results.read_text() == first
    assert "| join | 10 | ms |" in capsys.readouterr().out


def test_results_of_a_simulator_that_behaved_otherwise_do_not_count(tmp_path: Path) -> None:
    results = tmp_path / "figures.jsonl"
    line = {"behaviour": "another", "what": "join", "nodes": 10, "seed": 1, "found": {"ms": 5}, "cpuS": 1.0}
    results.write_text(json.dumps(line) + "\n{cut off")

    assert mesh_figures._read(results, "this") == []
    assert mesh_figures._read(results, "another") == [Result(Job("join", 10, 1), {"ms": 5}, 1.0)]


def test_a_goal_is_missed_by_one_run_that_came_to_no_end_and_by_a_slow_one() -> None:
    def met(*found: dict[str, int] | None) -> bool | None:
        results = [Result(Job("join", 10, seed), one, 1.0) for seed, one in enumerate(found)]
        return next(row["met"] for row in rows(results) if (row["figure"], row["nodes"]) == ("join", 10))

    assert met({"ms": 900}, {"ms": 1_000}) is True
    assert met({"ms": 900}, {"ms": 1_001}) is False
    assert met({"ms": 900}, None) is False
    assert met() is None


def test_every_goal_has_jobs() -> None:
    assert {(goal.what, goal.nodes) for goal in GOALS} == {(job.what, job.nodes) for job in jobs()}


def test_seeds_go_on_where_the_last_call_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = ["--progress", str(tmp_path / "seeds.json"), "--seeds", "4", "--from", "21"]

    assert sim_seeds.main([*progress, "--budget", "0"]) == 0
    assert sim_seeds.main([*progress, "--budget", "60"]) == 0
    assert sim_seeds.main([*progress, "--budget", "60"]) == 0

    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["ran"], one["left"], one["broken"]) for one in told] == [(0, 4, []), (4, 0, []), (4, 0, [])]
