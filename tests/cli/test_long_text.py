"""Texts that are longer than anybody reads are refused before anything is done, in one sentence."""

from __future__ import annotations

import json

import click
import pytest

from relaymesh.argument import NAME_CHARS_MAX, PATH_CHARS_MAX, TEXT_CHARS_MAX
from relaymesh.cli.group import relaymesh
from relaymesh.cli.option import Command

CALLS = [
    (["cluster-epoch-bump", "--reason"], TEXT_CHARS_MAX),
    (["cluster-epoch-bump", "--actor"], NAME_CHARS_MAX),
    (["cancel", "tsk_1", "--reason"], TEXT_CHARS_MAX),
    (["discard", "tsk_1", "--reason"], TEXT_CHARS_MAX),
    (["queue", "pause", "--reason"], TEXT_CHARS_MAX),
    (["queue", "drain", "a", "--reason"], TEXT_CHARS_MAX),
    (["submit", "--agent", "echo", "--input", "x", "--idempotency-key"], TEXT_CHARS_MAX),
    (["worker", "--once", "--worker-id"], NAME_CHARS_MAX),
    (["audit-query", "--action"], TEXT_CHARS_MAX),
    (["dead-list", "--text"], TEXT_CHARS_MAX),
    (["replay", "tsk_1", "--step"], TEXT_CHARS_MAX),
    (["task-export", "tsk_1", "--out"], PATH_CHARS_MAX),
    (["worker", "--once", "--agents"], PATH_CHARS_MAX),
]


@pytest.mark.parametrize(
    ("words", "chars_max"), CALLS, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_a_text_that_is_too_long_is_a_wrong_call_and_nothing_is_asked(
    terminal, words: list[str], chars_max: int
) -> None:
    ended = terminal.run("--output", "json", *words, "x" * (chars_max + 1))

    told = json.loads(ended.err)
    assert (ended.status, ended.out, told["code"]) == (2, "", "text_too_long")
    assert told["message"].startswith(f"{words[-1]} has {chars_max + 1:,} characters, and takes {chars_max:,} at most:")
    assert terminal.doors.opened == [] and terminal.doors.started == []


def test_a_text_of_just_that_length_is_taken(terminal) -> None:
    terminal.answers(audit_query=[])

    assert terminal.run("audit-query", "--action", "x" * TEXT_CHARS_MAX).status == 0


def test_a_task_that_is_named_by_a_long_text_is_a_wrong_call(terminal) -> None:
    ended = terminal.run("explain", "x" * 100_000)

    assert ended.status == 2
    assert ended.err.startswith("error[text_too_long]: TASK has 100,000 characters")


@pytest.mark.parametrize("words", [["--delay"], ["--at"], ["--budget"], ["--no-such-option"]])
def test_what_is_wrong_with_a_long_text_is_said_in_a_sentence_that_can_be_read(terminal, words: list[str]) -> None:
    ended = terminal.run("submit", "--agent", "echo", "--input", "x", *words, "y" * 100_000)

    assert ended.status == 2
    assert len(ended.err) < 5_000
    assert words[0] in ended.err


def test_every_text_of_every_command_has_a_limit() -> None:
    """Also those that will be added: the limit is that of the class of commands."""
    found = [command for command in _commands(relaymesh, "relaymesh") if command.params]

    assert len(found) > 50
    assert [command.name for command in found if not isinstance(command, Command)] == []


def _commands(group: click.Group, name: str) -> list[click.Command]:
    context = click.Context(group, info_name=name)
    made: list[click.Command] = []
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        assert command is not None
        made += _commands(command, word) if isinstance(command, click.Group) else [command]
    return made
