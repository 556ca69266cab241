from __future__ import annotations

import json

import pytest

from relaymesh.node_view import HealthOutcome, LeaseReportOutcome, StatsOutcome
from relaymesh.view import (
    Explanation,
    LeaseConflict,
    LogEntry,
    TaskPage,
    TaskSummary,
    TaskView,
    WorkflowDetail,
    WorkflowStep,
    WorkflowTask,
)

TASK = TaskView(
    task_id="tsk_1",
    status="SUCCESS",
    idempotency_key="k",
    trace_id="0" * 32,
    result_payload='{"stp_1":"größer \\u001b[31m"}',
    last_error=None,
    created_at_ms=1_700_000_000_000,
    updated_at_ms=1_700_000_001_000,
)
SUMMARY = TaskSummary(
    task_id="tsk_1", status="PENDING", trace_id="0" * 32, last_error="bad \x1b[2J", created_at_ms=1, updated_at_ms=2
)
DETAIL = WorkflowDetail(
    task=WorkflowTask(task_id="tsk_1", status="RUNNING", trace_id="0" * 32, created_at_ms=1, updated_at_ms=2),
    steps=(
        WorkflowStep(
            step_id="stp_2",
            agent_id="echo",
            status="PENDING",
            attempt=0,
            priority="HIGH",
            enqueued=False,
            depends_on=("stp_1",),
            created_at_ms=1,
            updated_at_ms=2,
        ),
    ),
)
WAITS = Explanation(step_id="stp_1", reason="no_node", since_ms=1, detail="no node runs", command="relaymesh up")
CONFLICT = LeaseConflict(
    id=1,
    event_type="success_commit_conflict",
    task_id="tsk_1",
    step_id="stp_1",
    worker_id="w",
    expected_status="RUNNING",
    expected_lease_token="a",
    expected_lease_epoch=1,
    actual_status="RUNNING",
    actual_lease_owner="n2",
    actual_lease_token="b",
    actual_lease_epoch=2,
    occurred_at_ms=3,
)
HEALTH = HealthOutcome(
    ok=True,
    db_ok=True,
    inbox_dir_ok=True,
    processing_dir_ok=True,
    meta_dir_ok=True,
    payload_dir_ok=True,
    audit_dir_ok=True,
    disk_free_bytes=5,
    min_free_disk_bytes=0,
    disk_pressure=False,
    checked_at="2030-01-01T00:00:00Z",
)


def page(*tasks: TaskSummary, after: str | None = None) -> TaskPage:
    return TaskPage(tasks=tasks, after=after)


def test_a_list_that_ended_early_says_where_to_go_on_also_to_a_program(terminal) -> None:
    terminal.answers(tasks_page=page(after="5:tsk_1"))

    ended = terminal.run("tasks", "--label", "a=b")

    assert ended.document == []
    assert "--after 5:tsk_1" in ended.err


def test_a_full_page_says_nothing_beside_it(terminal) -> None:
    terminal.answers(tasks_page=page(SUMMARY, after="5:tsk_1"))

    ended = terminal.run("tasks", "--limit", "1")

    assert ended.err == ""


def test_a_task_is_printed_as_the_reference_says(terminal) -> None:
    terminal.answers(task=TASK)

    ended = terminal.run("task", "tsk_1")

    assert ended.out == (
        "{\n"
        '  "taskId": "tsk_1",\n'
        '  "status": "SUCCESS",\n'
        '  "idempotencyKey": "k",\n'
        f'  "traceId": "{"0" * 32}",\n'
        '  "resultPayload": "{\\"stp_1\\":\\"größer \\\\u001b[31m\\"}",\n'
        '  "lastError": null,\n'
        '  "createdAtMs": 1700000000000,\n'
        '  "updatedAtMs": 1700000001000\n'
        "}\n"
    )
    assert terminal.asked("task") == (("tsk_1",), {})


def test_the_list_of_tasks_takes_its_window_and_a_label(terminal) -> None:
    terminal.answers(tasks_page=page(SUMMARY))

    words = ["--status", "PENDING", "--limit=5", "--offset", "10", "--label", "a=b", "--after", "5:tsk_1"]
    ended = terminal.run("tasks", *words)

    assert [list(row) for row in ended.document] == [
        ["taskId", "status", "traceId", "lastError", "createdAtMs", "updatedAtMs"]
    ]
    assert terminal.asked("tasks_page")[1] == {
        "status": "PENDING",
        "limit": 5,
        "offset": 10,
        "label": ("a", "b"),
        "after": "5:tsk_1",
    }


