"""The scenario scripts pass from an empty root, say so in one JSON document, and fail when something is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
SMALL: dict[str, list[str]] = {
    "v2_fairness_smoke": [],
    "v2_lease_epoch_smoke": [],
    "v2_cluster_state_smoke": [],
    "v2_disk_pressure_smoke": [],
    "v2_mesh_smoke": [],
    "v2_jitter_smoke": [],
    "v2_prune_smoke": [],
    "v2_mesh_summary_smoke": [],
    "v2_worker_pause_smoke": [],
    "v2_gossip_signing_smoke": ["--rounds", "3", "--window-ms", "500"],
    "v2_benchmark_phase_a": ["--tasks", "40", "--input-size", "48", "--max-seconds", "120"],
    "v2_upgrade_rollback_phase_c": ["-Tasks", "24", "-MoreTasks", "12"],
}


def run(name: str, *options: str) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / f"{name}.py"), *options], capture_output=True, text=True, timeout=120
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), SMALL.items(), ids=SMALL.keys())
def test_a_scenario_passes_and_leaves_nothing_behind(name: str, options: list[str]) -> None:
    status, summary, err = run(name, *options)

    assert (status, summary["script"], summary["passed"], summary["message"]) == (0, name, True, ""), (summary, err)
    assert len(summary["checks"]) >= 3 and all(check["passed"] for check in summary["checks"])
    assert not Path(summary["root"]).exists()


def test_a_scenario_uses_an_empty_root_that_it_is_given_and_refuses_one_that_is_not(tmp_path: Path) -> None:
    status, summary, _ = run("v2_cluster_state_smoke", "-Root", str(tmp_path / "root"))
    assert (status, summary["root"]) == (0, str(tmp_path / "root"))

    status, summary, err = run("v2_cluster_state_smoke", "--root", str(tmp_path / "root"))
    assert status == 2 and not summary
    assert "is not empty" in err


def test_a_scenario_ends_with_status_1_at_the_first_check_that_fails(tmp_path: Path) -> None:
    # So many bytes cannot be handed in with a task, so the benchmark cannot complete.
    status, summary, _ = run("v2_benchmark_phase_a", "--tasks", "1", "--input-size", "99999999")

    assert status == 1
    assert summary["passed"] is False and "payload_too_large" in summary["message"]
