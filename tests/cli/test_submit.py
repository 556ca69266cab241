from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from relaymesh.core.limit import PAYLOAD_BYTES_MAX
from relaymesh.errors import StoreError
from relaymesh.view import Event, SubmitOutcome, TaskView

STORED = SubmitOutcome(task_id="tsk_1", deduplicated=False, message="stored")
SUBMIT = ("submit", "--agent", "echo", "--input", "hello")


def task(status: str) -> TaskView:
    return TaskView(
        task_id="tsk_1",
        status=status,
        idempotency_key="k",
        trace_id="0" * 32,
        result_payload=None,
        last_error=None,
        created_at_ms=1,
        updated_at_ms=2,
    )


@pytest.fixture
def stdin(monkeypatch, tmp_path):
    """Makes bytes the standard input of this process."""

    def give(data: bytes) -> None:
        path = tmp_path / "stdin"
        path.write_bytes(data)
        file = path.open("rb")
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(fileno=file.fileno, file=file))

    return give


def test_submit_prints_the_outcome_in_the_order_of_the_reference(terminal) -> None:
    terminal.answers(submit=STORED)

    ended = terminal.run(*SUBMIT)

    assert ended.out == '{\n  "taskId": "tsk_1",\n  "deduplicated": false,\n  "message": "stored"\n}\n'
    assert (ended.status, ended.err) == (0, "")


def test_submit_hands_on_what_was_said_and_defaults_for_the_rest(terminal) -> None:
    terminal.answers(submit=STORED)

    terminal.run(*SUBMIT)

    assert terminal.asked("submit") == (
        ("echo", "hello"),
        {
            "priority": "normal",
            "idempotency_key": None,
            "delay_ms": 0,
            "at_ms": None,
            "expires_in_ms": None,
            "labels": {},
            "concurrency_key": None,
            "unique": None,
            "on_duplicate": None,
            "unique_key": None,
            "budget": {},
        },
    )


@pytest.mark.parametrize(
    ("words", "option", "value"),
    [
        (["--delay", "1500ms"], "delay_ms", 1500),
        (["--delay=10s"], "delay_ms", 10_000),
        (["--delay", "1.5s"], "delay_ms", 1500),
        (["--expires-in", "5m"], "expires_in_ms", 300_000),
        (["--expires-in", "2h"], "expires_in_ms", 7_200_000),
        (["--expires-in", "1d"], "expires_in_ms", 86_400_000),
        (["--at", "1970-01-01T00:00:01Z"], "at_ms", 1000),
        (["--at", "1970-01-01T02:00:00.25+02:00"], "at_ms", 250),
        (["--priority", "HIGH"], "priority", "HIGH"),
        (["--idempotency-key", "k"], "idempotency_key", "k"),
        (["--label", "a=1,b=2", "--label", "c=x=y"], "labels", {"a": "1", "b": "2", "c": "x=y"}),
    ],
)
def test_each_option_reaches_the_client(terminal, words: list[str], option: str, value: object) -> None:
    terminal.answers(submit=STORED)

    assert terminal.run(*SUBMIT, *words).status == 0

    assert terminal.asked("submit")[1][option] == value


@pytest.mark.parametrize(
    "words",
    [
        ["--delay", "10"],
        ["--delay", "-1s"],
        ["--delay", "1 week"],
        ["--at", "tomorrow"],
        ["--at", "2030-01-31T08:00:00"],
        ["--delay", "1s", "--at", "2030-01-31T08:00:00Z"],
        ["--label", "nothing"],
        ["--label", "=x"],
        ["--timeout", "1s"],
        ["--wait=perhaps"],
        ["--wait="],
        ["extra"],
    ],
)
def test_options_that_make_no_sense_are_wrong_usage(terminal, words: list[str]) -> None:
    terminal.answers(submit=STORED)

    ended = terminal.run(*SUBMIT, *words)

    assert (ended.status, ended.out, terminal.client.calls) == (2, "", [])
    assert ended.err.startswith("error[usage]: ")


@pytest.mark.parametrize(("left_out", "words"), [("--agent", ["--input", "x"]), ("--input", ["--agent", "echo"])])
def test_agent_and_input_are_required(terminal, left_out: str, words: list[str]) -> None:
    ended = terminal.run("submit", *words)

    assert ended.status == 2
    assert left_out in ended.err


def test_a_person_is_told_how_to_run_the_same_once_more(terminal) -> None:
    terminal.answers(submit=SubmitOutcome(task_id="tsk_1", deduplicated=True, message="held"))

    assert terminal.run("--output", "table", *SUBMIT).out == (
        "tsk_1  stored before, nothing new was made\n"
        "To run the same once more, give it a key of its own: --idempotency-key KEY\n"
    )


@pytest.mark.parametrize(
    ("words", "waits"),
    [([], False), (["--wait"], True), (["--wait=true"], True), (["--wait=TRUE"], True), (["--wait=false"], False)],
)
def test_a_bare_flag_means_true_and_a_value_is_taken_as_it_is(terminal, words: list[str], waits: bool) -> None:
    terminal.answers(submit=STORED, wait=task("SUCCESS"))

    terminal.run(*SUBMIT, *words)

    assert ("wait" in [name for name, _, _ in terminal.client.calls]) is waits


