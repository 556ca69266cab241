"""Steps under leases in the simulator: what faults make of them, and that a broken rule is found."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from chaos.cli import chaos
from chaos.sim.run import Result, run
from chaos.sim.scenario import Fault, Scenario, Work
from chaos.sim.step_store import Row, StepStore
from relaymesh.core.lease import Claimed
from relaymesh.core.reclaim import RunningRow

LEASE_MS = 6_000


def plan(*faults: Fault, steps: int = 20, seed: int = 5) -> Scenario:
    return Scenario(
        nodes=5, seconds=120, seed=seed, start="known", work=Work(steps=steps, lease_ms=LEASE_MS), faults=faults
    )


def events(result: Result) -> Counter[str]:
    return Counter(event.f for event in result.history)


CALM = plan()
EPOCHS = plan(*(Fault(at=8_000 + 4_000 * at, fault="epoch", nodes=(0,)) for at in range(6)), steps=60)
PAUSES = plan(*(Fault(at=8_000 + 9_000 * at, fault="pause", nodes=(at,), duration=8_500) for at in range(5)))
CUT = plan(
    *(
        Fault(at=5_000 + 6_000 * at, fault="store", nodes=(at % 5,), duration=9_000, one_way=at % 2 == 0)
        for at in range(8)
    )
)


def test_steps_of_a_calm_mesh_run_once() -> None:
    result = run(CALM)

    happened = events(result)
    assert result.broken == ()
    assert happened["submit"] == happened["claim"] == happened["commit"] == 20
    assert happened["reject"] == happened["reclaim"] == 0


def test_a_paused_owner_loses_its_steps_and_they_run_elsewhere() -> None:
    result = run(PAUSES)

    happened = events(result)
    assert result.broken == ()
    assert happened["commit"] == 20
    assert happened["reclaim"] > 0 and happened["abandon"] > 0


def test_a_node_that_hears_no_answers_does_no_harm() -> None:
    result = run(CUT)

    happened = events(result)
    assert result.broken == ()
    assert happened["commit"] == 20
    assert happened["reclaim"] > 0 and happened["reject"] + happened["unknown"] > 0


def test_a_node_that_started_anew_gives_back_what_its_former_run_held_at_once() -> None:
    crash = Fault(at=20_000, fault="crash", nodes=(0, 1, 2, 3, 4), duration=1_000)

    result = run(plan(crash, steps=40))

    held = [event for event in result.history if event.f == "reclaim"]
    assert result.broken == ()
    assert held and all(21_000 <= event.t <= 21_500 for event in held)


def test_raising_the_cluster_epoch_takes_all_steps_from_their_owners() -> None:
    result = run(EPOCHS)

    happened = events(result)
    assert result.broken == ()
    assert happened["abandon"] > 0 and happened["reject"] > 0
    assert happened["commit"] == 60


def test_the_same_seed_gives_the_same_work() -> None:
    one, again = run(PAUSES), run(PAUSES)

    assert one.trace == again.trace
    assert one.history == again.history


@pytest.mark.parametrize("seed", range(1, 9))
def test_probes_that_are_one_step_do_not_change_the_work(seed: int) -> None:
    scenario = replace(PAUSES, seed=seed)

    assert run(scenario).trace == run(scenario, shortcuts=False).trace


class TokenBlind(StepStore):
    """Takes a result from whoever brings one while the step runs."""

    def holds(self, row: Row, lease: Claimed) -> bool:
        return row.status == "RUNNING"


class EpochBlind(StepStore):
    """Gives a step to the next owner under the former epoch."""

    def claim(self, now_ms: int, row_id: int, owner: str, generation: int, token: str, until_ms: int) -> Row | None:
        row = self.rows[row_id]
        if row.lease_epoch and row.status == "OPEN":
            row.lease_epoch -= 1
        return super().claim(now_ms, row_id, owner, generation, token, until_ms)


class HastyJudge(StepStore):
    """Takes a step back although its owner has renewed it since the judge looked."""

    def expire(self, now_ms: int, seen: RunningRow) -> bool:
        row = self.rows[seen.row_id]
        return super().expire(now_ms, RunningRow(row.row_id, row.token, row.updated_ms, row.owner, row.lease_epoch))

    def running(self) -> list[RunningRow]:
        # As if a renewal did not show.
        return [RunningRow(row.row_id, row.token, 1, row.owner, row.lease_epoch) for row in super().running()]


class Forgetful(StepStore):
    """Loses a step that it has acknowledged."""

    def submit(self, now_ms: int, step: str) -> None:
        super().submit(now_ms, step)
        if step.endswith("7"):
            self.rows.pop()


class Silent(StepStore):
    """Drops a late result without a word."""

    def commit(self, now_ms: int, lease: Claimed, run: str, outcome: str) -> bool:
        if self.holds(self.rows[lease.row_id], lease):
            return super().commit(now_ms, lease, run, outcome)
        return False


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        (TokenBlind, {"I4", "I14"}),
        (EpochBlind, {"I3", "I14"}),
        (HastyJudge, {"I5", "I14"}),
        (Forgetful, {"I1"}),
        (Silent, {"I15"}),
    ],
)
def test_a_store_that_breaks_a_rule_is_found(store: type[StepStore], expected: Iterable[str]) -> None:
    found = {one.invariant for scenario in (PAUSES, CUT, EPOCHS) for one in run(scenario, store=store()).broken}

    assert found & set(expected), found


def test_work_is_asked_for_in_the_scenario_file(tmp_path: Path) -> None:
    file = tmp_path / "work.json"
    file.write_text(
        json.dumps(
            {
                "nodes": 3,
                "seconds": 60,
                "work": {"steps": 6, "for": 10_000, "leaseMs": 4_000},
                "method": [{"at": 5_000, "for": 8_000, "fault": "store", "nodes": [0], "oneWay": True}],
            }
        )
    )

    result = CliRunner().invoke(chaos, ["sim", "--scenario", str(file)], standalone_mode=False)

    assert result.return_value == 0, result.output
    assert json.loads(result.output)["commits"] == 6
