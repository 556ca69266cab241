"""What a user reads before using a command: its help page, and the page in docs/."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from relaymesh.cli.group import COMMANDS
from relaymesh.cli.group import relaymesh as group

DOCS = Path(__file__).resolve().parents[2] / "docs" / "commands.md"


def load(name: str) -> click.Command:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    return command


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_page_has_a_summary_of_one_sentence_and_an_example(terminal, name: str) -> None:
    page = terminal.run(name, "--help")

    summary = COMMANDS[name].summary
    assert page.status == 0
    assert summary.endswith(".") and summary.count(". ") == 0
    assert summary in " ".join(page.out.split())
    assert "Example:" in page.out
    assert f"relaymesh {name}" in page.out.split("Example:")[1] or f" {name}" in page.out.split("Example:")[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_help_page_fits_into_80_columns(terminal, name: str, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    page = terminal.run(name, "--help").out

    assert max(map(len, page.splitlines())) <= 80
    assert "RANGE" not in page  # a word of the parser's


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does_and_shows_its_default(terminal, name: str) -> None:
    page = " ".join(terminal.run(name, "--help").out.split())

    for option in load(name).params:
        if isinstance(option, click.Option):
            assert option.help
            has_default = option.default is not None and not option.required and not option.multiple
            if has_default and isinstance(option.default, str | int | bool):
                text = str(option.default).lower() if isinstance(option.default, bool) else str(option.default)
                assert f"[default: {text}" in page, option.name


@pytest.mark.parametrize("name", COMMANDS)
def test_the_reference_page_names_every_command_with_all_its_options(name: str) -> None:
    sections = re.split(r"^### ", DOCS.read_text(encoding="utf-8"), flags=re.MULTILINE)

    (section,) = [text for text in sections if text.startswith(f"`{name}`\n")]

    missing = [
        option.opts[0]
        for option in load(name).params
        if isinstance(option, click.Option) and f"`{option.opts[0]}" not in section
    ]
    assert missing == []
    assert COMMANDS[name].summary in section


def test_every_example_on_a_help_page_can_be_parsed() -> None:
    import shlex

    for name in COMMANDS:
        command = load(name)
        for line in (command.epilog or "").splitlines():
            words = shlex.split(line.split(" || ")[0].split(" >")[0].strip())
            if words[:1] == ["relaymesh"]:
                rest = words[words.index(name) + 1 :]
                command.make_context(name, rest, resilient_parsing=False).close()
