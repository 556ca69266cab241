#!/usr/bin/env python3
"""The summary of the mesh counts members by status and running steps by their owner's; the metrics say the same."""

import time

import _scenario

OWNERS = {"node-alive": "ALIVE", "node-suspect": "SUSPECT", "node-dead": "DEAD", "node-unknown": None}


def body(scenario):
    scenario.command("init")
    now_ms = time.time_ns() // 1_000_000
    for owner, status in OWNERS.items():
        task_id = scenario.document("submit", "--agent", "echo", "--input", owner)["taskId"]
        scenario.seed(
            "UPDATE steps SET status='RUNNING', attempt=1, lease_owner=?, lease_token=?, lease_epoch=1,"
            " updated_at_ms=? WHERE task_id=?",
            *(owner, f"lease_{owner}", now_ms, task_id),
        )
        scenario.seed("UPDATE tasks SET status='RUNNING', updated_at_ms=? WHERE task_id=?", now_ms, task_id)
        if status is not None:
            scenario.seed_node(owner, status, now_ms)
    found = scenario.document("mesh-summary")
    nodes = [found[name] for name in ("totalNodes", "aliveNodes", "suspectNodes", "deadNodes")]
    scenario.check("there are 3 members, one of each status", nodes == [3, 1, 1, 1], nodes)
    for name in ("Alive", "Suspect", "Dead", "Unknown"):
        count = found[f"runningBy{name}Owners"]
        scenario.check(f"one step runs by an owner that is {name.upper()}", count == 1, found)
    metrics = scenario.command("metrics").splitlines()
    for line in (
        'relaymesh_mesh_nodes_total{status="dead"} 1',
        'relaymesh_running_steps_by_owner_status{owner_status="unknown"} 1',
    ):
        scenario.check(f"the metrics have {line}", line in metrics)
    age = [line for line in metrics if line.startswith("relaymesh_oldest_dead_node_age_ms ")]
    scenario.check("the metrics have the age of the longest dead", len(age) == 1, age)
    scenario.passed(summary=found)


if __name__ == "__main__":
    _scenario.enter()
    _scenario.Scenario("v2_mesh_summary_smoke", __doc__).run(body)
