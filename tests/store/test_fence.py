"""The fence: what is written about a step must carry token, lease epoch and cluster epoch of its claim, all three.

A token alone would do, as long as no two claims ever draw the same one; that no write depends on it is what this shows.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from relaymesh.wire.store import LeaseRef
from tests.store.bench import Bench, report_of


def bump(bench: Bench) -> None:
    with bench.store.write():
        bench.store.conn.execute("UPDATE cluster_state SET state_value='2', version=2 WHERE state_key='cluster_epoch'")


def forged(bench: Bench, lease: LeaseRef, member: str) -> LeaseRef:
    """The lease with one member that is not that of the row, and the others that are."""
    match member:
        case "lease_token":
            return msgspec.structs.replace(lease, lease_token="drawn by somebody else")
        case "lease_epoch":
            return msgspec.structs.replace(lease, lease_epoch=lease.lease_epoch + 1)
    # The row was claimed under the epoch before; the lease says that it was claimed under the present one.
    bump(bench)
    return msgspec.structs.replace(lease, cluster_epoch=2)


def renew(bench: Bench, lease: LeaseRef) -> None:
    with bench.store.write():
        lost = bench.store.renew(
            [(lease.row_id, lease.lease_token, lease.lease_epoch, lease.cluster_epoch)],
            progress=[],
            now_ms=bench.now_ms,
        )
    assert lost == (lease.row_id,)


WRITES: dict[str, Callable[[Bench, LeaseRef], object]] = {
    "success": lambda bench, lease: bench.succeed(lease),
    "failure": lambda bench, lease: bench.fail(lease),
    "dead letter": lambda bench, lease: bench.finish(
        (lease, report_of(lease, "failed", code="x", error="no", retryable=False))
    ),
    "snooze": lambda bench, lease: bench.snooze(lease, 1_000),
    "release": lambda bench, lease: bench.release(lease),
    "death of the worker": lambda bench, lease: bench.lose(lease),
    "renewal": renew,
}
MEMBERS = ["lease_token", "lease_epoch", "cluster_epoch"]


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("write", WRITES)
def test_a_write_with_one_wrong_member_of_the_lease_changes_nothing(bench: Bench, write: str, member: str) -> None:
    step_id = bench.one()
    (lease,) = bench.claim()
    wrong = forged(bench, lease, member)
    bench.now_ms += 1_000
    before = bench.step(step_id), bench.task_of(step_id)

    WRITES[write](bench, wrong)

    assert (bench.step(step_id), bench.task_of(step_id)) == before


@pytest.mark.parametrize("write", WRITES)
def test_after_a_bump_of_the_cluster_epoch_the_lease_itself_is_good_for_nothing(bench: Bench, write: str) -> None:
    step_id = bench.one()
    (lease,) = bench.claim()
    bump(bench)
    bench.now_ms += 1_000
    before = bench.step(step_id), bench.task_of(step_id)

    WRITES[write](bench, lease)

    assert (bench.step(step_id), bench.task_of(step_id)) == before


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("shape", ["sole", "flow"])
def test_a_success_with_one_wrong_member_is_refused_among_others_that_count(
    bench: Bench, shape: str, member: str
) -> None:
    for _ in range(3):
        if shape == "sole":
            bench.one()
        else:
            bench.flow({"id": "a"}, {"id": "b", "dependsOn": ["a"]})
    (two,) = bench.claim(limit=1)
    wrong = forged(bench, two, member)
    one, three = bench.claim(limit=2)

    result = bench.finish(*((lease, report_of(lease, output="x")) for lease in (one, wrong, three)))

    assert result.refused == (two.row_id,)
    assert [bench.step(lease.step_id)["status"] for lease in (one, two, three)] == ["SUCCESS", "RUNNING", "SUCCESS"]
    assert [row["event_type"] for row in bench.conflicts()] == ["success_commit_conflict"]
