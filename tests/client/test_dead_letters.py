"""Dead letters: filters, another input, from a step on, and giving up."""

from __future__ import annotations

import hashlib
import json

import pytest

from relaymesh.client import Client
from relaymesh.errors import InputError
from relaymesh.store.dead_letter import NoSuchDeadStepError, NotEditableError
from relaymesh.submission import PayloadTooLargeError
from relaymesh.wire.store import LeaseRef
from tests.store.bench import Bench, report_of

HOUR = 3_600_000


def lease_of(bench: Bench, step_id: str) -> LeaseRef:
    """Claim all there is; give back what is not this step."""
    leases = {lease.step_id: lease for lease in bench.claim()}
    for other, lease in leases.items():
        if other != step_id:
            bench.release(lease)
    return leases[step_id]


def die(bench: Bench, step_id: str, error: str = "ValueError: no such order", code: str = "agent_error") -> None:
    lease = lease_of(bench, step_id)
    bench.finish((lease, report_of(lease, "failed", code=code, error=error, retryable=False)))


def succeed(bench: Bench, step_id: str, output: str) -> None:
    bench.succeed(lease_of(bench, step_id), output)


def dead(bench: Bench, agent: str = "echo", **why: str) -> str:
    step_id = bench.one(agent)
    die(bench, step_id, **why)
    return f"tsk_{step_id[4:]}"


def statuses(bench: Bench, task_id: str) -> dict[str, str]:
    rows = bench.rows("SELECT step_id, status FROM steps WHERE task_id=? ORDER BY step_id", task_id)
    return {str(row["step_id"]).removeprefix(f"stp_{task_id}_"): str(row["status"]) for row in rows}


@pytest.fixture
def three(bench: Bench) -> dict[str, str]:
    """Three dead letters, an hour apart."""
    found = {"old": dead(bench, "other", error="KeyError: 'x'")}
    bench.now_ms += HOUR
    found["slow"] = dead(bench, error="took too long", code="timeout")
    bench.now_ms += HOUR
    found["new"] = dead(bench)
    return found


FILTERS: list[tuple[dict[str, object], set[str]]] = [
    ({}, {"old", "slow", "new"}),
    ({"agent": "other"}, {"old"}),
    ({"error_class": "timeout"}, {"slow"}),
    ({"error_class": "ValueError"}, {"new"}),
    ({"error_class": "Value"}, set()),
    ({"error_class": "agent_error"}, {"old", "new"}),
    ({"text": "NO SUCH"}, {"new"}),
    ({"text": "100%_"}, set()),
    ({"older_than_ms": HOUR - 1_000}, {"old", "slow"}),
    ({"newer_than_ms": HOUR}, {"slow", "new"}),
    ({"agent": "echo", "older_than_ms": HOUR - 1_000}, {"slow"}),
]


@pytest.mark.parametrize(("filters", "names"), FILTERS)
def test_a_listing_and_a_batch_take_the_same_filters(
    client: Client, three: dict[str, str], filters: dict[str, object], names: set[str]
) -> None:
    listed = [letter.task_id for letter in client.dead_letters(**filters)]  # type: ignore[arg-type]
    batch = client.replay_batch(**filters)  # type: ignore[arg-type]

    assert set(listed) == {three[name] for name in names}
    assert {outcome.task_id for outcome in batch.details} == set(listed)
    assert (batch.total, batch.replayed, batch.failed, batch.status) == (len(names), len(names), 0, "DEAD_LETTER")
    assert {three[name] for name in names} == {
        task_id for task_id in three.values() if client.task(task_id).status == "PENDING"
    }


def test_a_batch_is_bounded_and_takes_the_latest(client: Client, three: dict[str, str]) -> None:
    batch = client.replay_batch(limit=1, error_class="agent_error")

    assert [outcome.task_id for outcome in batch.details] == [three["new"]]
    assert [letter.task_id for letter in client.dead_letters(limit=1)] == [three["slow"]]


def test_filters_go_with_dead_letters_only(client: Client, three: dict[str, str]) -> None:
    with pytest.raises(InputError, match="filters"):
        client.replay_batch("SUCCESS", agent="echo")


def test_a_batch_says_in_the_audit_log_what_it_looked_for(client: Client, three: dict[str, str]) -> None:
    client.replay_batch(agent="other")

    (row,) = client.audit_query(action="dead.replay.batch")
    assert json.loads(row)["details"] == {
        "status": "DEAD_LETTER",
        "limit": 100,
        "candidates": 1,
        "replayed": 1,
        "failed": 0,
        "agent": "other",
    }


