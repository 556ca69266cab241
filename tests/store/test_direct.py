"""Storing new tasks and claiming them in the same breath: the same as one after the other, in fewer writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relaymesh.core.fairness import HIGH_RUN_MAX, Fairness
from relaymesh.store.claim import Claim, Slots
from relaymesh.wire.store import NewTask
from tests.store.bench import NOON, Bench, report_of

LANES = ("HIGH", "NORMAL", "LOW")
POOLS = {"echo": "inline", "fail": "inline", "other": "process"}
TOKEN = "lease_1."


def slots(
    free: Mapping[str, int], limit: int = 100, limits: Mapping[str, int] | None = None, pools: Mapping[str, str] = POOLS
) -> Slots:
    return Slots(pools=pools, free=free, room={}, limits=limits or {}, limit=limit)


def at_once(bench: Bench, tasks: Sequence[NewTask], slots: Slots) -> tuple[list[tuple[str, bool]], Claim]:
    with bench.store.write():
        results, claim = bench.store.submit_and_claim(
            tasks, slots, bench.state, node_id="n1", generation=1, token=TOKEN, now_ms=bench.now_ms
        )
    bench.state = claim.state
    return results, claim


def one_after_the_other(bench: Bench, tasks: Sequence[NewTask], slots: Slots) -> tuple[list[tuple[str, bool]], Claim]:
    with bench.store.write():
        results = bench.store.submit(tasks, now_ms=bench.now_ms)
        claim = bench.store.claim(slots, bench.state, node_id="n1", generation=1, token=TOKEN, now_ms=bench.now_ms)
    bench.state = claim.state
    return results, claim


def rows(bench: Bench) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Return all tasks and steps, without the numbers of their rows, and without when a step changed last."""
    tasks = bench.rows("SELECT * FROM tasks ORDER BY task_id")
    steps = bench.rows("SELECT * FROM steps ORDER BY step_id")
    for row in steps:
        assert row["lease_token"] in (None, f"{TOKEN}{row['id']}", f"lease_n1_1.{row['id']}")
    return (
        [{name: value for name, value in row.items() if name != "id"} for row in tasks],
        [
            {name: value for name, value in row.items() if name not in ("id", "lease_token", "updated_at_ms")}
            for row in steps
        ],
    )


TASK = st.tuples(st.sampled_from(LANES), st.sampled_from([*POOLS, "nobody's"]), st.integers(0, 7), st.booleans())


@example(  # the only new one's key is taken, and what waits behind it has a slot
    before=[("HIGH", "echo", 0, False), ("NORMAL", "other", 1, False)],
    running=0,
    batch=[("HIGH", "other", 0, False)],
    free={"process": 1},
    limit=1,
    echo_max=None,
    state=Fairness(0, 0),
)
@settings(max_examples=120, deadline=None)
@given(
    before=st.lists(TASK, max_size=12),
    running=st.integers(0, 4),
    batch=st.lists(TASK, min_size=1, max_size=20),
    free=st.fixed_dictionaries({}, optional={"inline": st.integers(0, 15), "process": st.integers(0, 15)}),
    limit=st.integers(1, 20),
    echo_max=st.none() | st.integers(0, 5),
    state=st.builds(Fairness, st.integers(0, 11), st.sampled_from([0, HIGH_RUN_MAX - 2, HIGH_RUN_MAX])),
)
def test_it_leaves_what_storing_and_then_claiming_leaves(
    before: list[tuple[str, str, int, bool]],
    running: int,
    batch: list[tuple[str, str, int, bool]],
    free: dict[str, int],
    limit: int,
    echo_max: int | None,
    state: Fairness,
) -> None:
    outcomes = []
    for way in (at_once, one_after_the_other):
        bench = Bench.in_memory()

        def drafted(tasks: list[tuple[str, str, int, bool]], bench: Bench = bench) -> list[NewTask]:
            # Few keys, so that some are taken already or occur twice in a batch.
            return [
                bench.new_task(agent, priority=lane, key=f"{key}" if key < 3 else None, **later(delayed))
                for lane, agent, key, delayed in tasks
            ]

        bench.submit(*drafted(before))
        if running:
            bench.claim(limit=running, pools=POOLS, free={"inline": 9, "process": 9})
        bench.now_ms += 5
        bench.state = state
        limits = {} if echo_max is None else {"echo": echo_max}
        results, claim = way(bench, drafted(batch), slots(free, limit, limits))
        taken = [(r.lease.step_id, r.lease.attempt, r.lease.lease_epoch, r.pool, r.payload) for r in claim.rows]
        assert all(row.lease.lease_token == f"{TOKEN}{row.lease.row_id}" for row in claim.rows)
        outcomes.append((results, taken, claim.state, claim.forced_low, rows(bench)))
        bench.close()

    assert outcomes[0] == outcomes[1]


def later(delayed: bool) -> dict[str, int]:
    return {"not_before_ms": NOON + 60_000} if delayed else {}


def test_a_task_that_was_born_running_ends_as_any_other(bench: Bench) -> None:
    task = bench.new_task(payload="hello")
    _, claim = at_once(bench, [task], slots({"inline": 1}))
    (row,) = claim.rows

    bench.finish((row.lease, report_of(row.lease, output="done")))

    assert bench.rows("SELECT status, attempt, lease_token FROM steps") == [
        {"status": "SUCCESS", "attempt": 1, "lease_token": None}
    ]
    assert bench.rows("SELECT status, open_steps FROM tasks") == [{"status": "SUCCESS", "open_steps": 0}]


def test_what_waits_already_is_not_overtaken(bench: Bench) -> None:
    first = bench.one()
    tasks = [bench.new_task(), bench.new_task()]

    _, claim = at_once(bench, tasks, slots({"inline": 2}))

    assert [row.lease.step_id for row in claim.rows] == [first, tasks[0].steps[0].step_id]
    assert bench.rows("SELECT step_id FROM steps WHERE status='PENDING'") == [{"step_id": tasks[1].steps[0].step_id}]


def test_a_long_payload_is_found_in_its_file(bench: Bench) -> None:
    task = bench.new_task(payload="x" * 100_000)

    _, claim = at_once(bench, [task], slots({"inline": 1}))

    grant = bench.store.render(claim.rows[0])
    assert grant.payload == "x" * 100_000  # type: ignore[union-attr]


def test_a_workflow_does_not_go_this_way(bench: Bench) -> None:
    with pytest.raises(AssertionError):
        at_once(bench, [bench.new_flow([{"id": "a"}])], slots({"inline": 1}))
