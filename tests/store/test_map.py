"""Map steps: spread out over a list, joined again, and what happens when the list is none."""

from __future__ import annotations

import json

import pytest

from relaymesh.core.limit import PAYLOAD_BYTES_MAX, STEPS_MAX
from relaymesh.store.payload import ReadText
from relaymesh.store.release import STEPS_MAX as LIMIT_IN_USE
from relaymesh.wire.store import Grant
from tests.store.bench import Bench


def outputs(bench: Bench, task_id: str) -> dict[str, str]:
    text = bench.task(task_id)["result_payload"]
    return {name.removeprefix(f"stp_{task_id}_"): output for name, output in json.loads(str(text)).items()}


def inputs(bench: Bench) -> list[str]:
    grants = [bench.store.render(row) for row in bench.claimed_rows()]
    assert all(isinstance(grant, Grant) for grant in grants), grants
    return [grant.payload for grant in grants if isinstance(grant, Grant)]


def noting(read: list[str], text: ReadText) -> ReadText:
    """Return what reads texts and notes whose they are."""

    def noted(kind: str, owner: str, value: str | bytes | None, path: str | None) -> str | None:
        read.append(owner)
        return text(kind, owner, value, path)

    return noted


def test_a_literal_list_is_spread_at_submit_and_joined_at_the_end(bench: Bench) -> None:
    task_id = bench.flow(
        {"id": "m", "map": ["a", "b", "c"], "input": "on {{item}} at {{index}}"},
        {"id": "end", "dependsOn": ["m"], "input": {"$from": "m"}},
    )

    rows = bench.claimed_rows()
    grants = [bench.store.render(row) for row in rows]
    assert [g.payload for g in grants if isinstance(g, Grant)] == ["on a at 0", "on b at 1", "on c at 2"]
    for row in reversed(rows):
        bench.succeed(row.lease, f"out {row.map_index}")

    assert inputs(bench) == ['["out 0","out 1","out 2"]']
    assert bench.step_of(task_id, "m")["status"] == "SUCCESS"


def test_a_map_step_with_the_same_input_for_all_gives_each_copy_that_text(bench: Bench) -> None:
    bench.flow({"id": "m", "map": [1, 2], "input": "no reference {{'{{'}} in it"})
    bench.flow({"id": "m", "map": [1], "input": "plain"})

    assert inputs(bench) == ["no reference {{ in it", "no reference {{ in it", "plain"]


def test_a_list_that_a_step_put_out_is_spread_in_the_same_commit(bench: Bench) -> None:
    task_id = bench.flow({"id": "a"}, {"id": "m", "map": {"$from": "a"}, "input": {"$item": ""}})
    (lease,) = bench.claim()

    result = bench.succeed(lease, '["x", {"y": 1}]')

    assert result.released
    assert (bench.step_of(task_id, "m")["waiting_on"], bench.task(task_id)["open_steps"]) == (2, 3)
    assert inputs(bench) == ["x", '{"y": 1}']


def test_a_copy_reads_no_output_that_its_input_does_not_name(bench: Bench) -> None:
    bench.flow(
        {"id": "list"},
        {"id": "word"},
        {"id": "m", "map": {"$from": "list"}, "input": "{{item.n}} {{steps.word.output}}"},
    )
    for lease in bench.claim():
        bench.succeed(
            lease, json.dumps([{"n": n, "pad": "x" * 50_000} for n in range(2)]) if "list" in lease.step_id else "w"
        )
    read: list[str] = []
    bench.store.payloads.text = noting(read, bench.store.payloads.text)  # type: ignore[method-assign]

    assert inputs(bench) == ["0 w", "1 w"]
    assert [owner.rsplit("_", 1)[1] for owner in read if "list" in owner or "word" in owner] == ["word", "word"]


