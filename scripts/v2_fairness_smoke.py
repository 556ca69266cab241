#!/usr/bin/env python3
"""No lane starves: with a run limit of two, three HIGH and one LOW start in the order HIGH, HIGH, LOW."""

import time

import _scenario


def body(scenario):
    from relaymesh.client import Client
    from relaymesh.core.fairness import HIGH_RUN_MAX, LANES, Candidate, Fairness, plan
    from relaymesh.store.claim import Slots
    from relaymesh.store.counter import LOW_STARVATION
    from relaymesh.store.store import Store

    with Client(scenario.root) as client:
        lane_of = {
            client.submit("echo", f"{lane} {number}", priority=lane).task_id: lane.upper()
            for number, lane in enumerate(("high", "high", "high", "low"))
        }
    now_ms = time.time_ns() // 1_000_000
    store = Store.open(scenario.root, now_ms=now_ms, create=False)
    try:
        # The rule itself, with the limit of the scenario.
        waiting = {}
        for row_id, lane, at_ms in store.conn.execute("SELECT id, priority, queued_at_ms FROM steps ORDER BY id"):
            waiting.setdefault(LANES[lane], []).append(Candidate(row_id, "echo", "inline", at_ms))
        names = {candidate.row_id: str(lane) for lane, rows in waiting.items() for candidate in rows}
        planned = plan(Fairness(), waiting, {"inline": 3}, {}, 3, high_run_max=2)
        order = [names[pick.row_id] for pick in planned.picks]
        scenario.check("with a run limit of two the order is HIGH, HIGH, LOW", order == ["HIGH", "HIGH", "LOW"], order)
        scenario.check("one LOW was taken out of turn", planned.forced_low == 1, planned.forced_low)

        # The queue, one claim after another, two before its own limit.
        state, order, forced = Fairness(high_run=HIGH_RUN_MAX - 2), [], 0
        for number in range(3):
            slots = Slots(pools={"echo": "inline"}, free={"inline": 1}, room={}, limits={}, limit=1)
            with store.write():
                claim = store.claim(slots, state, node_id="fair", generation=1, token=f"lease_{number}.", now_ms=now_ms)
                store.add_counter(LOW_STARVATION, claim.forced_low)
            state = claim.state
            forced += claim.forced_low
            order += [lane_of[row.lease.task_id] for row in claim.rows]
        scenario.check("claims start in the same order", order == ["HIGH", "HIGH", "LOW"], order)
        scenario.check("the run begins anew after it", state.high_run == 0, state.high_run)
    finally:
        store.close()
    stats = scenario.document("stats")
    scenario.check("lowStarvationCount is 1", stats["lowStarvationCount"] == 1 == forced, stats["lowStarvationCount"])
    scenario.passed(order=order, lowStarvationCount=stats["lowStarvationCount"])


if __name__ == "__main__":
    _scenario.enter()
    _scenario.Scenario("v2_fairness_smoke", __doc__).run(body)
