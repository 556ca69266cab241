from __future__ import annotations

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest

import relaymesh
from relaymesh.cli.group import COMMANDS
from relaymesh.client import Client

REPO = Path(__file__).resolve().parents[2]


def test_without_a_command_the_names_are_listed(terminal) -> None:
    ended = terminal.run()

    assert ended.status == 0
    assert ended.out.split() == list(COMMANDS)


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_names_every_command(terminal, word: str) -> None:
    ended = terminal.run(word)

    assert ended.status == 0
    assert all(name in ended.out and entry.summary[:30] in ended.out for name, entry in COMMANDS.items())


@pytest.mark.parametrize("word", ["-V", "--version"])
def test_the_version_is_the_one_of_setup_cfg(terminal, word: str) -> None:
    settings = configparser.ConfigParser()
    settings.read(REPO / "setup.cfg", encoding="utf-8")

    ended = terminal.run(word)

    assert ended.out == f"relaymesh {settings['metadata']['version']}\n"
    assert relaymesh.__version__ == settings["metadata"]["version"]


def test_the_root_is_made_absolute_and_the_namespace_handed_on(terminal) -> None:
    terminal.answers(agents=["echo"])

    terminal.run("--root", "here", "--namespace=team", "agents", "--agents", "a.py,b.py", "--agents", "c")

    assert terminal.doors.opened == [(os.path.abspath("here"), "team", ("a.py", "b.py", "c"))]


def test_the_root_is_data_and_the_namespace_default_when_nothing_is_said(terminal) -> None:
    terminal.answers(agents=["echo"])

    terminal.run("agents")

    assert terminal.doors.opened == [(os.path.abspath("data"), "default", ())]


def test_the_client_is_closed_when_the_command_ends(terminal) -> None:
    terminal.answers(agents=["echo"])

    terminal.run("agents")

    assert terminal.client.calls[-1][0] == "close"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sumbit"], 'no such command "sumbit"; did you mean "submit"?'),
        (["--colour", "task"], "no such option '--colour'"),
        (["task"], "missing argument 'TASK'"),
        (["task", "tsk_1", "--x"], "no such option '--x'"),
        (["tasks", "--limit", "0"], "invalid value for '--limit'"),
        (["tasks", "--limit", "many"], "invalid value for '--limit'"),
        (["tasks", "--namespace", "x"], "--namespace goes before the command"),
        (["tasks", "--json"], "there is no --json here; say relaymesh --output json tasks"),
        (["schedule", "list", "--json"], "say relaymesh --output json schedule list,"),
        (["--output", "xml", "tasks"], "invalid value for '--output'"),
        (["tasks", "--limit", "many"], "'many' is not a whole number"),
        (["tasks", "--limit", "-1"], "-1 is too small: the least is 1"),
        (["tasks", "--limt", "1"], "no such option '--limt'; did you mean '--limit'?; see"),
        (["completion"], "missing argument 'SHELL', choose from: bash, zsh, fish, powershell; see"),
        (["completion", "tcsh"], "invalid value for 'SHELL'"),
        (["help"], 'no such command "help"; see `relaymesh --help`'),
        (["--root", "", "tasks"], "invalid value for '--root': it is empty: name a folder"),
        (["benchmark-run", "--report-out", "nowhere/x"], "invalid value for '--report-out': there is no folder"),
        (["submit", "--batch", "-", "--wait"], "--wait does not go with --batch: nothing is waited for"),
        (["submit", "--batch", "-", "--agent", "a"], "--agent does not go with --batch: put it on the lines"),
    ],
)
def test_wrong_usage_is_one_sentence_and_status_2(terminal, words: list[str], sentence: str) -> None:
    ended = terminal.run(*words)

    assert ended.status == 2
    assert ended.out == ""
    assert ended.err.startswith("error[usage]: ")
    assert sentence.lower() in ended.err.lower()
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("words", [["--help"], ["-V"], ["submit", "--help"], []])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    heavy = ["rich", "sqlite3", "msgspec", "msgpack", "pykka", "httpx", "importlib.metadata", "asyncio"]
    program = (
        "import sys; from relaymesh.cli import main; status = main(sys.argv[1:]);"
        f"found = [name for name in {heavy} if name in sys.modules];"
        "sys.exit(str(found) if found or status else 0)"
    )
    # Coverage would load some of these into the child by itself.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}

    done = subprocess.run([sys.executable, "-c", program, *words], env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [["--help"], ["up", "--help"], ["task", "tsk_of_nobody"], ["tasks"], ["status"]])
def test_what_only_looks_loads_nothing_of_the_mesh(tmp_path: Path, words: list[str]) -> None:
    with Client(tmp_path / "data") as client:
        client.init()
    program = (
        "import sys; from relaymesh.cli import main; main(sys.argv[1:]);"
        "places = ('relaymesh.core.mesh', 'relaymesh.wire.mesh', 'relaymesh.net.gossip', 'actors');"
        # Two rules of some lines say whether a worker is paused, which `status` shows.
        "small = ('relaymesh.core.mesh', 'relaymesh.core.mesh.local', 'relaymesh.core.mesh.silence');"
        "found = [name for name in sys.modules if name.startswith(places) and name not in small];"
        "sys.exit(str(found).replace('[]', '') or 0)"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, "--root", str(tmp_path / "data"), *words], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr


def test_the_module_can_be_run() -> None:
    done = subprocess.run([sys.executable, "-m", "relaymesh", "--version"], capture_output=True, text=True, check=True)

    assert done.stdout == f"relaymesh {relaymesh.__version__}\n"


def test_a_command_of_another_package_is_found_by_its_entry_point(terminal, tmp_path, monkeypatch) -> None:
    (tmp_path / "elsewhere.py").write_text(
        "import click\n@click.command()\ndef hello():\n    click.echo('hello from elsewhere')\n", encoding="utf-8"
    )
    metadata = tmp_path / "elsewhere-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text("[relaymesh.commands]\nhello = elsewhere:hello\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))

    assert terminal.run("hello").out == "hello from elsewhere\n"
