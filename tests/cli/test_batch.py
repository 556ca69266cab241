from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaymesh.cli import batch
from relaymesh.cli.batch import _Batch
from relaymesh.cli.call import Call
from relaymesh.errors import StoreError
from relaymesh.view import BatchLine, TaskRequest

GOOD = '{"agent": "echo", "input": "%s"}\n'


def store(requests: Iterable[TaskRequest]) -> Iterator[BatchLine]:
    """Accepts each input once, in groups of two, as a client that commits in groups does."""
    seen: set[str] = set()
    group: list[BatchLine] = []
    for request in requests:
        result = "duplicate" if request.input in seen else "accepted"
        seen.add(request.input)
        group.append(BatchLine(line=request.line, result=result, task_id=f"tsk_{request.input}"))
        if len(group) == 2:
            yield from group
            group = []
    yield from group


@pytest.fixture
def run(terminal, tmp_path: Path):
    def run_batch(data: str | bytes, *words: str):
        path = tmp_path / "tasks.ndjson"
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return terminal.run(*words, "submit", "--batch", str(path))

    terminal.answers(submit_many=store)
    return run_batch


def test_every_line_is_told_with_its_number_and_then_the_sums(run) -> None:
    ended = run(GOOD % "a" + GOOD % "b" + "\n" + GOOD % "a")

    assert ended.status == 0
    assert ended.lines == [
        {"line": 1, "result": "accepted", "taskId": "tsk_a", "code": None, "message": None},
        {"line": 2, "result": "accepted", "taskId": "tsk_b", "code": None, "message": None},
        {"line": 4, "result": "duplicate", "taskId": "tsk_a", "code": None, "message": None},
        {"lines": 3, "accepted": 2, "duplicate": 1, "rejected": 0, "unknown": 0},
    ]


@pytest.mark.parametrize(
    ("line", "code", "part"),
    [
        (b"{", "bad_line", "truncated"),
        (b"[]", "bad_line", "object"),
        (b'{"agent": "echo"}', "bad_line", "input"),
        (b'{"agent": "echo", "input": 5}', "bad_line", "$.input"),
        (b'{"agent": "echo", "input": "x", "colour": "red"}', "bad_line", "colour"),
        (b'{"agent": "echo", "input": "x", "line": 7}', "bad_line", "line"),
        (b'{"agent": "echo", "input": "x", "input": "y"}', "bad_line", 'the member "input" stands there twice'),
        (b'{"agent": "echo", "input": "x", "labels": {"a": "1", "a": "2"}}', "bad_line", 'the member "a" stands'),
        (b'{"agent": "echo", "input": "\xff"}', "not_utf8", ""),
        (b"[" * 100_000, "bad_line", ""),
    ],
)
def test_a_line_that_is_no_request_is_rejected_and_the_others_go_on(run, line: bytes, code: str, part: str) -> None:
    ended = run((GOOD % "a").encode() + line + b"\n" + (GOOD % "b").encode())

    assert ended.status == 1
    rejected, *_ = [answer for answer in ended.lines if answer.get("result") == "rejected"]
    assert (rejected["line"], rejected["code"]) == (2, code)
    assert part.lower() in rejected["message"].lower()
    assert ended.lines[-1] == {"lines": 3, "accepted": 2, "duplicate": 0, "rejected": 1, "unknown": 0}


def test_a_line_that_is_too_long_is_skipped_without_losing_count(run, monkeypatch) -> None:
    monkeypatch.setattr(batch, "LINE_BYTES_MAX", 100)

    ended = run(GOOD % "a" + GOOD % ("x" * 1000) + GOOD % "b")

    assert ended.lines[-1] == {"lines": 3, "accepted": 2, "duplicate": 0, "rejected": 1, "unknown": 0}
    assert [(answer["line"], answer["result"]) for answer in sorted(ended.lines[:-1], key=lambda a: a["line"])] == [
        (1, "accepted"),
        (2, "rejected"),
        (3, "accepted"),
    ]


def test_an_error_on_the_way_still_tells_what_is_known(terminal, run) -> None:
    def fails_after_one_group(requests: Iterable[TaskRequest]) -> Iterator[BatchLine]:
        for count, request in enumerate(requests):
            if count == 1:
                raise StoreError("the disk is full")
            yield BatchLine(line=request.line, result="accepted", task_id="tsk_1")

    terminal.answers(submit_many=fails_after_one_group)

    ended = run(GOOD % "a" + GOOD % "b")

    assert ended.status == 1
    assert [answer.get("result") for answer in ended.lines[:-1]] == ["accepted"]
    assert ended.lines[-1] == {"lines": 2, "accepted": 1, "duplicate": 0, "rejected": 0, "unknown": 1}
    assert ended.err == "error[store_failed]: the disk is full\n"


def test_a_person_sees_only_what_was_rejected_and_the_sums(run) -> None:
    ended = run(GOOD % "a" + "nonsense\n", "--output", "table")

    assert ended.out.splitlines()[0].startswith("line 2: rejected bad_line: ")
    assert ended.out.splitlines()[-1] == "lines 2, accepted 1, duplicate 0, rejected 1, unknown 0"
    assert len(ended.out.splitlines()) == 2


def test_all_members_of_a_line_reach_the_client(terminal, run) -> None:
    taken: list[TaskRequest] = []
    terminal.answers(submit_many=lambda requests: iter([taken.append(request) for request in requests] and []))
    line = {
        "agent": "echo",
        "input": "x",
        "priority": "high",
        "idempotencyKey": "k",
        "delayMs": 1,
        "atMs": 2,
        "expiresInMs": 3,
        "labels": {"a": "b"},
        "traceparent": "00-...",
    }

    run(json.dumps(line))

    assert taken == [
        TaskRequest(
            agent="echo",
            input="x",
            priority="high",
            idempotency_key="k",
            delay_ms=1,
            at_ms=2,
            expires_in_ms=3,
            labels={"a": "b"},
            traceparent="00-...",
            line=1,
        )
    ]


@pytest.mark.parametrize("words", [["--agent", "echo"], ["--priority", "high"], ["--wait"], ["--delay", "1s"]])
def test_options_of_one_task_do_not_go_with_a_batch(terminal, words: list[str]) -> None:
    ended = terminal.run("submit", "--batch", "tasks.ndjson", *words)

    assert ended.status == 2
    assert f"{words[0]} does not go with --batch" in ended.err


def test_a_batch_file_that_does_not_exist_is_one_sentence(terminal) -> None:
    ended = terminal.run("submit", "--batch", "nowhere.ndjson")

    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith("error[not_readable]: nowhere.ndjson")


@given(data=st.binary(max_size=300) | st.lists(st.sampled_from(["", "{", GOOD.strip() % "a", "null", "\x00"])))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_bytes_every_line_that_is_not_blank_is_told_once(tmp_path: Path, capsys, data) -> None:
    raw = data if isinstance(data, bytes) else "\n".join(data).encode()
    path = tmp_path / "tasks.ndjson"
    path.write_bytes(raw)
    run = _Batch(Call(root="", namespace="", output="json"))

    with path.open("rb") as file:
        for answer in store(run.requests(file)):
            run.tell(answer)

    told = sorted(json.loads(line)["line"] for line in capsys.readouterr().out.splitlines())
    assert told == [number for number, line in enumerate(raw.split(b"\n"), 1) if line.strip()]
