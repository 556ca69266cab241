#!/usr/bin/env python3
"""Fencing: who presents a wrong lease epoch or cluster epoch changes nothing, and the conflict is recorded."""

import time

import _scenario


def body(scenario):
    from msgspec.structs import replace

    from relaymesh.client import Client
    from relaymesh.core.fairness import Fairness
    from relaymesh.core.retry import RetryPolicy
    from relaymesh.store.admin import bump_epoch
    from relaymesh.store.claim import Slots
    from relaymesh.store.store import Store
    from relaymesh.wire.store import FinishedStep
    from relaymesh.wire.work import StepReport

    with Client(scenario.root) as client:
        task_id = client.submit("echo", "fenced").task_id
    now_ms = time.time_ns() // 1_000_000
    policy = RetryPolicy(max_attempts=3, base_backoff_ms=1_000, max_backoff_ms=1_000)
    store = Store.open(scenario.root, now_ms=now_ms, create=False)
    claims = iter(range(1, 10))

    def claim(at_ms):
        slots = Slots(pools={"echo": "inline"}, free={"inline": 1}, room={}, limits={}, limit=1)
        with store.write():
            token = f"lease_{next(claims)}."
            rows = store.claim(slots, Fairness(), node_id="n1", generation=1, token=token, now_ms=at_ms).rows
        return [row.lease for row in rows]

    def commit(lease, kind, **more):
        report = StepReport(lease.row_id, lease.lease_token, kind, **more)
        with store.write():
            done = store.finish(
                [FinishedStep(lease, report, "n1")],
                node_id="n1",
                spilled={},
                policy_of=lambda _: policy,
                now_ms=now_ms,
            )
        return not done.refused

    def fail(lease):
        return commit(lease, "failed", code="agent_error", error="broken", retryable=True)

    def status():
        return store.conn.execute("SELECT status FROM steps WHERE task_id=?", (task_id,)).fetchone()[0]

    try:
        (lease,) = claim(now_ms)
        wrong = replace(lease, lease_epoch=lease.lease_epoch + 1)
        with store.write():
            renewed = store.renew(
                [(wrong.row_id, wrong.lease_token, wrong.lease_epoch, wrong.cluster_epoch)], now_ms=now_ms
            )
        scenario.check("a heartbeat with a wrong epoch fails", renewed == (lease.row_id,), renewed)
        scenario.check("a failure with a wrong epoch is stale", not fail(wrong) and status() == "RUNNING", status())
        conflict = store.conn.execute(
            "SELECT expected_lease_epoch, actual_lease_epoch FROM lease_conflicts"
            " WHERE event_type='failure_commit_conflict'"
        ).fetchall()
        expected = [(wrong.lease_epoch, lease.lease_epoch)]
        scenario.check("the conflict has both epochs", conflict == expected, conflict)
        scenario.check("the right one schedules a retry", fail(lease) and status() == "RETRYING", status())

        later_ms = now_ms + 10_000
        with store.write():
            store.promote_due(now_ms=later_ms, limit=10)
        (old,) = claim(later_ms)
        future = replace(old, cluster_epoch=old.cluster_epoch + 1)
        refused = not commit(future, "succeeded", output="from the future")
        scenario.check(
            "what was claimed under a future cluster epoch is refused", refused and status() == "RUNNING", status()
        )
        with store.write():
            bump_epoch(store.conn, now_ms=later_ms)
        stale = not commit(old, "succeeded", output="late")
        scenario.check("after a bump the old commit is stale", stale and status() == "RUNNING", status())
        with store.write():
            seen = store.running_elsewhere(node_id="", limit=10)
            store.reclaim(seen, cause="lease_expired", policy_of=lambda _: policy, now_ms=later_ms)
            store.promote_due(now_ms=later_ms + 10_000, limit=10)
        (new,) = claim(later_ms + 10_000)
        scenario.check("the new claim has the new epoch", new.cluster_epoch == old.cluster_epoch + 1, new)
        scenario.check("its commit is taken", commit(new, "succeeded", output="done"), new)
    finally:
        store.close()
    task = scenario.document("task", task_id)
    scenario.check("the task is complete", task["status"] == "SUCCESS", task)
    scenario.passed(leaseEpoch=new.lease_epoch, clusterEpoch=new.cluster_epoch)


if __name__ == "__main__":
    _scenario.enter()
    _scenario.Scenario("v2_lease_epoch_smoke", __doc__).run(body)
