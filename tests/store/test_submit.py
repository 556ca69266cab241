"""One task per idempotency key: within a batch, between processes, until the key is let go."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.client import Client, default_key
from relaymesh.core.workflow import derived_key, parse
from relaymesh.settings import load_settings
from relaymesh.store.admin import KEY_TTL_MS, CancelMode, forget_keys
from relaymesh.store.tick import maintenance_tick
from tests.store.bench import NOON, Bench


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_key_of_a_single_task_covers_agent_and_input_and_nothing_else(tmp_path: Path) -> None:
    with Client(tmp_path / "root") as client:
        first = client.submit("echo", "größer\n")
        again = client.submit("echo", "größer\n", priority="high", labels={"a": "b"})
        other = client.submit("echo", "größer")
        third = client.submit("fail", "größer\n")

        assert client.task(first.task_id).idempotency_key == sha256("echo\ngrößer\n")
    assert (again.task_id, again.deduplicated) == (first.task_id, True)
    assert len({first.task_id, other.task_id, third.task_id}) == 3
    assert default_key("echo", "") == sha256("echo\n")


def test_the_key_of_a_workflow_covers_the_normalized_list_of_steps() -> None:
    document = {
        "steps": [
            {"id": "s1", "agent": "echo", "input": "first"},
            {"id": "s2", "agent": "echo", "input": "zweitens ü", "priority": "high", "dependsOn": ["s1"]},
        ]
    }
    written = (
        '[{"id":"s1","agent":"echo","input":"first","priority":"NORMAL","dependsOn":[]},'
        '{"id":"s2","agent":"echo","input":"zweitens ü","priority":"high","dependsOn":["s1"]}]'
    )

    assert derived_key(parse(document)) == sha256(written)


def test_a_blank_key_is_no_key(tmp_path: Path) -> None:
    with Client(tmp_path / "root") as client:
        first = client.submit("echo", "x", idempotency_key="  ")

        assert client.task(first.task_id).idempotency_key == sha256("echo\nx")
        assert client.submit("echo", "x", idempotency_key=" k ").task_id != first.task_id
        assert client.submit("echo", "other", idempotency_key=" k ").deduplicated


def test_duplicates_within_one_batch_name_the_first_of_it(bench: Bench) -> None:
    tasks = [bench.new_task(key=key) for key in ("a", "b", "a", "c", "b", "a")]

    results = bench.submit(*tasks)

    first = {key: tasks[number].task_id for key, number in (("a", 0), ("b", 1), ("c", 3))}
    assert results == [(first[key], dup) for key, dup in zip("abacba", (0, 0, 1, 0, 1, 1), strict=True)]
    assert len(bench.rows("SELECT * FROM steps")) == 3
    assert len(bench.claim()) == 3


keys = st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=140), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(keys)
def test_batches_of_any_size_store_each_key_once_and_answer_in_order(batches: list[list[str]]) -> None:
    bench = Bench.in_memory()
    holder: dict[str, str] = {}

    for batch in batches:
        tasks = [bench.new_task(key=key) for key in batch]
        expected = []
        for task, key in zip(tasks, batch, strict=True):
            first = holder.setdefault(key, task.task_id)
            expected.append((first, first != task.task_id))
        assert bench.submit(*tasks) == expected

    rows = bench.rows("SELECT t.idempotency_key k, count(*) n FROM tasks t JOIN steps USING (task_id) GROUP BY 1")
    assert {row["k"]: row["n"] for row in rows} == dict.fromkeys(holder, 1)
    bench.close()


def test_a_duplicate_names_the_first_task_whatever_became_of_it(bench: Bench) -> None:
    first = bench.new_task(key="k")
    bench.submit(first)
    (lease,) = bench.claim()
    bench.fail(lease, retryable=False)
    assert bench.submit(bench.new_task(key="k")) == [(first.task_id, True)]
    with bench.store.write():
        bench.store.replay(first.task_id, now_ms=NOON)
        bench.store.cancel(first.task_id, mode=CancelMode.HARD, reason="enough", now_ms=NOON)

    assert bench.submit(bench.new_task(key="k")) == [(first.task_id, True)]
    assert bench.task(first.task_id)["status"] == "CANCELLED"
    assert bench.claim() == []


def test_a_duplicate_workflow_stores_no_step_and_no_dependency(bench: Bench) -> None:
    steps = [{"id": "a"}, {"id": "b", "dependsOn": ["a"]}]
    bench.submit(bench.new_flow(steps, key="k"))
    before = bench.rows("SELECT count(*) FROM steps"), bench.rows("SELECT count(*) FROM step_dependencies")

    ((_, deduplicated),) = bench.submit(bench.new_flow(steps, key="k"))

    assert deduplicated
    assert before == (bench.rows("SELECT count(*) FROM steps"), bench.rows("SELECT count(*) FROM step_dependencies"))


def test_a_key_can_be_used_again_once_it_was_let_go_and_not_before(bench: Bench) -> None:
    done, open_, young = (bench.new_task(key=key) for key in ("done", "open", "young"))
    bench.submit(done)
    bench.run_all()
    bench.submit(open_)
    bench.now_ms += 1_000_000
    bench.submit(young)
    (lease,) = [lease for lease in bench.claim() if lease.task_id == young.task_id]
    bench.fail(lease, retryable=False)

    with bench.store.write():
        assert forget_keys(bench.store.conn, before_ms=NOON + 500_000, limit=100) == 1

    again = {key: bench.submit(bench.new_task(key=key))[0][1] for key in ("done", "open", "young")}
    assert again == {"done": False, "open": True, "young": True}
    assert bench.task(done.task_id)["status"] == "SUCCESS"


def test_keys_are_let_go_in_rounds_and_one_that_was_open_comes_up_again(bench: Bench) -> None:
    tasks = [bench.new_task(key=str(number)) for number in range(7)]
    bench.submit(*tasks)
    leases = bench.claim()
    for lease in leases[1:]:
        bench.succeed(lease)

    def round_at(before_ms: int) -> int:
        with bench.store.write():
            return forget_keys(bench.store.conn, before_ms=before_ms, limit=3)

    assert [round_at(NOON + 1_000) for _ in range(4)] == [2, 3, 1, 0]
    bench.now_ms += 10_000
    bench.fail(leases[0], retryable=False)
    assert (round_at(NOON + 1_000), round_at(NOON + 20_000), round_at(NOON + 20_000)) == (0, 1, 0)
    assert bench.rows("SELECT * FROM tasks WHERE key_live=1") == []


def test_one_round_of_maintenance_lets_go_of_the_keys_of_a_week_ago(tmp_path: Path) -> None:
    now = [NOON]
    bench = Bench(tmp_path / "root")
    client = Client(tmp_path / "root", now_ms=lambda: now[0])
    first = client.submit("echo", "x")
    bench.run_all()
    client.maintenance()
    assert client.submit("echo", "x").deduplicated

    now[0] += 7 * 24 * 3_600_000 + 1_000
    client.maintenance()

    assert client.submit("echo", "x").task_id != first.task_id
    client.close()
    bench.close()


SUBMITTER = """
import json, sys, time
from pathlib import Path
from relaymesh.client import Client
from relaymesh.view import TaskRequest
root, go = Path(sys.argv[1]), Path(sys.argv[2])
client = Client(root)
client.init()
print("ready", flush=True)
while not go.exists():
    time.sleep(0.001)