@pytest.mark.parametrize(("status", "exit_status"), [("SUCCESS", 0), ("DEAD_LETTER", 1), ("CANCELLED", 1)])
def test_waiting_prints_the_task_as_a_second_document(terminal, status: str, exit_status: int) -> None:
    terminal.answers(submit=STORED, wait=task(status))

    ended = terminal.run(*SUBMIT, "--wait", "--timeout", "3s")

    assert ended.status == exit_status
    assert terminal.asked("wait") == (("tsk_1",), {"timeout_ms": 3000})
    first, second = ended.out.split("}\n{")
    assert '"deduplicated"' in first
    assert f'"status": "{status}"' in second


def test_following_prints_each_event_on_one_line(terminal) -> None:
    event = Event(task_id="tsk_1", step_id=None, kind="claimed", status=None, attempt=1, at_ms=5, detail=None)
    terminal.answers(submit=STORED, task=task("DEAD_LETTER"), events=[event, event])

    ended = terminal.run(*SUBMIT, "--follow", "--timeout", "2s")

    line = '{"taskId":"tsk_1","stepId":null,"kind":"claimed","status":null,"attempt":1,"atMs":5,"detail":null}\n'
    assert line * 2 in ended.out
    assert terminal.asked("events") == (("tsk_1",), {"timeout_ms": 2000})
    assert (ended.status, '"status": "DEAD_LETTER"' in ended.out) == (1, True)


def test_input_comes_from_a_file_or_from_stdin_or_starts_with_an_at_sign(terminal, tmp_path, stdin) -> None:
    (tmp_path / "letter.txt").write_text("from a file: ü\n", encoding="utf-8")
    stdin(b"from stdin")
    terminal.answers(submit=STORED)

    for text in (f"@{tmp_path / 'letter.txt'}", "-", "@@someone"):
        assert terminal.run("submit", "--agent", "echo", "--input", text).status == 0

    payloads = [args[1] for name, args, _ in terminal.client.calls if name == "submit"]
    assert payloads == ["from a file: ü\n", "from stdin", "@someone"]


def test_stdin_that_is_not_utf8_is_one_sentence(terminal, stdin) -> None:
    stdin(b"abc\xff")

    ended = terminal.run("submit", "--agent", "echo", "--input", "-")

    assert (ended.status, ended.out, terminal.client.calls) == (1, "", [])
    assert ended.err.startswith("error[not_utf8]: stdin is not UTF-8 text (byte 3)")


@pytest.mark.skipif(sys.platform == "win32", reason="words are Unicode there")
def test_a_word_that_is_not_utf8_is_one_sentence(terminal) -> None:
    ended = terminal.run("submit", "--agent", "echo", "--input", "abc\udcff")

    assert ended.err.startswith("error[not_utf8]: --input is not UTF-8 text (byte 3)")


def test_a_file_that_does_not_exist_is_one_sentence(terminal) -> None:
    ended = terminal.run("submit", "--agent", "echo", "--input", "@nowhere.txt")

    assert ended.status == 1
    assert ended.err.startswith("error[not_readable]: nowhere.txt cannot be read (")


def test_a_file_without_a_name_is_one_sentence(terminal) -> None:
    ended = terminal.run("submit", "--agent", "echo", "--input", "@")

    assert (ended.status, terminal.client.calls) == (1, [])
    assert ended.err.startswith("error[not_readable]: the name of the file is empty: name one")


def test_no_more_of_a_too_large_input_is_read_than_shows_it(terminal, tmp_path) -> None:
    (tmp_path / "large").write_bytes("ü".encode() * PAYLOAD_BYTES_MAX)
    terminal.answers(submit=STORED)

    terminal.run("submit", "--agent", "echo", "--input", f"@{tmp_path / 'large'}")

    ((_, payload), _) = terminal.asked("submit")
    assert PAYLOAD_BYTES_MAX < len(payload.encode()) < PAYLOAD_BYTES_MAX + 8


def test_a_workflow_is_handed_on_as_the_bytes_of_its_file(terminal, tmp_path) -> None:
    (tmp_path / "flow.json").write_bytes(b'{"steps": \xff}')
    terminal.answers(submit_workflow=STORED)

    ended = terminal.run("submit-workflow", "--file", str(tmp_path / "flow.json"), "--delay", "1s", "--label", "a=b")

    assert ended.document == {"taskId": "tsk_1", "deduplicated": False, "message": "stored"}
    assert terminal.asked("submit_workflow") == (
        (b'{"steps": \xff}',),
        {
            "idempotency_key": None,
            "labels": {"a": "b"},
            "priority": None,
            "delay_ms": 1000,
            "at_ms": None,
            "expires_in_ms": None,
            "unique": None,
            "on_duplicate": None,
            "unique_key": None,
            "budget": {},
        },
    )


def test_a_workflow_comes_from_stdin_too(terminal, stdin) -> None:
    stdin(b"{}")
    terminal.answers(submit_workflow=STORED)

    terminal.run("submit-workflow", "--file", "-")

    assert terminal.asked("submit_workflow")[0] == (b"{}",)


def test_a_workflow_needs_its_file(terminal) -> None:
    assert terminal.run("submit-workflow").status == 2
    assert terminal.run("submit-workflow", "--file", "nowhere.json").status == 1


def test_what_the_client_refuses_is_printed_and_nothing_else(terminal) -> None:
    terminal.answers(submit=StoreError("the disk is full"))

    ended = terminal.run(*SUBMIT, "--wait")

    assert (ended.status, ended.out, ended.err) == (1, "", "error[store_failed]: the disk is full\n")
