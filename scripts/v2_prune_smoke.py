#!/usr/bin/env python3
"""Members that have been DEAD for long are removed: by hand, and by maintenance when the settings say so."""

import time

import _scenario


def body(scenario):
    scenario.command("init")

    def there(node_id):
        return scenario.look("SELECT 1 FROM mesh_nodes WHERE node_id=?", node_id) is not None

    now_ms = time.time_ns() // 1_000_000
    scenario.seed_node("node-old", "DEAD", now_ms - 10_000)
    scenario.seed_node("node-fresh", "DEAD", now_ms + 600_000)
    by_hand = scenario.document("mesh-prune", "--older-than-ms", 5_000, "--limit", 10)
    scenario.check("one was removed by hand", by_hand["pruned"] >= 1, by_hand)
    scenario.check("the old one is gone", not there("node-old"))
    scenario.check("the fresh one is kept", there("node-fresh"))
    scenario.settings(meshPruneOlderThanMs=5_000, meshPruneLimit=10, meshPruneIntervalMs=1)
    scenario.seed_node("node-old-2", "DEAD", time.time_ns() // 1_000_000 - 10_000)
    tick = scenario.document("maintenance")
    scenario.check("maintenance removed one", tick["deadNodesPruned"] >= 1, tick)
    scenario.check("the second old one is gone", not there("node-old-2"))
    scenario.check("the fresh one is still kept", there("node-fresh"))
    rows = scenario.audit_rows("membership.prune")
    scenario.check("the audit log has both", len(rows) >= 2, rows)
    scenario.passed(prunedByHand=by_hand["pruned"], prunedByMaintenance=tick["deadNodesPruned"])


if __name__ == "__main__":
    _scenario.enter()
    _scenario.Scenario("v2_prune_smoke", __doc__).run(body)