def test_the_list_of_tasks_has_the_defaults_of_the_reference(terminal) -> None:
    terminal.answers(tasks_page=page())

    ended = terminal.run("tasks")

    assert ended.document == []
    assert terminal.asked("tasks_page")[1] == {"status": None, "limit": 50, "offset": 0, "label": None, "after": None}


def test_a_workflow_is_its_task_and_its_steps(terminal) -> None:
    terminal.answers(workflow=DETAIL)

    document = terminal.run("workflow", "tsk_1").document

    assert list(document) == ["task", "steps"]
    assert list(document["task"]) == ["taskId", "status", "traceId", "createdAtMs", "updatedAtMs"]
    assert document["steps"][0]["dependsOn"] == ["stp_1"]


def test_logs_are_one_object_per_line(terminal) -> None:
    entry = LogEntry(step_id="stp_1", attempt=1, at_ms=5, level="INFO", text="two\nlines")
    terminal.answers(logs=[entry, entry])

    ended = terminal.run("logs", "tsk_1", "--follow")

    assert [line["text"] for line in ended.lines] == ["two\nlines", "two\nlines"]
    assert terminal.asked("logs") == (("tsk_1",), {"follow": True})


def test_words_after_two_dashes_are_never_options(terminal) -> None:
    terminal.answers(logs=[])

    assert terminal.run("logs", "--", "--follow=false").status == 0
    assert terminal.asked("logs") == (("--follow=false",), {"follow": False})


def test_ids_are_whole_on_a_narrow_terminal(terminal, monkeypatch) -> None:
    import msgspec

    monkeypatch.setenv("COLUMNS", "80")
    task_id = "tsk_01a1ff95-2351-753a-ae8e-c491d77a7492"
    terminal.answers(tasks_page=page(msgspec.structs.replace(SUMMARY, task_id=task_id, last_error="long " * 50)))

    assert task_id in terminal.run("--output", "table", "tasks").out


FLOW_ID = "tsk_01a1ff95-2351-753a-ae8e-c491d77a7492"


def flow(*steps: tuple[str, str, tuple[str, ...]]) -> WorkflowDetail:
    import msgspec

    (step,) = DETAIL.steps
    return msgspec.structs.replace(
        DETAIL,
        task=msgspec.structs.replace(DETAIL.task, task_id=FLOW_ID),
        steps=tuple(
            msgspec.structs.replace(
                step,
                step_id=f"stp_{FLOW_ID}_{name}",
                agent_id=agent,
                status="DEAD_LETTER",
                depends_on=tuple(f"stp_{FLOW_ID}_{other}" for other in others),
            )
            for name, agent, others in steps
        ),
    )


