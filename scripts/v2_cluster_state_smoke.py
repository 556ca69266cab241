#!/usr/bin/env python3
"""The cluster epoch: shown, raised by one, and the same in the command and in the metrics."""

import re

import _scenario


def body(scenario):
    scenario.command("init")
    before = scenario.document("cluster-state")
    scenario.check("cluster-state shows an epoch of at least 1", before["epoch"] >= 1, before)
    bump = scenario.document("cluster-epoch-bump", "--reason", "smoke")
    scenario.check("the bump raises the epoch by one", bump["currentEpoch"] == before["epoch"] + 1, bump)
    scenario.check("the bump names the epoch before", bump["previousEpoch"] == before["epoch"], bump)
    after = scenario.document("cluster-state")
    scenario.check("both commands say the same", after["epoch"] == bump["currentEpoch"], after)
    metrics = scenario.command("metrics")
    line = re.search(r"^relaymesh_cluster_epoch (\d+)$", metrics, re.MULTILINE)
    scenario.check("the metrics say the same", line is not None and int(line[1]) == after["epoch"], line)
    scenario.passed(epochBefore=before["epoch"], epochAfter=after["epoch"])


if __name__ == "__main__":
    _scenario.enter()
    _scenario.Scenario("v2_cluster_state_smoke", __doc__).run(body)
