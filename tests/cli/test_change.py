from __future__ import annotations

import os

import pytest

from relaymesh.node_view import MaintenanceOutcome
from relaymesh.view import (
    CancelResult,
    DeadExportOutcome,
    DiscardOutcome,
    ReplayBatchOutcome,
    ReplayOutcome,
    TaskExportOutcome,
)


def cancelled(mode: str, *, done: bool = True) -> CancelResult:
    message = "cancelled" if done else "terminal_state:SUCCESS"
    return CancelResult(task_id="tsk_1", cancelled=done, mode=mode, message=message, step_rows=1, message_rows=0)


@pytest.mark.parametrize(
    ("words", "method"), [([], "cancel"), (["--mode", "HARD"], "cancel"), (["--mode", " Soft "], "cancel_soft")]
)
def test_cancel_takes_its_mode_in_any_case(terminal, words: list[str], method: str) -> None:
    terminal.answers(**{method: cancelled("hard")})

    ended = terminal.run("cancel", "tsk_1", *words, "--reason", "wrong")

    assert ended.status == 0
    assert list(ended.document) == ["taskId", "cancelled", "mode", "message", "stepRows", "messageRows"]
    assert terminal.asked(method) == (("tsk_1",), {"reason": "wrong"})


def test_a_cancel_that_changed_nothing_ends_with_1(terminal) -> None:
    terminal.answers(cancel=cancelled("hard", done=False))

    ended = terminal.run("cancel", "tsk_1")

    assert (ended.status, ended.document["message"]) == (1, "terminal_state:SUCCESS")


@pytest.mark.parametrize(
    ("words", "answers", "sentence"),
    [
        (
            ["cancel"],
            {"cancel": cancelled("hard", done=False)},
            "tsk_1  not cancelled: it has already ended as SUCCESS",
        ),
        (
            ["replay"],
            {"replay": ReplayOutcome(task_id="tsk_1", replayed=False, message="invalid_state")},
            "tsk_1  not replayed: only a task in DEAD_LETTER can be",
        ),
        (
            ["replay"],
            {"replay": ReplayOutcome(task_id="tsk_1", replayed=False, message="not_found")},
            "tsk_1  not replayed: there is no such task here, `relaymesh tasks` lists what there is",
        ),
        (
            ["task-export", "--out", "x"],
            {
                "task_export": TaskExportOutcome(
                    task_id="tsk_1", exported=False, step_count=0, audit_events=0, output="task not found"
                )
            },
            "tsk_1  not exported: task not found",
        ),
    ],
)
def test_a_person_is_told_in_a_sentence_why_nothing_was_changed(terminal, words, answers, sentence: str) -> None:
    terminal.answers(**answers)

    ended = terminal.run("--output", "table", words[0], "tsk_1", *words[1:])

    assert (ended.status, ended.out) == (1, sentence + "\n")


def test_an_unknown_cancel_mode_is_an_error_and_not_wrong_usage(terminal) -> None:
    ended = terminal.run("cancel", "tsk_1", "--mode", "gentle")

    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith("error[unknown_mode]: ")


@pytest.mark.parametrize(("replayed", "status"), [(True, 0), (False, 1)])
def test_replay_says_by_its_status_whether_it_did(terminal, replayed: bool, status: int) -> None:
    terminal.answers(replay=ReplayOutcome(task_id="tsk_1", replayed=replayed, message="m"))

    ended = terminal.run("replay", "tsk_1")

    assert (ended.status, ended.document) == (status, {"taskId": "tsk_1", "replayed": replayed, "message": "m"})


def test_replay_batch_takes_dead_letters_and_a_hundred_of_them(terminal) -> None:
    outcome = ReplayBatchOutcome(status="DEAD_LETTER", total=0, replayed=0, failed=0, details=())
    terminal.answers(replay_batch=outcome)

    ended = terminal.run("replay-batch")

    assert (ended.status, ended.document["details"]) == (0, [])
    assert terminal.asked("replay_batch") == (("DEAD_LETTER", 100), {})


def test_replay_batch_ends_with_1_when_one_failed(terminal) -> None:
    failed = ReplayOutcome(task_id="tsk_1", replayed=False, message="m")
    terminal.answers(
        replay_batch=ReplayBatchOutcome(status="SUCCESS", total=1, replayed=0, failed=1, details=(failed,))
    )

    ended = terminal.run("replay-batch", "--status", " success ", "--limit", "3")

    assert ended.status == 1
    assert terminal.asked("replay_batch") == (("SUCCESS", 3), {})


def test_a_dead_export_writes_to_an_absolute_path(terminal) -> None:
    terminal.answers(dead_export=DeadExportOutcome(exported=0, output_path="x"))

    ended = terminal.run("dead-export", "--out", "dead.json")

    assert ended.document == {"exported": 0, "outputPath": "x"}
    assert terminal.asked("dead_export") == ((os.path.abspath("dead.json"), 1000), {})


