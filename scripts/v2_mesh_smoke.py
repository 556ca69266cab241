#!/usr/bin/env python3
"""A step whose owner is DEAD is taken back by hand, and the audit log says so."""

import time

import _scenario


def body(scenario):
    scenario.command("init")
    task_id = scenario.document("submit", "--agent", "echo", "--input", "mesh")["taskId"]
    now_ms = time.time_ns() // 1_000_000
    scenario.seed(
        "UPDATE steps SET status='RUNNING', attempt=1, lease_owner='node-dead-v2', lease_token='lease_seeded',"
        " lease_epoch=lease_epoch+1, updated_at_ms=? WHERE task_id=?",
        *(now_ms, task_id),
    )
    scenario.seed("UPDATE tasks SET status='RUNNING', updated_at_ms=? WHERE task_id=?", now_ms, task_id)
    scenario.seed_node("node-dead-v2", "DEAD", now_ms)
    found = scenario.document("mesh-recover", "--limit", 128)
    scenario.check("a step was taken back", found["reclaimed"] >= 1, found)
    scenario.check("its owner is named", found["deadNodes"] == ["node-dead-v2"], found)
    status = scenario.look("SELECT status FROM steps WHERE task_id=?", task_id)
    scenario.check("the step waits for its retry", status == "RETRYING", status)
    rows = scenario.audit_rows("ownership.recover")
    scenario.check("the audit log has a row", bool(rows) and rows[0]["result"] == "recovered", rows)
    scenario.passed(taskId=task_id, reclaimed=found["reclaimed"], stepStatus=status)


if __name__ == "__main__":
    _scenario.enter()
    _scenario.Scenario("v2_mesh_smoke", __doc__).run(body)