def test_the_steps_of_a_workflow_fit_on_a_narrow_terminal(terminal, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    names = ("night-train", "lighthouse", "workshop", "harbour", "bakery", "orchard", "radio", "glacier")
    terminal.answers(workflow=flow(*((name, "words-shaky", ()) for name in names), ("report", "report", names)))

    lines = terminal.run("--output", "table", "workflow", FLOW_ID).out.splitlines()

    assert max(map(len, lines)) <= 80
    assert any(line.split() == ["night-train", "words-shaky", "DEAD_LETTER", "0"] for line in lines)
    assert any(line.split()[:5] == ["report", "report", "DEAD_LETTER", "0", "night-train,"] for line in lines if line)


def test_long_names_of_steps_and_agents_give_way_before_a_status_does(terminal, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    terminal.answers(workflow=flow(("a", "b" * 128, ("c" * 128,)), ("c" * 128, "d", ())))

    lines = terminal.run("--output", "table", "workflow", FLOW_ID).out.splitlines()

    assert max(map(len, lines)) <= 80
    assert sum("DEAD_LETTER" in line for line in lines) == 2


def test_rows_that_cannot_be_made_to_fit_are_printed_value_by_value(terminal, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    terminal.answers(lease_conflicts=[CONFLICT, CONFLICT])

    out = terminal.run("--output", "table", "lease-conflicts").out

    assert out.count("success_commit_conflict") == 2
    assert out.count("actual lease epoch") == 2


def test_a_step_of_a_workflow_goes_by_its_own_name_in_logs_and_outputs(terminal) -> None:
    import msgspec

    step_id = f"stp_{FLOW_ID}_hello"
    entry = LogEntry(step_id=step_id, attempt=1, at_ms=5, level="INFO", text="a")
    result = json.dumps({step_id: "x" * 100 + "\ntwo \x1b[31m\n"})
    terminal.answers(logs=[entry], task=msgspec.structs.replace(TASK, result_payload=result))

    assert " hello #1 INFO " in terminal.run("--output", "table", "logs", FLOW_ID).out
    # Not broken into lines of 80: it is there to be copied.
    assert terminal.run("--output", "table", "task", FLOW_ID).out.endswith(
        f"output of hello\n{'x' * 100}\ntwo \\x1b[31m\n"
    )


def test_a_derived_idempotency_key_is_whole_in_80_columns(terminal, monkeypatch) -> None:
    import msgspec

    monkeypatch.setenv("COLUMNS", "80")
    terminal.answers(task=msgspec.structs.replace(TASK, idempotency_key="5" * 64))

    assert "5" * 64 in terminal.run("--output", "table", "task", "tsk_1").out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--status", "RUNNING"], "no tasks that fit"),
        (["--label", "a=b", "--after", "5:tsk_1"], "no tasks that fit"),
        (["--offset", "5"], "no tasks that fit"),
    ],
)
def test_a_list_that_is_empty_says_why(terminal, words: list[str], sentence: str) -> None:
    terminal.answers(tasks_page=page())

    ended = terminal.run("--output", "table", "tasks", *words)

    assert ended.status == 0
    assert ended.out.startswith(sentence)


def test_the_command_of_an_explanation_names_the_root_that_was_asked(terminal) -> None:
    terminal.answers(explain=[WAITS])

    (why,) = terminal.run("--root", "elsewhere", "explain", "tsk_1").document

    assert why["command"].endswith("--root elsewhere up")


def test_explain_is_an_array(terminal) -> None:
    terminal.answers(explain=[Explanation(step_id="s", reason="delayed", since_ms=1, detail="d", command=None)])

    assert terminal.run("explain", "tsk_1").document == [
        {"stepId": "s", "reason": "delayed", "sinceMs": 1, "detail": "d", "command": None}
    ]


def test_agents_is_an_array_of_names(terminal) -> None:
    terminal.answers(agents=["echo", "fail"])

    assert terminal.run("agents").document == ["echo", "fail"]


def test_stats_have_their_counts_in_the_order_of_the_reference(terminal) -> None:
    terminal.answers(
        stats=StatsOutcome(task_status={"SUCCESS": 2}, step_status={}, message_state={}, lease_conflict_by_type={})
    )

    document = terminal.run("stats").document

    assert document["taskStatus"] == {"SUCCESS": 2}
    assert [*document][:4] == ["taskStatus", "stepStatus", "messageState", "inboxHigh"]
    assert [*document][-1] == "namespace"
    assert {"deadLetterGrowth1h", "leaseConflict1h", "stepLatencyP95Ms"} <= set(document)


@pytest.mark.parametrize(("ok", "status"), [(True, 0), (False, 1)])
def test_health_is_1_when_unwell(terminal, ok: bool, status: int) -> None:
    import msgspec

    terminal.answers(health=msgspec.structs.replace(HEALTH, ok=ok))

    ended = terminal.run("health")

    assert (ended.status, ended.document["ok"]) == (status, ok)


def test_health_says_what_keeps_nodes_from_starting(terminal) -> None:
    terminal.doors.in_the_way = "another package is in the way"
    terminal.answers(health=HEALTH)

    ended = terminal.run("health")

    assert (ended.status, ended.err) == (1, "warning: another package is in the way\n")


def test_lease_conflicts_take_a_limit_and_an_age(terminal) -> None:
    terminal.answers(lease_conflicts=[CONFLICT])

    ended = terminal.run("lease-conflicts", "--limit", "7", "--since-hours", "2")

    assert ended.document[0]["expectedLeaseEpoch"] == 1
    assert terminal.asked("lease_conflicts") == ((7, 2), {})


def test_the_age_of_lease_conflicts_is_at_least_an_hour(terminal) -> None:
    assert terminal.run("lease-conflicts", "--since-hours", "0").status == 2


@pytest.mark.parametrize(
    ("words", "answers", "parts"),
    [
        (["task", "tsk_1"], {"task": TASK}, ["tsk_1", "SUCCESS", "output of stp_1", "größer \\x1b[31m"]),
        (["tasks"], {"tasks_page": page(SUMMARY)}, ["task id", "PENDING", "bad \\x1b[2J"]),
        (["tasks"], {"tasks_page": page()}, ["no tasks here"]),
        (["workflow", "tsk_1"], {"workflow": DETAIL}, ["RUNNING", "stp_2", "echo"]),
        (["explain", "tsk_1"], {"explain": []}, ["no step of this task waits"]),
        (["explain", "tsk_1"], {"explain": [WAITS]}, ["stp_1: no_node", "no node runs", "try: ", "--root ", " up"]),
        (["agents"], {"agents": ["echo", "fail"]}, ["echo\nfail\n"]),
        (["health"], {"health": HEALTH}, ["db ok", "yes"]),
        (
            ["stats"],
            {
                "stats": StatsOutcome(
                    task_status={"SUCCESS": 2}, step_status={}, message_state={}, lease_conflict_by_type={}
                )
            },
            ["SUCCESS 2", "cluster epoch"],
        ),
        (
            ["logs", "tsk_1"],
            {"logs": [LogEntry(step_id="stp_1", attempt=1, at_ms=5, level="ERROR", text="a\x07b\nc")]},
            ["stp_1 #1 ERROR", "a\\x07b\\nc"],
        ),
    ],
)
def test_a_person_gets_a_table_that_cannot_steer_the_terminal(terminal, words, answers, parts, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    terminal.answers(**answers)

    ended = terminal.run("--output", "table", *words)

    assert ended.status == 0
    assert all(part in ended.out for part in parts), ended.out
    assert "\x1b" not in ended.out
    with pytest.raises(json.JSONDecodeError):
        json.loads(ended.out)


def test_a_person_is_told_what_to_do_about_a_task_that_does_not_exist(terminal, monkeypatch) -> None:
    from relaymesh.errors import TaskNotFoundError

    terminal.answers(workflow=TaskNotFoundError("tsk_1"))

    ended = terminal.run("--output", "table", "workflow", "tsk_1")

    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith("error[task_not_found]: there is no task tsk_1 here")


def test_the_commands_that_look_are_recorded_with_what_was_asked_and_found(terminal) -> None:
    terminal.answers(tasks_page=page(), lease_conflicts=[])

    terminal.run("tasks", "--status", "PENDING", "--limit", "7")
    terminal.run("lease-conflicts", "--since-hours", "2")

    listed, conflicts = terminal.client.audit.records
    assert (listed["action"], listed["actor"], listed["resource"]) == ("tasks.list", "cli", "runtime/tasks")
    assert listed["details"] == {"status": "PENDING", "limit": 7, "offset": 0, "count": 0}
    assert conflicts["details"] == {"limit": 100, "since_hours": 2, "count": 0}


def test_ownership_events_and_the_lease_report_take_the_options_of_their_names(terminal) -> None:
    terminal.answers(ownership_events=[], lease_report=LeaseReportOutcome(generated=True, path="p", rows=2))

    assert terminal.run("ownership-events", "--limit", "7", "--since-hours", "2").document == []
    assert terminal.asked("ownership_events") == ((7, 2), {})
    assert terminal.client.audit.records[0]["details"] == {"limit": 7, "since_hours": 2, "count": 0}
    assert terminal.run("lease-report", "--hours", "3").document == {"generated": True, "path": "p", "rows": 2}
    assert terminal.asked("lease_report") == ((3, 5000), {"out": None})
    assert terminal.run("lease-report", "--limit", "9").status == 2


def test_entries_of_the_agent_files_that_were_not_taken_are_told_beside_the_answer(terminal) -> None:
    terminal.answers(agents=["echo"], unusable_agents=["scripts.json entry 1 was not taken: it has no command"] * 30)

    ended = terminal.run("agents")

    assert (ended.status, ended.document) == (0, ["echo"])
    assert ended.err.splitlines() == ["scripts.json entry 1 was not taken: it has no command"] * 20