@pytest.mark.parametrize(("exported", "status"), [(True, 0), (False, 1)])
def test_a_task_export_that_wrote_nothing_ends_with_1(terminal, exported: bool, status: int) -> None:
    outcome = TaskExportOutcome(task_id="tsk_1", exported=exported, step_count=0, audit_events=0, output="o")
    terminal.answers(task_export=outcome)

    ended = terminal.run("task-export", "tsk_1", "--out", "task.json")

    assert (ended.status, ended.document["exported"]) == (status, exported)
    assert terminal.asked("task_export") == (("tsk_1", os.path.abspath("task.json")), {})


@pytest.mark.parametrize("words", [["task-export", "tsk_1"], ["dead-export"], ["cancel"], ["replay"]])
def test_what_is_required_is_asked_for(terminal, words: list[str]) -> None:
    assert terminal.run(*words).status == 2


def test_maintenance_runs_as_the_local_node(terminal) -> None:
    terminal.answers(maintenance=MaintenanceOutcome(node_id="node-local"))

    document = terminal.run("maintenance").document

    assert [*document][:2] == ["nodeId", "suspectedNodesMarked"]
    assert document["leaseReportGenerated"] is False
    assert terminal.asked("maintenance") == (("node-local",), {})


def test_init_names_the_root_in_one_line_of_text(terminal, tmp_path) -> None:
    terminal.answers(init=tmp_path)

    assert terminal.run("init").out == f"data root ready: {tmp_path}\n"


@pytest.mark.parametrize("shell", ["zsh", "fish", "powershell"])
def test_completion_prints_a_script_for_the_shell(terminal, shell: str) -> None:
    ended = terminal.run("completion", shell)

    assert ended.status == 0
    assert f"{shell}_complete" in ended.out


def test_completion_knows_no_other_shell(terminal) -> None:
    assert terminal.run("completion", "tcsh").status == 2


def replayed(task_id: str, **_: object) -> ReplayOutcome:
    return ReplayOutcome(task_id=task_id, replayed=True, message="replayed")


def test_replay_reads_the_new_input_from_a_file(terminal, tmp_path) -> None:
    (tmp_path / "mended.json").write_text('{"a": 1}', encoding="utf-8")
    terminal.answers(replay=replayed)

    ended = terminal.run("replay", "tsk_1", "--edit", str(tmp_path / "mended.json"), "--from", "fetch")

    assert ended.document == {"taskId": "tsk_1", "replayed": True, "message": "replayed"}
    assert terminal.asked("replay") == (("tsk_1",), {"edit": '{"a": 1}', "from_step": "fetch"})


def test_inputs_of_several_steps_are_paired_in_order(terminal, tmp_path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"new {name}", encoding="utf-8")
    terminal.answers(replay=replayed)

    edits = [word for name in ("a", "b") for word in ("--edit", str(tmp_path / name), "--step", name)]
    terminal.run("replay", "tsk_1", *edits)

    assert terminal.asked("replay")[1]["edit"] == {"a": "new a", "b": "new b"}


@pytest.mark.parametrize("words", [["--step", "a"], ["--edit", "x", "--edit", "y"]])
def test_an_input_without_its_step_or_a_step_without_input_is_a_usage_error(terminal, words: list[str]) -> None:
    ended = terminal.run("replay", "tsk_1", *words)

    assert ended.status == 2
    assert "one --step for each --edit" in ended.err


def test_a_batch_hands_its_filters_on(terminal) -> None:
    terminal.answers(replay_batch=ReplayBatchOutcome(status="DEAD_LETTER", total=0, replayed=0, failed=0, details=()))

    terminal.run("replay-batch", "--agent", "echo", "--error-class", "timeout", "--text", "no", "--newer-than", "2h")

    assert terminal.asked("replay_batch") == (
        ("DEAD_LETTER", 100),
        {"agent": "echo", "error_class": "timeout", "text": "no", "newer_than_ms": 7_200_000},
    )


@pytest.mark.parametrize(("done", "status"), [(True, 0), (False, 1)])
def test_a_discard_says_what_became_of_it(terminal, done: bool, status: int) -> None:
    message = "discarded" if done else "invalid_state"
    terminal.answers(discard=DiscardOutcome(task_id="tsk_1", discarded=done, message=message, step_rows=1))

    ended = terminal.run("discard", "tsk_1", "--reason", "why")

    assert (ended.status, ended.document["message"]) == (status, message)
    assert terminal.asked("discard") == (("tsk_1",), {"reason": "why"})


def test_a_discard_without_a_reason_is_a_usage_error(terminal) -> None:
    assert terminal.run("discard", "tsk_1").status == 2


def test_a_file_whose_name_begins_with_an_at_sign_is_a_file(terminal, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "@new").write_text("from the file", encoding="utf-8")
    (tmp_path / "bytes").write_bytes(b"\xff")
    terminal.answers(replay=replayed)

    terminal.run("replay", "tsk_1", "--edit", "@new")
    wrong = terminal.run("replay", "tsk_1", "--edit", "bytes")
    missing = terminal.run("replay", "tsk_1", "--edit", "nowhere")

    assert terminal.asked("replay")[1]["edit"] == "from the file"
    assert (wrong.status, missing.status) == (1, 1)
    assert "not_utf8" in wrong.err and "not_readable" in missing.err
