"""Limits, rates and pauses in the claims of a real database."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.core.throttle import Limit, LimitScope, PauseScope
from relaymesh.core.token_bucket import Rate
from relaymesh.store.claim import Slots
from relaymesh.store.control import TooManyRulesError
from relaymesh.store.throttle import KEYS_LOOKED_MAX
from relaymesh.wire.store import LeaseRef
from tests.store.bench import NOON, Bench

AGENT, KEY, EACH, OVERALL = LimitScope.AGENT, LimitScope.KEY, LimitScope.EACH_KEY, LimitScope.OVERALL


def limit(bench: Bench, scope: LimitScope, name: str = "", concurrency: int | None = None, **rate: Any) -> Limit:
    with bench.store.write():
        change = Limit(concurrency, Rate(**rate) if rate else None)
        return bench.store.set_limit(scope, name, change, now_ms=bench.now_ms)


def pause(bench: Bench, scope: PauseScope, name: str = "") -> None:
    with bench.store.write():
        bench.store.pause(scope, name, reason="", now_ms=bench.now_ms)


def keyed(bench: Bench, *keys: str | None, **more: Any) -> list[str]:
    """Submit one task for each key, in this order; return the ids of their steps."""
    tasks = [bench.new_task(concurrency_key=key, **more) for key in keys]
    for start in range(0, len(tasks), 1 if len(tasks) < 20 else 1_000):
        bench.now_ms += 1
        bench.submit(*tasks[start : start + (1 if len(tasks) < 20 else 1_000)])
    return [task.steps[0].step_id for task in tasks]


def ids(leases: list[LeaseRef]) -> list[str]:
    return [lease.step_id for lease in leases]


def test_a_key_runs_one_step_at_a_time_until_somebody_says_otherwise(bench: Bench) -> None:
    first, second, other = keyed(bench, "a", "a", "b")

    leases = bench.claim()

    assert ids(leases) == [first, other]
    assert bench.claim() == []
    bench.succeed(leases[0])
    assert ids(bench.claim()) == [second]


def test_a_key_counts_over_agents_lanes_and_processes(bench: Bench) -> None:
    elsewhere = Bench(bench.root)
    limit(bench, EACH, concurrency=3)
    for agent in ("echo", "fail"):
        for priority in ("HIGH", "LOW"):
            keyed(bench, "a", "a", agent=agent, priority=priority)

    taken = len(bench.claim("n1", limit=1)) + len(elsewhere.claim("n2")) + len(bench.claim("n1"))
    elsewhere.close()

    assert taken == 3


def test_a_key_at_its_limit_does_not_hold_up_the_ones_behind_it_however_long_its_queue(bench: Bench) -> None:
    keyed(bench, *["hot"] * 3_000)
    bench.claim(limit=1)
    behind = keyed(bench, "cold", None)
    work = 0

    def count() -> int:
        nonlocal work
        work += 1
        return 0

    bench.store.conn.set_progress_handler(count, 100)
    leases = bench.claim(limit=10)
    bench.store.conn.set_progress_handler(None, 0)

    assert ids(leases) == behind
    assert work < 60  # the 3,000 rows are not read


def test_more_keys_than_one_claim_looks_at_all_get_their_turn(bench: Bench) -> None:
    keys = [f"k{number:05}" for number in range(KEYS_LOOKED_MAX + 700)]
    keyed(bench, *keys)
    with bench.store.write():  # all of them at their limit, but the last
        bench.store.conn.execute("UPDATE steps SET status='RUNNING' WHERE concurrency_key<?", (keys[-1],))
    keyed(bench, *keys[:-1])

    first = bench.claim_all(limit=5)
    second = bench.claim_all(limit=5)

    assert not first.rows and first.held and first.due_in_ms is not None
    assert len(second.rows) == 1


def test_steps_with_and_without_keys_are_taken_in_the_order_in_which_they_came(bench: Bench) -> None:
    limit(bench, EACH, concurrency=50)
    steps = keyed(bench, "a", None, "b", "a", None, "c", None)

    assert ids(bench.claim(limit=4)) == steps[:4]
    assert ids(bench.claim(limit=9)) == steps[4:]


def test_several_limits_hold_at_once_and_the_tightest_decides(bench: Bench) -> None:
    limit(bench, OVERALL, concurrency=6)
    limit(bench, AGENT, "echo", concurrency=4)
    limit(bench, KEY, "a", concurrency=2)
    limit(bench, EACH, concurrency=9)
    keyed(bench, *["a"] * 5)
    keyed(bench, *["b"] * 5)
    keyed(bench, *["c"] * 5, agent="fail")

    taken = Counter(
        (lease.agent_id, row["concurrency_key"]) for lease in bench.claim() for row in [bench.step(lease.step_id)]
    )

    assert taken[("echo", "a")] == 2
    assert taken[("echo", "a")] + taken[("echo", "b")] == 4
    assert sum(taken.values()) == 6


def test_a_limit_that_was_set_beats_the_one_in_the_code_in_both_directions(bench: Bench) -> None:
    bench.submit(*(bench.new_task() for _ in range(9)))

    limit(bench, AGENT, "echo", concurrency=1)
    assert len(bench.claim(limits={"echo": 3})) == 1
    limit(bench, AGENT, "echo", concurrency=5)
    assert len(bench.claim(limits={"echo": 3})) == 4
    with bench.store.write():
        assert bench.store.remove_limit(AGENT, "echo", now_ms=NOON)
    assert bench.claim(limits={"echo": 3}) == []


def test_a_rate_lets_its_burst_start_and_says_when_the_next_one_may(bench: Bench) -> None:
    limit(bench, AGENT, "echo", count=2, period_ms=1_000, burst=3)
    bench.submit(*(bench.new_task() for _ in range(9)))

    first = bench.claim_all()
    again = bench.claim_all()

    assert len(first.rows) == 3 and first.due_in_ms == 500
    assert len(again.rows) == 0 and again.held and again.due_in_ms == 500
    bench.now_ms += 500
    assert len(bench.claim()) == 1
    bench.now_ms += 10**9
    assert len(bench.claim()) == 3


def test_rates_of_keys_agents_and_the_root_are_spent_by_every_start(bench: Bench) -> None:
    limit(bench, OVERALL, count=1, period_ms=1_000, burst=5)
    limit(bench, EACH, concurrency=9, count=1, period_ms=1_000, burst=2)
    keyed(bench, *["a"] * 4, *["b"] * 4)
    keyed(bench, None, None, None)

    bench.claim()

    levels = {(row["scope"], row["name"]): row["level"] for row in bench.rows("SELECT * FROM rate_buckets")}
    assert levels == {("overall", ""): 0, ("key", "a"): 0, ("key", "b"): 0}
    bench.now_ms += 1_000
    assert len(bench.claim()) == 1  # the root allows one more, whoever it is


def test_a_clock_set_back_neither_stops_a_rate_nor_gives_it_a_second_burst(bench: Bench) -> None:
    limit(bench, AGENT, "echo", count=1, period_ms=1_000, burst=2)
    bench.submit(*(bench.new_task() for _ in range(9)))
    assert len(bench.claim()) == 2

    bench.now_ms -= 3_600_000

    assert bench.claim() == []
    bench.now_ms += 1_000
    assert len(bench.claim()) == 1


def test_buckets_that_are_full_again_are_forgotten(bench: Bench) -> None:
    limit(bench, EACH, concurrency=9, count=1, period_ms=1_000, burst=2)
    keyed(bench, "a", "b")
    bench.claim()

    with bench.store.write():
        early = bench.store.forget_buckets(now_ms=bench.now_ms + 1_000, limit=10)
        late = bench.store.forget_buckets(now_ms=bench.now_ms + 2_002, limit=10)

    assert (early, late) == (0, 2)


@pytest.mark.parametrize("end", ["succeed", "fail", "release", "lose", "reclaim"])
def test_however_a_step_ends_its_place_is_free_again(bench: Bench, end: str) -> None:
    limit(bench, AGENT, "echo", concurrency=1)
    bench.submit(bench.new_task(concurrency_key="a"), bench.new_task(concurrency_key="a"))
    (lease,) = bench.claim("n1")
    assert bench.claim("n2") == []

    if end == "reclaim":
        bench.reclaim(*bench.seen("n2"))
    else:
        getattr(bench, end)(lease)

    assert len(bench.claim("n2")) == 1


def test_the_copies_of_a_map_step_share_its_key(bench: Bench) -> None:
    bench.flow({"id": "m", "map": [1, 2, 3], "concurrencyKey": "a"}, {"id": "z", "concurrencyKey": "b"})

    assert len(bench.claim()) == 2


@pytest.mark.parametrize(
    ("scope", "name", "left"),
    [
        (PauseScope.OVERALL, "", set()),
        (PauseScope.AGENT, "echo", {("fail", "HIGH"), ("fail", "LOW")}),
        (PauseScope.PRIORITY, "LOW", {("echo", "HIGH"), ("fail", "HIGH")}),
        (PauseScope.NODE, "n1", set()),
    ],
)
def test_a_pause_keeps_what_it_names_from_being_taken_until_it_is_resumed(
    bench: Bench, scope: PauseScope, name: str, left: set[tuple[str, str]]
) -> None:
    other = Bench(bench.root)
    for agent in ("echo", "fail"):
        for priority in ("HIGH", "LOW"):
            bench.submit(bench.new_task(agent, priority=priority))
            keyed(bench, "k" + agent + priority, agent=agent, priority=priority)

    pause(other, scope, name)
    taken = {(lease.agent_id, str(bench.step(lease.step_id)["priority"])) for lease in bench.claim("n1")}

    assert taken == left
    with other.store.write():
        assert other.store.resume(scope, name, now_ms=NOON)
        assert not other.store.resume(scope, name, now_ms=NOON)
    assert len(bench.claim("n1")) == 8 - 2 * len(left)
    other.close()


def test_a_drained_node_leaves_the_work_to_the_others(bench: Bench) -> None:
    pause(bench, PauseScope.NODE, "n1")
    bench.submit(bench.new_task())

    assert bench.claim("n1") == []
    assert len(bench.claim("n2")) == 1


def test_setting_a_rate_keeps_the_concurrency_that_was_set(bench: Bench) -> None:
    limit(bench, AGENT, "echo", concurrency=4)

    now = limit(bench, AGENT, "echo", count=1, period_ms=1_000, burst=1)

    assert now == Limit(4, Rate(1, 1_000, 1))


def test_removing_the_limit_of_each_key_brings_back_one_at_a_time(bench: Bench) -> None:
    keyed(bench, "a", "a", "a")
    limit(bench, EACH, concurrency=2)
    assert len(bench.claim()) == 2

    with bench.store.write():
        bench.store.remove_limit(EACH, "", now_ms=NOON)

    assert bench.store.rules().of_key("a") == Limit(1)
    assert bench.store.rules().keyed


def test_a_root_holds_no_more_rules_than_every_process_can_keep(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relaymesh.store.control.LIMITS_MAX", 2)
    limit(bench, AGENT, "a", concurrency=1)
    limit(bench, AGENT, "b", concurrency=1)

    with pytest.raises(TooManyRulesError, match="2 limits"):
        limit(bench, AGENT, "c", concurrency=1)
    assert limit(bench, AGENT, "b", concurrency=9).max_concurrency == 9


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.sampled_from(["echo", "fail"])), max_size=30),
    st.integers(1, 4),
    st.integers(1, 6),
    st.lists(st.integers(0, 40), max_size=30),
)
def test_no_limit_is_ever_exceeded_and_everything_is_run_in_the_end(
    work: list[tuple[str | None, str]], per_key: int, per_agent: int, choices: list[int]
) -> None:
    bench = Bench.in_memory()
    limit(bench, EACH, concurrency=per_key)
    limit(bench, AGENT, "echo", concurrency=per_agent)
    bench.submit(*(bench.new_task(agent, concurrency_key=key) for key, agent in work))
    running: list[LeaseRef] = []
    done = 0

    for choice in (*choices, *[0] * 200):
        running += bench.claim(limit=1 + choice % 7)
        keys = Counter(bench.step(lease.step_id)["concurrency_key"] for lease in running)
        agents = Counter(lease.agent_id for lease in running)
        assert all(count <= per_key for key, count in keys.items() if key is not None)
        assert agents["echo"] <= per_agent
        if running:
            bench.succeed(running.pop(choice % len(running)))
            done += 1

    assert done == len(work)
    bench.close()


def straight(bench: Bench, *keys: str | None, limit: int = 100) -> list[str | None]:
    """Submit and claim in one go; return the keys of what was claimed, in that order."""
    tasks = [bench.new_task(concurrency_key=key) for key in keys]
    slots = Slots(pools={"echo": "pool"}, free={"pool": limit}, room={}, limits={}, limit=limit)
    with bench.store.write():
        _, claim = bench.store.submit_and_claim(
            tasks, slots, bench.state, node_id="n1", generation=1, token=f"t{bench.now_ms}.", now_ms=bench.now_ms
        )
    bench.now_ms += 1
    return [bench.step(row.lease.step_id)["concurrency_key"] for row in claim.rows]


def test_what_is_claimed_as_it_is_stored_keeps_to_the_limits_of_its_key(bench: Bench) -> None:
    assert straight(bench, "a", "b", None, "a", "a") == ["a", "b", None]
    assert straight(bench, "c") == ["c"]
    assert straight(bench, "a") == []

    states = Counter((row["concurrency_key"], row["status"]) for row in bench.rows("SELECT * FROM steps"))
    assert states[("a", "RUNNING")] == 1 and states[("a", "PENDING")] == 3


def test_a_new_step_does_not_overtake_one_of_its_key_that_waits(bench: Bench) -> None:
    limit(bench, EACH, concurrency=2)
    assert straight(bench, "a", "a", "a") == ["a", "a"]
    (waiting,) = [row["step_id"] for row in bench.rows("SELECT step_id FROM steps WHERE status='PENDING'")]
    running = bench.rows("SELECT id FROM steps WHERE status='RUNNING' LIMIT 1")
    with bench.store.write():
        bench.store.conn.execute("UPDATE steps SET status='SUCCESS' WHERE id=?", (running[0]["id"],))

    assert straight(bench, "a") == ["a"]
    assert bench.step(str(waiting))["status"] == "RUNNING"


def test_a_rate_is_spent_by_what_is_claimed_as_it_is_stored_and_once_only(bench: Bench) -> None:
    limit(bench, EACH, concurrency=9, count=1, period_ms=60_000, burst=3)
    bench.submit(bench.new_task(key="taken"))
    bench.claim()
    tasks = [bench.new_task(concurrency_key="a", key="taken"), bench.new_task(concurrency_key="a")]
    slots = Slots(pools={"echo": "pool"}, free={"pool": 9}, room={}, limits={}, limit=9)

    with bench.store.write():
        bench.store.submit_and_claim(
            tasks, slots, bench.state, node_id="n1", generation=1, token="t.", now_ms=bench.now_ms
        )

    assert [row["level"] for row in bench.rows("SELECT level FROM rate_buckets WHERE name='a'")] == [2 * 60_000]
