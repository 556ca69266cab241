"""The command ``schedule`` on a real root: its answers, its tables and its errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from relaymesh.cli import main


class Shell:
    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._root = root
        self._capsys = capsys

    def run(self, *words: str, output: str = "json") -> tuple[int, str, str]:
        self._capsys.readouterr()
        status = main(["--root", str(self._root), "--output", output, *words])
        out, err = self._capsys.readouterr()
        return status, out, err


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path / "root", capsys)


def test_a_schedule_is_made_looked_at_and_taken_away(shell: Shell) -> None:
    make = ("schedule", "create", "nightly", "--cron", "30 2 * * *", "--timezone", "Europe/Berlin", "--agent", "echo")
    status, out, _ = shell.run(*make, "--input", "hi", "--label", "team=blue", "--jitter", "5s")

    made = json.loads(out)
    assert status == 0
    assert (made["name"], made["cron"], made["jitterMs"], made["labels"]) == (
        "nightly",
        "30 2 * * *",
        5_000,
        {"team": "blue"},
    )
    assert json.loads(shell.run("schedule", "list")[1]) == [made]
    assert json.loads(shell.run("schedule", "show", "nightly")[1]) == {"schedule": made, "runs": []}
    assert len(json.loads(shell.run("schedule", "next", "nightly", "--count", "3")[1])) == 3
    assert shell.run("schedule", "pause", "nightly")[0] == 0
    assert shell.run("schedule", "pause", "nightly")[0] == 1
    assert json.loads(shell.run("schedule", "list", "--state", "active")[1]) == []
    assert shell.run("schedule", "resume", "nightly")[0] == 0
    status, out, _ = shell.run("schedule", "trigger", "nightly")
    assert json.loads(out)["taskId"].startswith("tsk_")
    assert json.loads(shell.run("tasks", "--label", "schedule=nightly")[1])[0]["taskId"] == json.loads(out)["taskId"]
    assert json.loads(shell.run("schedule", "backfill", "nightly", "--from", "2030-01-01T00:00:00Z")[2])["code"] == (
        "bad_backfill"
    )
    assert shell.run("schedule", "delete", "nightly")[0] == 0
    assert json.loads(shell.run("schedule", "show", "nightly")[2])["code"] == "schedule_not_found"


def test_a_workflow_file_is_scheduled(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "flow.json").write_text('{"steps": [{"id": "a", "agent": "echo", "input": "x"}]}', encoding="utf-8")

    status, out, _ = shell.run("schedule", "create", "w", "--every", "1h", "--workflow", str(tmp_path / "flow.json"))

    assert status == 0
    assert json.loads(out)["workflow"] is True
    task_id = json.loads(shell.run("schedule", "trigger", "w")[1])["taskId"]
    assert json.loads(shell.run("workflow", task_id)[1])["steps"][0]["stepId"] == f"stp_{task_id}_a"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--cron", "99 * * * *", "--agent", "echo"), "bad_cron"),
        (("--cron", "0 * * * *", "--timezone", "Mars/Base", "--agent", "echo"), "unknown_zone"),
        (("--every", "10ms", "--agent", "echo"), "bad_schedule"),
        (("--every", "10s", "--agent", "nobody"), "unknown_agent"),
        (
            (
                "--every",
                "10s",
            ),
            "bad_schedule",
        ),
    ],
)
def test_what_is_wrong_is_one_object_with_its_code(shell: Shell, words: tuple[str, ...], code: str) -> None:
    status, out, err = shell.run("schedule", "create", "s", *words)

    assert (status, out) == (1, "")
    assert json.loads(err)["code"] == code


def test_a_person_sees_tables(shell: Shell) -> None:
    shell.run("schedule", "create", "s", "--every", "1h", "--agent", "echo")
    shell.run("schedule", "trigger", "s")

    listed = shell.run("schedule", "list", output="table")[1]
    shown = shell.run("schedule", "show", "s", output="table")[1]

    assert "ACTIVE" in listed and "input sha256" not in listed
    assert "trigger" in shown and "every ms" in shown


@pytest.mark.parametrize("name", ["create", "list", "show", "next", "pause", "resume", "trigger", "backfill", "delete"])
def test_every_command_has_a_help_page_with_an_example(shell: Shell, name: str) -> None:
    status, page, _ = shell.run("schedule", name, "--help")

    assert status == 0
    assert f"relaymesh schedule {name}" in page.split("Example:")[1]