def test_an_input_that_outgrows_its_limit_is_refused_before_the_rest_is_read(bench: Bench) -> None:
    names = [f"s{number}" for number in range(8)]
    bench.flow(*({"id": name} for name in names), {"id": "join", "input": [{"$from": name} for name in names]})
    for lease in bench.claim():
        bench.succeed(lease, "x" * (PAYLOAD_BYTES_MAX // 2))
    read: list[str] = []
    bench.store.payloads.text = noting(read, bench.store.payloads.text)  # type: ignore[method-assign]

    (row,) = bench.claimed_rows()
    refused = bench.store.render(row)

    assert not isinstance(refused, Grant) and refused[1].code == "input_too_large"
    assert len([owner for owner in read if "join" not in owner]) == 2


def test_an_empty_list_is_joined_at_once_and_sets_its_dependents_free(bench: Bench) -> None:
    task_id = bench.flow(
        {"id": "m", "map": []}, {"id": "n", "map": {"$from": "m"}}, {"id": "end", "input": {"$from": "n"}}
    )

    assert inputs(bench) == ["[]"]
    assert [bench.step_of(task_id, name)["status"] for name in "mn"] == ["SUCCESS", "SUCCESS"]


def test_a_task_whose_lists_are_all_empty_is_done_when_it_is_submitted(bench: Bench) -> None:
    task_id = bench.flow({"id": "m", "map": []}, {"id": "n", "map": {"$from": "m"}})

    assert bench.task(task_id)["status"] == "SUCCESS"
    assert outputs(bench, task_id) == {"m": "[]", "n": "[]"}


def test_a_map_may_feed_a_map(bench: Bench) -> None:
    task_id = bench.flow({"id": "m", "map": [1, 2]}, {"id": "n", "map": {"$from": "m"}, "input": "{{item}}"})

    bench.run_all(output="[7]")

    assert outputs(bench, task_id)["n"] == "[[7],[7]]"


def test_what_is_no_list_dead_letters_the_step_and_replaying_looks_at_it_again(bench: Bench) -> None:
    task_id = bench.flow({"id": "a"}, {"id": "m", "map": {"$from": "a"}}, {"id": "end", "dependsOn": ["m"]})
    (lease,) = bench.claim()

    bench.succeed(lease, '{"no": "list"}')

    assert (bench.step_of(task_id, "m")["status"], bench.task(task_id)["status"]) == ("DEAD_LETTER", "DEAD_LETTER")
    assert "not over a JSON array" in str(bench.task(task_id)["last_error"])
    with bench.store.write():
        assert bench.store.replay(task_id, now_ms=bench.now_ms) == "replayed"
    assert bench.step_of(task_id, "m")["status"] == "DEAD_LETTER"
    assert bench.claim() == []


def test_a_dead_copy_is_replayed_and_the_map_is_joined_then(bench: Bench) -> None:
    task_id = bench.flow({"id": "m", "map": [1, 2]}, {"id": "end", "dependsOn": ["m"]})
    first, second = bench.claim()
    bench.succeed(first, "1")
    bench.fail(second, retryable=False)
    assert bench.task(task_id)["status"] == "DEAD_LETTER"

    with bench.store.write():
        bench.store.replay(task_id, now_ms=bench.now_ms)
    bench.run_all(output="2")

    assert bench.task(task_id)["status"] == "SUCCESS"
    assert outputs(bench, task_id)["m"] == "[1,2]"


def test_a_delayed_map_gives_its_delay_to_its_copies(bench: Bench) -> None:
    bench.flow({"id": "m", "map": [1, 2]}, not_before_ms=bench.now_ms + 500)

    assert bench.claim() == []
    bench.now_ms += 500
    assert bench.promote() == 2
    assert len(bench.claim()) == 2


@pytest.mark.parametrize("second", [6, 5])
def test_the_copies_of_all_map_steps_of_a_task_count_towards_its_limit(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, second: int
) -> None:
    assert LIMIT_IN_USE == STEPS_MAX
    monkeypatch.setattr("relaymesh.store.release.STEPS_MAX", 15)
    task_id = bench.flow(
        {"id": "a"}, {"id": "m", "map": {"$from": "a"}}, {"id": "b"}, {"id": "n", "map": {"$from": "b"}}
    )
    ends = {lease.step_id[-1]: lease for lease in bench.claim()}
    bench.succeed(ends["a"], json.dumps(list(range(6))))

    bench.succeed(ends["b"], json.dumps(list(range(second))))

    # 4 steps of the file, 6 copies of the first map: room for 5 more.
    assert bench.step_of(task_id, "m")["status"] == "PENDING"
    assert bench.step_of(task_id, "n")["status"] == ("PENDING" if second == 5 else "DEAD_LETTER")


def test_a_cancelled_task_spreads_nothing_when_its_running_step_ends(bench: Bench) -> None:
    from relaymesh.store.admin import CancelMode

    task_id = bench.flow({"id": "a"}, {"id": "m", "map": {"$from": "a"}})
    (lease,) = bench.claim()
    with bench.store.write():
        bench.store.cancel(task_id, mode=CancelMode.SOFT, reason="enough", now_ms=bench.now_ms)

    bench.succeed(lease, "[1,2]")

    assert bench.step_of(task_id, "a")["status"] == "SUCCESS"
    assert bench.task(task_id)["status"] == "CANCELLED"
    assert bench.claim() == []