requests = [TaskRequest(agent="echo", input=str(number)) for number in range(60)]
lines = list(client.submit_many(requests[:30])) + [client.submit("echo", request.input) for request in requests[30:]]
print(json.dumps([(line.task_id, getattr(line, "result", None) or ("duplicate" if line.deduplicated else "accepted"))
                  for line in lines]))
"""


def test_eight_processes_that_submit_the_same_keys_store_each_task_once(tmp_path: Path) -> None:
    go = tmp_path / "go"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SUBMITTER, str(tmp_path / "root"), str(go)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"

    go.touch()
    ends = [process.communicate(timeout=60) for process in processes]

    assert [error for _, error in ends] == [""] * 8
    answers = [json.loads(out) for out, _ in ends]
    for of_one_key in zip(*answers, strict=True):
        assert len({task_id for task_id, _ in of_one_key}) == 1
        assert Counter(result for _, result in of_one_key) == {"accepted": 1, "duplicate": 7}
    bench = Bench(tmp_path / "root")
    assert bench.rows("SELECT count(*) n FROM tasks") == bench.rows("SELECT count(*) n FROM steps") == [{"n": 60}]
    bench.close()


def test_a_key_whose_time_is_over_is_free_also_where_nobody_has_let_it_go(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "root")
    ((first, _),) = bench.submit(bench.new_task(key="mine"))
    bench.run_all()

    bench.now_ms += KEY_TTL_MS
    assert bench.submit(bench.new_task(key="mine"), bench.new_task(key="other"))[0] == (first, True)

    bench.now_ms += 10_000
    ((second, deduplicated), _) = bench.submit(bench.new_task(key="mine"), bench.new_task(key="another"))
    assert not deduplicated and second != first
    bench.close()


@pytest.mark.parametrize(("age_days", "days", "held"), [(30, 29, True), (30, 31, False), (0, 4_000, True)])
def test_a_key_is_held_for_as_long_as_the_settings_say(tmp_path: Path, age_days: int, days: int, held: bool) -> None:
    bench = Bench(tmp_path / "root")
    day = 86_400_000
    (bench.root / "relaymesh-settings.json").write_text(f'{{"idempotencyKeyRetentionMs": {age_days * day}}}')
    ((first, _),) = bench.submit(bench.new_task(key="mine"))
    bench.run_all()

    bench.now_ms += days * day
    maintenance_tick(bench.store, "n", load_settings(bench.root), now_ms=bench.now_ms)

    ((found, deduplicated),) = bench.submit(bench.new_task(key="mine"))
    assert (found == first, deduplicated) == (held, held)
    bench.close()


def test_a_key_is_held_while_the_settings_cannot_be_read(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "root")
    ((first, _),) = bench.submit(bench.new_task(key="mine"))
    bench.run_all()
    (bench.root / "relaymesh-settings.json").write_text("{broken")

    bench.now_ms += 2 * KEY_TTL_MS

    assert bench.submit(bench.new_task(key="mine")) == [(first, True)]
    bench.close()