def test_a_replay_takes_another_input_and_the_log_keeps_both_by_hash(client: Client, bench: Bench) -> None:
    task_id = dead(bench)

    outcome = client.replay(task_id, edit="mended and secret")

    assert outcome.replayed
    (row,) = bench.claimed_rows()
    assert row.payload == "mended and secret"
    (line,) = client.audit_query(action="dead.replay")
    (edited,) = json.loads(line)["details"]["edited"]
    assert edited["old"] == {"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    assert edited["new"] == {"bytes": 17, "sha256": hashlib.sha256(b"mended and secret").hexdigest()}
    assert "mended" not in (client.root / "audit" / "audit.log").read_text()


def test_a_long_input_goes_to_a_file_and_back(client: Client, bench: Bench) -> None:
    task_id = dead(bench)
    long = "ä" * 100_000

    client.replay(task_id, edit=long)

    (row,) = bench.claimed_rows()
    assert row.payload is None and bench.store.payloads.read(row.payload_path) == long


def test_what_is_edited_is_taken_as_it_stands(client: Client, bench: Bench) -> None:
    task_id = bench.flow({"id": "a"}, {"id": "b", "input": {"$from": "a"}})
    succeed(bench, f"stp_{task_id}_a", "{}")
    die(bench, f"stp_{task_id}_b")

    client.replay(task_id, edit='{"$from": "a"}')

    (row,) = bench.claimed_rows()
    grant = bench.store.render(row)
    assert getattr(grant, "payload", None) == '{"$from": "a"}'


def test_an_input_is_for_the_step_that_is_named(client: Client, bench: Bench) -> None:
    task_id = bench.flow({"id": "a", "input": "1"}, {"id": "b", "input": "2"})
    die(bench, f"stp_{task_id}_a")
    die(bench, f"stp_{task_id}_b")

    with pytest.raises(NotEditableError, match="2 dead-lettered steps"):
        client.replay(task_id, edit="x")
    with pytest.raises(NoSuchDeadStepError, match="nothing was changed"):
        client.replay(task_id, edit={"c": "x"})
    assert client.task(task_id).status == "DEAD_LETTER"
    client.replay(task_id, edit={"b": "new"})

    assert {row.lease.step_id[-1]: row.payload for row in bench.claimed_rows()} == {"a": "1", "b": "new"}


def test_an_input_is_checked_as_at_a_submit(client: Client, bench: Bench) -> None:
    task_id = dead(bench)

    with pytest.raises(PayloadTooLargeError):
        client.replay(task_id, edit="x" * 10_485_761)

    assert client.task(task_id).status == "DEAD_LETTER"


def test_every_dead_step_is_replayed_and_those_that_can_run_are_ready(client: Client, bench: Bench) -> None:
    task_id = bench.flow({"id": "a"}, {"id": "b"}, {"id": "c", "dependsOn": ["a", "b"]})
    die(bench, f"stp_{task_id}_a")
    die(bench, f"stp_{task_id}_b")

    client.replay(task_id)

    assert {lease.step_id[-1] for lease in bench.claim()} == {"a", "b"}


def test_from_a_step_on_runs_again_what_depends_on_it_and_keeps_the_rest(client: Client, bench: Bench) -> None:
    task_id = bench.flow(
        {"id": "a"},
        {"id": "b", "input": {"$from": "a"}},
        {"id": "side"},
        {"id": "c", "dependsOn": ["b", "side"]},
    )
    for name in ("a", "side", "b"):
        succeed(bench, f"stp_{task_id}_{name}", f'"{name}"')
    die(bench, f"stp_{task_id}_c")

    client.replay(task_id, from_step="b")

    assert statuses(bench, task_id) == {"a": "SUCCESS", "b": "PENDING", "side": "SUCCESS", "c": "PENDING"}
    assert client.output(task_id, "a") == '"a"' and client.output(task_id, "b") is None
    bench.run_all(output='"again"')
    task = client.task(task_id)
    assert task.status == "SUCCESS"
    assert json.loads(task.result_payload or "") == {
        f"stp_{task_id}_{name}": '"a"' if name == "a" else '"side"' if name == "side" else '"again"'
        for name in ("a", "b", "c", "side")
    }


def test_a_map_step_behind_it_is_spread_anew(client: Client, bench: Bench) -> None:
    task_id = bench.flow({"id": "a"}, {"id": "m", "map": {"$from": "a"}}, {"id": "z", "input": {"$from": "m"}})
    succeed(bench, f"stp_{task_id}_a", "[1,2,3]")
    succeed(bench, f"stp_{task_id}_m[1]", "x")
    die(bench, f"stp_{task_id}_m[2]")

    client.replay(task_id, from_step="a")
    succeed(bench, f"stp_{task_id}_a", "[7]")

    assert statuses(bench, task_id) == {"a": "SUCCESS", "m": "PENDING", "m[0]": "PENDING", "z": "PENDING"}
    bench.run_all(output="1")
    assert client.task(task_id).status == "SUCCESS"


def test_what_runs_behind_the_step_is_fenced(client: Client, bench: Bench) -> None:
    task_id = bench.flow({"id": "a"}, {"id": "b", "dependsOn": ["a"]}, {"id": "c", "dependsOn": ["a"]})
    succeed(bench, f"stp_{task_id}_a", "1")
    leases = {lease.step_id[-1]: lease for lease in bench.claim()}
    bench.fail(leases["b"], retryable=False)

    client.replay(task_id, from_step="a")
    late = bench.succeed(leases["c"], "too late")

    assert late.refused == (leases["c"].row_id,)
    assert statuses(bench, task_id) == {"a": "PENDING", "b": "PENDING", "c": "PENDING"}


@pytest.mark.parametrize("name", ["nope", "m[0]"])
def test_a_step_to_begin_from_has_a_name_in_the_workflow(client: Client, bench: Bench, name: str) -> None:
    task_id = bench.flow({"id": "m", "map": [1]})
    die(bench, f"stp_{task_id}_m[0]")

    if name == "nope":
        with pytest.raises(NoSuchDeadStepError):
            client.replay(task_id, from_step=name)
        assert client.task(task_id).status == "DEAD_LETTER"
    else:
        assert client.replay(task_id, from_step=name).replayed  # a dead copy by itself is what a replay runs again


def test_a_replay_is_refused_when_the_cluster_epoch_was_raised_meanwhile(client: Client, bench: Bench) -> None:
    task_id = dead(bench)
    with bench.store.write():
        code = bench.store.replay(task_id, cluster_epoch=99, now_ms=bench.now_ms)

    assert code == "stale"
    assert client.task(task_id).status == "DEAD_LETTER"


def test_a_discarded_task_leaves_the_dead_letters_and_stays_readable(client: Client, bench: Bench) -> None:
    task_id = bench.flow({"id": "a"}, {"id": "b", "dependsOn": ["a"]})
    die(bench, f"stp_{task_id}_a")

    outcome = client.discard(task_id, reason=" the order was withdrawn ")

    assert (outcome.discarded, outcome.message, outcome.step_rows) == (True, "discarded", 2)
    assert client.dead_letters() == [] and client.tasks(status="DEAD_LETTER") == []
    task = client.task(task_id)
    assert (task.status, task.last_error) == ("CANCELLED", "discarded: the order was withdrawn")
    assert statuses(bench, task_id) == {"a": "CANCELLED", "b": "CANCELLED"}
    assert bench.rows("SELECT reason, actor, steps FROM discards") == [
        {"reason": "the order was withdrawn", "actor": "cli", "steps": 2}
    ]
    (row,) = client.audit_query(action="dead.discard")
    assert json.loads(row)["details"]["reason"] == "the order was withdrawn"


def test_a_discarded_task_is_neither_discarded_nor_replayed_again(client: Client, bench: Bench) -> None:
    task_id = dead(bench)
    client.discard(task_id, reason="r")

    assert client.discard(task_id, reason="r").message == "invalid_state"
    assert client.replay(task_id).message == "invalid_state"
    assert client.discard("tsk_none", reason="r").message == "not_found"


@pytest.mark.parametrize("reason", ["", "  ", "x" * 1_001])
def test_a_discard_needs_a_reason(client: Client, bench: Bench, reason: str) -> None:
    task_id = dead(bench)

    with pytest.raises(InputError, match="reason"):
        client.discard(task_id, reason=reason)

    assert client.task(task_id).status == "DEAD_LETTER"


def test_an_input_whose_file_is_lost_can_be_replaced(client: Client, bench: Bench) -> None:
    step_id = bench.one("echo", "x" * 100_000)
    die(bench, step_id)
    for file in (client.root / "payload").rglob("*"):
        if file.is_file():
            file.unlink()

    client.replay(f"tsk_{step_id[4:]}", edit="short")

    (row,) = bench.claimed_rows()
    assert (row.payload, row.payload_path) == ("short", "")
    (line,) = client.audit_query(action="dead.replay")
    assert json.loads(line)["details"]["edited"][0]["old"] is None


def test_ages_that_exclude_each_other_are_refused_and_nothing_is_replayed(client: Client, bench: Bench) -> None:
    task_id = dead(bench)

    for ask in (client.dead_letters, client.replay_batch):
        with pytest.raises(InputError, match="leave no time between them: exchange the two"):
            ask(older_than_ms=2 * HOUR, newer_than_ms=HOUR)

    assert client.task(task_id).status == "DEAD_LETTER"
