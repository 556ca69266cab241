"""Which ready steps are taken, in which order, and what keeps one from being taken."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.core.fairness import HIGH_RUN_MAX, Fairness
from relaymesh.core.ident import workflow_step_id
from tests.store.bench import NOON, Bench

LANES = ("HIGH", "NORMAL", "LOW")


def fill(bench: Bench, count: int, agent: str = "echo") -> dict[str, str]:
    """Submit ``count`` tasks of each priority; return step id to priority."""
    tasks = [bench.new_task(agent, priority=lane) for _ in range(count) for lane in LANES]
    bench.submit(*tasks)
    return {task.steps[0].step_id: task.steps[0].priority for task in tasks}


def test_one_claim_serves_the_lanes_eight_to_three_to_one(bench: Bench) -> None:
    lanes = fill(bench, 40)

    order = [lanes[lease.step_id] for lease in bench.claim(limit=24)]

    assert order == (["HIGH"] * 8 + ["NORMAL"] * 3 + ["LOW"]) * 2


def test_claims_of_one_slot_go_on_where_the_last_one_stood(bench: Bench) -> None:
    lanes = fill(bench, 40)

    order = [lanes[bench.claim(limit=1)[0].step_id] for _ in range(24)]

    assert order == (["HIGH"] * 8 + ["NORMAL"] * 3 + ["LOW"]) * 2


def test_after_a_long_run_of_high_a_low_one_is_forced_and_counted(bench: Bench) -> None:
    bench.submit(*(bench.new_task(priority="HIGH") for _ in range(HIGH_RUN_MAX + 5)))
    claim = bench.claim_all(limit=HIGH_RUN_MAX)
    assert (claim.forced_low, claim.state.high_run) == (0, HIGH_RUN_MAX)
    low = bench.one(priority="LOW")

    claim = bench.claim_all(limit=2)

    assert claim.forced_low == 1
    assert claim.rows[0].lease.step_id == low


def test_within_a_lane_the_first_submitted_comes_first_whatever_its_agent(bench: Bench) -> None:
    steps = []
    for number in range(30):
        steps.append(bench.one(("echo", "fail", "other")[number % 3]))
        bench.now_ms += number % 2

    assert [lease.step_id for lease in bench.claim(limit=30)] == steps


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(LANES), st.sampled_from(["echo", "fail"]), st.integers(0, 3)), max_size=40),
    st.lists(st.integers(1, 9), min_size=1, max_size=8),
)
def test_every_lane_is_first_in_first_out_and_nothing_is_taken_twice(
    tasks: list[tuple[str, str, int]], limits: list[int]
) -> None:
    bench = Bench.in_memory()
    submitted = []
    for lane, agent, pause in tasks:
        bench.now_ms += pause
        submitted.append((bench.one(agent, priority=lane), lane))
    taken: list[str] = []

    while leases := bench.claim(limit=limits[len(taken) % len(limits)]):
        taken += [lease.step_id for lease in leases]

    assert len(taken) == len(set(taken)) == len(submitted)
    lane_of = dict(submitted)
    for lane in LANES:
        assert [s for s in taken if lane_of[s] == lane] == [s for s, its in submitted if its == lane]
    bench.close()


def test_a_claim_takes_the_lease_and_makes_the_task_run(bench: Bench) -> None:
    step_id = bench.one()
    bench.now_ms += 7

    (lease,) = bench.claim("n9", generation=4)

    step = bench.step(step_id)
    assert (step["status"], step["attempt"], step["lease_epoch"]) == ("RUNNING", 1, 1)
    assert (step["lease_owner"], step["owner_generation"], step["lease_token"]) == ("n9", 4, lease.lease_token)
    assert (step["cluster_epoch"], step["started_at_ms"], step["updated_at_ms"]) == (1, NOON + 7, NOON + 7)
    assert bench.task_of(step_id)["status"] == "RUNNING"


def test_each_lease_of_a_claim_has_a_token_of_its_own(bench: Bench) -> None:
    fill(bench, 5)

    tokens = [lease.lease_token for lease in bench.claim()]

    assert len(set(tokens)) == 15


def test_no_more_is_taken_than_there_are_slots_in_the_pool_of_the_agent(bench: Bench) -> None:
    fill(bench, 3, "echo")
    fill(bench, 3, "fail")

    claim = bench.claim_all(pools={"echo": "inline", "fail": "process"}, free={"inline": 2, "process": 4})

    assert Counter((row.lease.agent_id, row.pool) for row in claim.rows) == {
        ("echo", "inline"): 2,
        ("fail", "process"): 4,
    }
    assert bench.claim(pools={"echo": "inline"}, free={}) == []


def test_a_limit_of_an_agent_holds_over_all_nodes_of_a_root_and_counts_leases(bench: Bench) -> None:
    other = Bench(bench.root)
    fill(bench, 4)
    limits = {"echo": 3}

    mine = bench.claim("n1", limit=2, limits=limits)
    theirs = other.claim("n2", limit=10, limits=limits)

    assert (len(mine), len(theirs)) == (2, 1)
    assert bench.claim("n1", limits=limits) == other.claim("n2", limits=limits) == []
    bench.succeed(mine[0])
    other.fail(theirs[0])
    assert len(other.claim("n2", limits=limits)) == 2
    other.close()


def test_an_agent_at_its_limit_does_not_hold_up_the_ones_behind_it(bench: Bench) -> None:
    bench.submit(*(bench.new_task("echo") for _ in range(50)))
    behind = bench.one("fail")

    leases = bench.claim(limit=3, limits={"echo": 1})

    assert Counter(lease.agent_id for lease in leases) == {"echo": 1, "fail": 1}
    assert behind in [lease.step_id for lease in leases]


def test_the_backlog_of_agents_that_the_node_does_not_have_is_passed_over_unread(bench: Bench) -> None:
    bench.submit(*(bench.new_task(f"unknown-{number % 20}") for number in range(3_000)))
    behind = bench.one("echo")
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    bench.store.conn.set_progress_handler(count, 100)
    (lease,) = bench.claim()
    bench.store.conn.set_progress_handler(None, 0)

    assert lease.step_id == behind
    # One seek for each of the 20 agents is some thousand instructions; reading the 3,000 rows would be far more.
    assert steps < 60
    assert bench.store.has_ready(lambda agent: agent == "echo") is False
    assert bench.store.has_ready(lambda agent: agent == "unknown-7") is True


def test_a_delayed_step_is_not_taken_before_its_time(bench: Bench) -> None:
    step_id = bench.one(not_before_ms=NOON + 1_000)

    assert bench.claim() == []
    assert bench.store.next_due_ms() == NOON + 1_000
    bench.now_ms = NOON + 999
    assert bench.promote() == 0
    bench.now_ms = NOON + 1_000
    assert bench.promote() == 1
    assert [lease.step_id for lease in bench.claim()] == [step_id]
    assert bench.store.next_due_ms() is None


def test_a_delayed_step_queues_behind_what_was_there_when_it_became_due(bench: Bench) -> None:
    late = bench.one(not_before_ms=NOON + 1_000)
    bench.now_ms = NOON + 900
    first = bench.one()
    bench.now_ms = NOON + 1_500
    bench.promote()

    assert [lease.step_id for lease in bench.claim()] == [first, late]


def test_a_delay_holds_back_the_first_steps_of_a_workflow_only(bench: Bench) -> None:
    task_id = bench.flow({"id": "a"}, {"id": "b", "dependsOn": ["a"]}, not_before_ms=NOON + 5)

    assert bench.claim() == []
    bench.now_ms += 5
    bench.promote()
    (a,) = bench.claim()
    bench.succeed(a)
    assert [lease.step_id for lease in bench.claim()] == [workflow_step_id(task_id, "b")]


def test_what_is_due_first_is_promoted_first(bench: Bench) -> None:
    last, first = bench.one(not_before_ms=NOON + 20), bench.one(not_before_ms=NOON + 10)
    bench.now_ms = NOON + 100

    with bench.store.write():
        assert bench.store.promote_due(now_ms=bench.now_ms, limit=1) == 1

    assert [lease.step_id for lease in bench.claim()] == [first]
    assert bench.step(last)["delayed"] == 1


def expire(bench: Bench) -> int:
    with bench.store.write():
        return len(bench.store.expire_tasks(now_ms=bench.now_ms, limit=100))


def test_a_task_that_was_not_started_in_time_is_cancelled_with_the_reason(bench: Bench) -> None:
    step_id = bench.one(expires_at_ms=NOON + 10)
    bench.now_ms += 9
    assert not bench.store.has_expired(now_ms=bench.now_ms) and expire(bench) == 0

    bench.now_ms += 1

    assert bench.store.has_expired(now_ms=bench.now_ms) and expire(bench) == 1
    step, task = bench.step(step_id), bench.task_of(step_id)
    assert (step["status"], step["last_error"]) == ("CANCELLED", "expired")
    assert (task["status"], task["last_error"], task["finished_at_ms"]) == ("CANCELLED", "expired", NOON + 10)
    assert bench.claim() == []
    assert not bench.store.has_expired(now_ms=bench.now_ms)


def test_a_step_that_runs_when_its_task_expires_runs_to_its_end(bench: Bench) -> None:
    step_id = bench.one(expires_at_ms=NOON + 10)
    (lease,) = bench.claim()
    bench.now_ms += 10

    assert expire(bench) == 0
    assert not bench.store.has_expired(now_ms=bench.now_ms)
    bench.succeed(lease)

    assert bench.task_of(step_id)["status"] == "SUCCESS"


def test_what_waits_behind_a_running_step_expires(bench: Bench) -> None:
    task_id = bench.flow({"id": "a"}, {"id": "b", "dependsOn": ["a"]}, expires_at_ms=NOON + 10)
    (lease,) = bench.claim()
    bench.now_ms += 10

    assert expire(bench) == 1
    bench.succeed(lease)

    assert (bench.step_of(task_id, "a")["status"], bench.step_of(task_id, "b")["status"]) == ("SUCCESS", "CANCELLED")
    assert bench.task(task_id)["status"] == "CANCELLED"


def test_a_dead_letter_whose_expiry_has_passed_can_be_replayed(bench: Bench) -> None:
    step_id = bench.one(expires_at_ms=NOON + 10)
    (lease,) = bench.claim()
    bench.fail(lease, retryable=False)
    bench.now_ms += 1_000

    with bench.store.write():
        assert bench.store.replay(lease.task_id, now_ms=bench.now_ms) == "replayed"

    assert expire(bench) == 0
    bench.run_all()
    assert bench.task_of(step_id)["status"] == "SUCCESS"


def test_an_expiry_that_lies_ahead_still_holds_after_a_replay(bench: Bench) -> None:
    bench.one(expires_at_ms=NOON + 10)
    (lease,) = bench.claim()
    bench.fail(lease, retryable=False)

    with bench.store.write():
        bench.store.replay(lease.task_id, now_ms=bench.now_ms)
    bench.now_ms += 1_000

    assert expire(bench) == 1


def test_a_claim_for_nothing_leaves_the_dispatch_state_alone(bench: Bench) -> None:
    bench.one()

    claim = bench.claim_all(agents=("unheard",), state=Fairness(5, 7))

    assert (claim.rows, claim.state) == ((), Fairness(5, 7))
