"""The node's bookkeeping about one worker process."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.agents.backlog import KILL_MARGIN_MS, Backlog
from relaymesh.wire.work import StepOrder

Order = Callable[..., StepOrder]


def test_the_first_order_without_an_answer_is_the_one_that_runs(order: Order) -> None:
    backlog = Backlog()
    orders = [order("a", row_id=number, timeout_ms=100) for number in (1, 2, 3)]
    backlog.sent([(it, 10) for it in orders], 1_000)
    assert backlog.head == orders[0] and backlog.waiting == tuple(orders[1:])

    assert backlog.done([1, 9], 1_500) == [orders[0]]

    assert backlog.head == orders[1] and len(backlog) == 2 and 2 in backlog and 1 not in backlog
    assert backlog.kill_at_ms() == 1_500 + 100 + 10 + KILL_MARGIN_MS


def test_the_time_of_the_head_counts_from_its_start(order: Order) -> None:
    backlog = Backlog()
    backlog.sent([(order("a", timeout_ms=100), 10)], 1_000)

    backlog.started(1, "lease_of_an_earlier_attempt", 7_000)
    assert backlog.kill_at_ms() == 1_110 + KILL_MARGIN_MS
    backlog.started(1, "lease_1", 2_000)
    assert backlog.kill_at_ms() == 2_110 + KILL_MARGIN_MS


def test_a_cancelled_head_has_its_grace_time_and_no_more(order: Order) -> None:
    backlog = Backlog()
    backlog.sent([(order("a", row_id=number, timeout_ms=60_000), 10) for number in (1, 2)], 1_000)

    backlog.cancelled(2, 1_100)
    assert backlog.kill_at_ms() == 61_010 + KILL_MARGIN_MS
    backlog.cancelled(1, 1_200)
    assert backlog.kill_at_ms() == 1_210 + KILL_MARGIN_MS
    backlog.done([1], 1_300)
    assert backlog.kill_at_ms() == 61_310 + KILL_MARGIN_MS


def test_a_death_is_blamed_on_the_step_that_the_worker_marked(order: Order) -> None:
    backlog = Backlog()
    orders = [order("a", row_id=number) for number in (1, 2, 3)]
    backlog.sent([(it, 10) for it in orders], 0)

    assert backlog.lost(2) == (orders[1], (orders[0], orders[2]))
    assert (len(backlog), backlog.head, backlog.kill_at_ms()) == (0, None, None)
    backlog.sent([(it, 10) for it in orders], 0)
    assert backlog.lost(None) == (None, tuple(orders))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(["sent", "done", "cancelled", "started"]), st.integers(0, 5))))
def test_the_head_is_always_the_oldest_open_order(events: list[tuple[str, int]]) -> None:
    backlog, open_rows = Backlog(), []  # type: ignore[var-annotated]

    for now_ms, (what, row_id) in enumerate(events):
        order = StepOrder(row_id, "s", "t", "a", 1, "", "l", 1, "i", "0", 100)
        if what == "sent" and row_id not in open_rows:
            backlog.sent([(order, 5)], now_ms)
            open_rows.append(row_id)
        elif what == "done":
            assert [it.row_id for it in backlog.done([row_id], now_ms)] == [row_id] * (row_id in open_rows)
            open_rows = [row for row in open_rows if row != row_id]
        elif what == "cancelled":
            backlog.cancelled(row_id, now_ms)
        elif what == "started":
            backlog.started(row_id, "l", now_ms)

        assert (backlog.head.row_id if backlog.head else None) == (open_rows[0] if open_rows else None)
        assert [it.row_id for it in backlog.waiting] == open_rows[1:]
        assert (backlog.kill_at_ms() is None) == (not open_rows)
