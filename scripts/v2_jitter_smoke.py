#!/usr/bin/env python3
"""A node that was DEAD a moment ago stays so for its dwell time, however often it is heard; then it is ALIVE."""

import time

import _scenario

NODE = "node-flap-v2"


def body(scenario):
    scenario.command("init")
    now_ms = time.time_ns() // 1_000_000
    scenario.seed_node(NODE, "DEAD", now_ms)
    scenario.document("maintenance", "--node-id", NODE)
    first = scenario.look("SELECT status FROM mesh_nodes WHERE node_id=?", NODE)
    scenario.check("it is still DEAD", first == "DEAD", first)
    rows = scenario.audit_rows("membership.recovery.suppressed")
    scenario.check(
        "the audit log says that its recovery was held back",
        any(row["resource"] == f"node/{NODE}" for row in rows),
        rows,
    )
    scenario.seed("UPDATE mesh_nodes SET status_changed_at_ms=? WHERE node_id=?", now_ms - 31_000, NODE)
    scenario.document("maintenance", "--node-id", NODE)
    second = scenario.look("SELECT status FROM mesh_nodes WHERE node_id=?", NODE)
    scenario.check("after the dwell time it is ALIVE", second == "ALIVE", second)
    scenario.passed(first=first, second=second, suppressed=len(rows))


if __name__ == "__main__":
    _scenario.enter()
    _scenario.Scenario("v2_jitter_smoke", __doc__).run(body)
