#!/usr/bin/env python3
"""Go back to a snapshot after more work and a raised epoch: counts and epoch are those of the snapshot again."""

import shutil
import tempfile
from pathlib import Path

import _scenario


def body(scenario):
    options = scenario.options
    out = Path(tempfile.mkdtemp(prefix="phase-c-snapshot-"))
    try:
        scenario.document("benchmark-run", "--tasks", options.tasks)
        first = scenario.document("stats")
        exported = scenario.document("snapshot-export", "--out", out)
        scenario.check("the snapshot has files", exported["fileCount"] > 0, exported)
        bump = scenario.document("cluster-epoch-bump", "--reason", "upgrade")
        scenario.check("the epoch was raised", bump["currentEpoch"] == first["clusterEpoch"] + 1, bump)
        # Other inputs than before, or every one would be the duplicate of a task that is there.
        scenario.document("benchmark-run", "--tasks", options.more_tasks, "--input-size", 65)
        grown = scenario.document("stats")
        successes = [stats["taskStatus"].get("SUCCESS", 0) for stats in (first, grown)]
        scenario.check("more tasks have succeeded", successes[1] > successes[0], successes)
        scenario.document("snapshot-import", "--in", out)
        last = scenario.document("stats")
        back = last["taskStatus"].get("SUCCESS", 0)
        scenario.check("the count of successes is that of the snapshot", back == successes[0], back)
        epochs = [first["clusterEpoch"], last["clusterEpoch"]]
        scenario.check("the epoch is that of the snapshot", epochs[0] == epochs[1], epochs)
        health = scenario.document("health")
        scenario.check("the root is well", health["ok"] is True, health)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    scenario.passed(
        fileCount=exported["fileCount"],
        successBefore=successes[0],
        successGrown=successes[1],
        successAfterImport=back,
        epoch=epochs[1],
    )


if __name__ == "__main__":
    _scenario.enter()
    _scenario.Scenario("v2_upgrade_rollback_phase_c", __doc__, tasks=(120, int), more_tasks=(60, int)).run(body)
