"""Budgets in a real database: what claims begin, and that everything spent is charged once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.core.budget import MICROS, Budget, BudgetScope
from relaymesh.core.outcome import Failed
from relaymesh.core.retention import Ages
from relaymesh.store.budget_rows import budget_rows, count_budgets, remove_budget, set_budget
from relaymesh.store.claimed_row import ClaimedRow
from relaymesh.store.control import TooManyRulesError
from relaymesh.store.purge import Purge
from relaymesh.wire.store import AttemptSpent, Grant, LeaseRef, StepCut
from tests.store.bench import Bench, report_of

AGENT, KEY, TASK = BudgetScope.AGENT, BudgetScope.KEY, BudgetScope.TASK
TOKENS, WALL = "units:tokens", "wall_seconds"
HOUR = 3_600_000


def allot(
    bench: Bench, scope: BudgetScope, name: str, amount: int, *, kind: str = TOKENS, period_ms: int | None = None
) -> None:
    with bench.store.write():
        set_budget(bench.store.conn, scope, name, kind, Budget(amount, period_ms), now_ms=bench.now_ms)


def beat(bench: Bench, lease: LeaseRef, **spent: int) -> tuple[StepCut, ...]:
    """Charge what a running attempt says."""
    sums = tuple((f"units:{name}", amount) for name, amount in spent.items())
    with bench.store.write():
        return bench.store.spend([AttemptSpent(lease, "w", sums)], now_ms=bench.now_ms)


def end(bench: Bench, lease: LeaseRef, kind: str = "succeeded", **spent: int) -> None:
    sums = tuple((f"units:{name}", amount) for name, amount in spent.items())
    bench.finish((lease, report_of(lease, kind, spent=sums)))


def spent(bench: Bench) -> dict[tuple[str, str], int]:
    return {(row.name, row.kind): row.purse.spent for row in budget_rows(bench.store.conn)}


def left(row: ClaimedRow) -> dict[str, int]:
    return {f"{its.scope} {its.kind}": its.left for its in row.allowances}


def test_a_root_without_budgets_hands_out_no_allowances_and_runs_no_other_statements(bench: Bench) -> None:
    bench.one()
    seen: list[str] = []
    bench.store.conn.set_trace_callback(seen.append)

    (row,) = bench.claimed_rows()
    end(bench, row.lease, tokens=5)
    beat(bench, row.lease, tokens=7)

    bench.store.conn.set_trace_callback(None)
    assert row.allowances == ()
    assert not [statement for statement in seen if "budgets" in statement or "attempt_spending" in statement]


def test_an_agent_that_has_spent_all_waits_until_the_period_turns(bench: Bench) -> None:
    allot(bench, AGENT, "echo", 10, period_ms=HOUR)
    for _ in range(3):
        bench.one()
    bench.one("fail")

    (first,) = bench.claimed_rows(limit=1)
    assert left(first) == {"agent units:tokens": 10}
    end(bench, first.lease, tokens=12)
    claim = bench.claim_all()

    assert [row.lease.agent_id for row in claim.rows] == ["fail"]
    assert claim.held and claim.due_in_ms == HOUR - bench.now_ms % HOUR
    bench.now_ms += claim.due_in_ms
    assert len(bench.claim()) == 2


def test_a_key_that_has_spent_all_holds_up_nobody_else(bench: Bench) -> None:
    allot(bench, KEY, "tenant", 10)
    bench.one(concurrency_key="tenant")
    (first,) = bench.claimed_rows()
    end(bench, first.lease, tokens=10)
    bench.one(concurrency_key="tenant")
    other = bench.one(concurrency_key="other")

    claim = bench.claim_all()

    assert [row.lease.step_id for row in claim.rows] == [other]
    assert claim.held and claim.due_in_ms is None


def test_a_step_of_a_task_that_has_spent_all_is_dead_lettered_and_not_begun(bench: Bench) -> None:
    task_id = bench.flow({"id": "a"}, {"id": "b"}, {"id": "c", "dependsOn": ["b"]}, budget=((TOKENS, 10),))
    first, second = bench.claimed_rows()
    assert left(first) == {"task units:tokens": 10}
    end(bench, first.lease, tokens=10)
    end(bench, second.lease, "succeeded", tokens=0)

    (third,) = bench.claimed_rows()
    answer = bench.store.render(third)

    assert not isinstance(answer, Grant)
    assert answer[1] == Failed("budget_exhausted", "the budget of this task for units:tokens is used up", False)
    assert spent(bench) == {(task_id, TOKENS): 10}


def test_what_an_attempt_says_twice_late_and_at_its_end_is_charged_once(bench: Bench) -> None:
    allot(bench, AGENT, "echo", 1_000)
    task_id = bench.flow({"id": "a"}, budget=((TOKENS, 1_000),))
    (lease,) = bench.claim()

    beat(bench, lease, tokens=300)
    beat(bench, lease, tokens=300)
    beat(bench, lease, tokens=500)
    beat(bench, lease, tokens=400)
    end(bench, lease, tokens=600)
    beat(bench, lease, tokens=500)

    assert spent(bench) == {("echo", TOKENS): 600, (task_id, TOKENS): 600}


def test_words_of_one_attempt_in_one_transaction_are_charged_once(bench: Bench) -> None:
    allot(bench, AGENT, "echo", 1_000)
    bench.one()
    (lease,) = bench.claim()

    words = [AttemptSpent(lease, "w", ((TOKENS, amount),)) for amount in (500, 400, 500, 600)]
    with bench.store.write():
        bench.store.spend(words, now_ms=bench.now_ms)

    assert spent(bench)["echo", TOKENS] == 600


def test_a_killed_attempt_has_spent_what_its_heartbeats_said_and_the_next_one_its_own(bench: Bench) -> None:
    allot(bench, AGENT, "echo", 1_000)
    bench.one()
    (lease,) = bench.claim()
    beat(bench, lease, tokens=300)

    bench.reclaim(*bench.seen())
    bench.now_ms += 60_000
    bench.promote()
    (again,) = bench.claim("n2")
    end(bench, again, tokens=200)

    assert again.lease_epoch == lease.lease_epoch + 1
    assert spent(bench)["echo", TOKENS] == 500


def test_an_owner_that_was_fenced_has_spent_it_all_the_same(bench: Bench) -> None:
    allot(bench, AGENT, "echo", 1_000)
    bench.one()
    (lease,) = bench.claim()
    bench.reclaim(*bench.seen())

    end(bench, lease, tokens=300)

    assert spent(bench)["echo", TOKENS] == 300
    assert len(bench.rows("SELECT * FROM lease_conflicts")) == 1


def test_a_transaction_that_fails_charges_nothing(bench: Bench) -> None:
    allot(bench, AGENT, "echo", 1_000)
    bench.one()
    (lease,) = bench.claim()

    with pytest.raises(ZeroDivisionError), bench.store.write():
        bench.store.spend([AttemptSpent(lease, "w", ((TOKENS, 5),))], now_ms=bench.now_ms)
        raise ZeroDivisionError

    assert spent(bench)["echo", TOKENS] == 0
    assert bench.rows("SELECT * FROM attempt_spending") == []


def test_every_attempt_that_runs_is_cut_once_their_sum_crosses_the_budget(bench: Bench) -> None:
    allot(bench, AGENT, "echo", 100)
    bench.one()
    bench.one()
    one, two = bench.claim()

    assert beat(bench, one, tokens=60) == ()
    (cut,) = beat(bench, two, tokens=60)
    (other,) = beat(bench, one, tokens=60)

    assert (cut.row_id, other.row_id) == (two.row_id, one.row_id)
    assert cut.retryable and cut.error == "the budget of agent echo for units:tokens is used up"
    assert [row.name for row in bench.store.take_used_up()] == ["echo"]


def test_who_measures_no_time_takes_that_from_start_to_end(bench: Bench) -> None:
    allot(bench, AGENT, "echo", 5 * MICROS, kind=WALL)
    bench.one()
    (lease,) = bench.claim()

    bench.finish((lease, report_of(lease, started_at_ms=1_000, finished_at_ms=2_500)))

    assert spent(bench)["echo", WALL] == 1_500_000


def test_a_raised_amount_keeps_what_was_spent_and_another_period_begins_anew(bench: Bench) -> None:
    allot(bench, AGENT, "echo", 10, period_ms=HOUR)
    bench.one()
    bench.one()
    (lease,) = bench.claim(limit=1)
    end(bench, lease, tokens=10)
    assert bench.claim() == []

    allot(bench, AGENT, "echo", 20, period_ms=HOUR)
    assert spent(bench)["echo", TOKENS] == 10
    (row,) = bench.claimed_rows()
    assert left(row) == {"agent units:tokens": 10}
    allot(bench, AGENT, "echo", 20, period_ms=2 * HOUR)
    assert spent(bench)["echo", TOKENS] == 0


def test_another_process_hears_of_the_first_budget_of_a_task_and_of_its_removal(bench: Bench) -> None:
    allot(bench, AGENT, "other", 10)
    bench.claim()  # it knows the rules of now
    elsewhere = Bench(bench.root)
    elsewhere.ids = bench.ids

    task = elsewhere.new_task(budget=((TOKENS, 10),))
    elsewhere.submit(task)
    elsewhere.close()
    (row,) = bench.claimed_rows()

    assert left(row) == {"task units:tokens": 10}
    with bench.store.write():
        assert remove_budget(bench.store.conn, TASK, task.task_id, TOKENS, now_ms=bench.now_ms)
        assert not remove_budget(bench.store.conn, TASK, task.task_id, TOKENS, now_ms=bench.now_ms)


def test_a_duplicate_brings_no_budget(bench: Bench) -> None:
    bench.submit(bench.new_task(key="k"))

    bench.submit(bench.new_task(key="k", budget=((TOKENS, 10),)))

    assert spent(bench) == {}


def test_owners_and_roots_have_only_so_many_budgets(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(16):
        allot(bench, AGENT, "echo", 1, kind=f"units:u{number}")
    with pytest.raises(TooManyRulesError):
        allot(bench, AGENT, "echo", 1)
    monkeypatch.setattr("relaymesh.store.budget_rows.BUDGETS_MAX", 16)
    with pytest.raises(TooManyRulesError):
        allot(bench, KEY, "k", 1)
    allot(bench, TASK, "tsk", 1)


def test_a_task_that_is_purged_takes_its_budget_and_its_sums_along(bench: Bench) -> None:
    task = bench.new_task(budget=((TOKENS, 10),))
    bench.submit(task)
    (lease,) = bench.claim()
    end(bench, lease, tokens=5)
    bench.now_ms += 60_000
    with bench.store.write():
        bench.store.forget_keys(before_ms=bench.now_ms, limit=10)

    purge = Purge(bench.store, Ages(done_before_ms=bench.now_ms), now_ms=lambda: bench.now_ms)
    while purge.piece(100) is not None:
        pass

    assert bench.rows("SELECT * FROM tasks") == []
    assert bench.rows("SELECT * FROM budgets") == bench.rows("SELECT * FROM attempt_spending") == []


def test_what_is_used_up_is_counted_in_the_window_of_now(bench: Bench) -> None:
    allot(bench, AGENT, "echo", 10, period_ms=HOUR)
    allot(bench, AGENT, "fail", 10)
    for agent in ("echo", "fail"):
        bench.one(agent)
    for lease in bench.claim():
        end(bench, lease, tokens=10)

    assert count_budgets(bench.store.conn, now_ms=bench.now_ms)["agent"] == (2, 2)
    assert count_budgets(bench.store.conn, now_ms=bench.now_ms + HOUR)["agent"] == (2, 1)


ends = st.sampled_from(["succeeded", "failed", "lost", "reclaimed"])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.integers(0, 50), max_size=4), ends, st.integers(0, 50)), max_size=8),
    st.integers(0, 200),
)
def test_whatever_becomes_of_attempts_the_sum_is_what_was_told_and_nothing_begins_beyond_it(
    attempts: list[tuple[list[int], str, int]], amount: int
) -> None:
    bench = Bench.in_memory()
    allot(bench, AGENT, "echo", amount)
    told = 0
    for _ in range(len(attempts)):
        bench.one()
    for beats, how, last in attempts:
        bench.now_ms += 60_000
        bench.promote()
        leases = bench.claim(limit=1)
        assert bool(leases) == (told < amount)
        if not leases:
            break
        (lease,) = leases
        total = 0
        for step in beats:
            total += step
            beat(bench, lease, tokens=total)
        if how == "lost":
            bench.lose(lease)
        elif how == "reclaimed":
            bench.reclaim(*bench.seen())
        else:
            total += last
            end(bench, lease, how, tokens=total)
        told += total

    assert spent(bench)["echo", TOKENS] == told
