"""kill -9 of anything at any moment: nothing acknowledged is lost, nothing is committed twice, everything ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.integration.harness import REPO, Site
from tests.integration.storm import Storm

SEED = int(os.environ.get("RELAYMESH_TEST_SEED", "20260101"))
CYCLES = 200


@pytest.mark.slow
def test_killing_nodes_workers_and_clients_at_random_moments_loses_and_repeats_nothing(
    site: Site,
) -> None:
    storm = Storm(site, SEED, pause_s=(0.15, 0.4))

    outcomes = storm.run(CYCLES)

    print(f"seed {SEED}: {dict(storm.killed)} killed, {dict(outcomes)}")
    assert outcomes["SUCCESS"] > CYCLES
    assert outcomes["CANCELLED"] == 0
    # A step may have been there at its third death of a worker process; nothing else ends in a dead letter.
    reasons = {row[0] for row in site.rows("SELECT last_error FROM steps WHERE status='DEAD_LETTER'")}
    assert all("poison" in reason for reason in reasons), reasons


def test_the_long_form_runs_and_reports_what_it_did() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/soak.py", "kill", "--cycles", "3"],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=120,
    )

    figures = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert figures["ok"] and figures["cycles"] == 3 and figures["tasks"]["SUCCESS"] > 0
