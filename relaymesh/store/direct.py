"""Store new tasks and claim them in the same breath.

A task that a free slot waits for need not be stored as waiting, found, and taken: its row is written as RUNNING, with
its lease. The dispatch rules decide over what waits already and what is new together, so nothing is overtaken that
would not be if the tasks had been stored first.

Only single-step tasks go this way. When an idempotency key is taken, or when steps with a concurrency key wait that
new ones must not overtake, the batch goes the long way, which costs more and does the same.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from relaymesh.core.fairness import LANES, Candidate, Fairness, Lane
from relaymesh.store.admin import KEY_TTL_MS
from relaymesh.store.claim import Claim, Claimant, ClaimedRow, Slots, choose, claim, take
from relaymesh.store.submit import insert_claimed, insert_claimed_one, insert_tasks, is_direct, is_plain
from relaymesh.store.throttle import Throttle
from relaymesh.wire.store import SHAPE_SOLE, LeaseRef, NewTask

__all__ = ["submit_and_claim"]


def submit_and_claim(
    conn: sqlite3.Connection,
    tasks: Sequence[NewTask],
    slots: Slots,
    state: Fairness,
    claimant: Claimant,
    *,
    namespace: str,
    now_ms: int,
    throttle: Callable[[], Throttle | None] = lambda: None,
    key_age_ms: Callable[[], int] = lambda: KEY_TTL_MS,
    nothing_waits: bool = False,
) -> tuple[list[tuple[str, bool]], Claim]:
    """Insert single-step tasks and claim ready steps; return what each alone would return.

    throttle: makes what holds for one claim. key_age_ms: as for ``insert_tasks``. nothing_waits: as for ``choose``.
    The caller holds the write transaction.
    """
    fresh: dict[Lane, list[Candidate]] = {}
    for number, task in enumerate(tasks, 1):
        assert is_direct(task), "all else is stored first and claimed afterwards"
        (step,) = task.steps
        pool, lane = slots.pools.get(step.agent_id), LANES.get(step.priority)
        if pool is not None and lane is not None and step.not_before_ms is None:
            key = step.concurrency_key or ""
            fresh.setdefault(lane, []).append(Candidate(-number, step.agent_id, pool, now_ms, key))
    held = throttle()
    if held is not None and not all(map(is_plain, tasks)) and held.has_keyed():
        results = insert_tasks(conn, tasks, namespace=namespace, now_ms=now_ms, key_age_ms=key_age_ms)
        return results, claim(conn, slots, state, claimant, now_ms, throttle=throttle())
    choice = choose(conn, slots, state, fresh, throttle=held, nothing_waits=nothing_waits)
    picks = choice.planned.picks
    if len(tasks) == len(picks) == 1 and picks[0].row_id < 0 and is_plain(tasks[0]):
        # All there is to claim: two statements instead of five.
        first = insert_claimed_one(conn, tasks[0], claimant, namespace=namespace, now_ms=now_ms)
        if first is not None:
            born = _born_running(tasks[0], first, picks[0].pool, claimant)
            return [(tasks[0].task_id, False)], choice.claim_of([born])
    else:
        running = [-pick.row_id - 1 for pick in picks if pick.row_id < 0]
        chosen = set(running)
        first = insert_claimed(
            conn,
            [tasks[index] for index in running],
            [task for index, task in enumerate(tasks) if index not in chosen],
            claimant,
            namespace=namespace,
            now_ms=now_ms,
        )
    if first is None:
        results = insert_tasks(conn, tasks, namespace=namespace, now_ms=now_ms, key_age_ms=key_age_ms)
        return results, claim(conn, slots, state, claimant, now_ms, throttle=throttle())
    rows = take(conn, choice, claimant, now_ms)
    claimed: list[ClaimedRow] = []
    row_id = first
    for pick in picks:
        if pick.row_id >= 0:
            claimed.append(rows[pick.row_id])
        else:
            claimed.append(_born_running(tasks[-pick.row_id - 1], row_id, pick.pool, claimant))
            row_id += 1
    results = [(task.task_id, False) for task in tasks]
    return results, choice.claim_of(claimed)


def _born_running(task: NewTask, row_id: int, pool: str, claimant: Claimant) -> ClaimedRow:
    (step,) = task.steps
    token, epoch = f"{claimant.token}{row_id}", claimant.cluster_epoch
    lease = LeaseRef(row_id, step.step_id, task.task_id, step.agent_id, 1, token, 1, epoch, SHAPE_SOLE)
    return ClaimedRow(lease, pool, step.stored, step.payload_path, False, None, None, step.traceparent)
