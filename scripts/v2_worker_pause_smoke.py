#!/usr/bin/env python3
"""A worker whose own node is SUSPECT takes nothing and says so; when the node is ALIVE again, it works."""

import time

import _scenario

NODE = "node-local"


def body(scenario):
    scenario.command("init")
    task_id = scenario.document("submit", "--agent", "echo", "--input", "pause")["taskId"]
    scenario.seed_node(NODE, "SUSPECT", time.time_ns() // 1_000_000)
    first = scenario.document("worker", "--once=true", "--maintenance=false")
    scenario.check("it takes nothing", first["processed"] is False, first)
    told = "paused" in first["message"] and "SUSPECT" in first["message"]
    scenario.check("it says that it is paused, and why", told, first)
    status = scenario.document("task", task_id)["status"]
    scenario.check("the task waits", status == "PENDING", status)
    scenario.seed_node(NODE, "ALIVE", time.time_ns() // 1_000_000)
    second = scenario.document("worker", "--once=true", "--maintenance=false")
    scenario.check("it works again", second["processed"] is True, second)
    status = scenario.document("task", task_id)["status"]
    scenario.check("the task succeeded", status == "SUCCESS", status)
    rows = scenario.audit_rows("worker.pause.local_status")
    scenario.check("the audit log has the pause", bool(rows), rows)
    scenario.passed(taskId=task_id, firstMessage=first["message"])


if __name__ == "__main__":
    _scenario.enter()
    _scenario.Scenario("v2_worker_pause_smoke", __doc__).run(body)
