"""The pages about Python name everything there is, and the code on them does what they say."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import relaymesh
from relaymesh import Client, Context, Workflow, agent
from relaymesh.agents.registry import Registry
from relaymesh.testing import InlineRelay

DOCS = Path(__file__).resolve().parents[2] / "docs"
API = (DOCS / "python-api.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)(?: +([^\n]+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def promised(code: str) -> list[str]:
    return re.findall(r"# prints (.*)$", code, re.MULTILINE)


class PageRelay(InlineRelay):
    """Runs the agents that the page has defined so far."""

    def __init__(self, names: dict[str, Any]) -> None:
        super().__init__()
        self._names = names

    def _local_agents(self) -> Registry:
        found = {value.__relaymesh_agent__ for value in self._names.values() if hasattr(value, "__relaymesh_agent__")}
        registry = super()._local_agents()
        specs = {**registry.specs, **{spec.agent_id: spec for spec in found}}
        return Registry(specs, specs, (), registry.scripts, registry.retries)


def test_the_code_of_the_reference_does_what_it_says(tmp_path: Path) -> None:
    names = _module()
    run = 0
    with PageRelay(names) as client:
        names["client"] = client
        for language, option, code in BLOCK.findall(API):
            if language != "python" or option == "no-run":
                continue
            run += 1
            if "__main__" in code:
                assert _program(tmp_path, code) == promised(code)
                continue
            printed = io.StringIO()
            with redirect_stdout(printed):
                exec(compile(code, f"block {run} of python-api.md", "exec", dont_inherit=True), names)
            assert printed.getvalue().splitlines() == promised(code)
    assert run >= 14


def _module() -> dict[str, Any]:
    """The names of a new module; dataclasses look theirs up."""
    module = ModuleType("page")
    sys.modules["page"] = module
    return vars(module)


def _program(folder: Path, code: str) -> list[str]:
    (folder / "program.py").write_text(code, encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "program.py"], cwd=folder, capture_output=True, encoding="utf-8", timeout=60
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.splitlines()


def test_the_tests_on_the_page_about_testing_pass() -> None:
    names = _module()
    for language, option, code in BLOCK.findall((DOCS / "testing.md").read_text(encoding="utf-8")):
        if language == "python" and option != "no-run":
            exec(compile(code, "testing.md", "exec", dont_inherit=True), names)
    tests = [value for name, value in names.items() if name.startswith("test_")]

    for test in tests:
        test()
    assert len(tests) == 5


def test_every_name_has_its_place_in_the_reference() -> None:
    headings = set(re.findall(r"^### `(\w+)`$", API, re.MULTILINE))

    assert headings | {"__version__"} == set(relaymesh.__all__)
    assert "`__version__`" in API


def test_every_name_that_is_exported_can_be_imported_and_says_what_it_is() -> None:
    for name in relaymesh.__all__:
        value = getattr(relaymesh, name)
        if callable(value):
            assert value.__doc__, name
    assert set(relaymesh.__all__) <= set(dir(relaymesh))


def test_every_method_and_option_has_its_place_in_the_reference() -> None:
    def public(of: type) -> Iterator[str]:
        return (name for name in dir(of) if not name.startswith("_"))

    missing = [f"Client.{name}" for name in public(Client) if not re.search(rf"`{name}[`(]", API)]
    missing += [f"Context.{name}" for name in public(Context) if not re.search(rf"`{name}[`(]", API)]
    missing += [f"Workflow.{name}" for name in public(Workflow) if f"`{name}" not in API]
    missing += [f"agent({name})" for name in agent.__kwdefaults__ if f"`{name}`" not in API]
    missing += [f"Node({name})" for name in relaymesh.Node.__init__.__kwdefaults__ if f"{name}=" not in API]

    assert missing == ["Node(builder)"]  # for our own tests


@dataclass
class FirstRun:
    """Does what the page says, in a folder of its own."""

    folder: Path
    task_id: str = "tsk_none"
    nodes: list[subprocess.Popen[str]] = field(default_factory=list)

    def do(self, line: str, *, fails: bool) -> None:
        program, *words = shlex.split(line.replace("TASK", self.task_id))
        command = [sys.executable, *(["-m", "relaymesh"] if program == "relaymesh" else []), *words]
        if words[0] == "up":
            node = subprocess.Popen(command, cwd=self.folder, stderr=subprocess.PIPE, encoding="utf-8")
            self.nodes.append(node)
            assert node.stderr is not None and "is up" in node.stderr.readline()
            return
        ended = subprocess.run(command, cwd=self.folder, capture_output=True, encoding="utf-8", timeout=120)
        assert (ended.returncode != 0) == fails, (line, ended.stdout, ended.stderr)
        self.task_id = ([self.task_id, *re.findall(r"tsk_[0-9a-f-]{36}", ended.stdout)])[-1]
        self.printed = ended.stdout


def test_the_first_run_goes_as_it_is_written(tmp_path: Path) -> None:
    run = FirstRun(tmp_path)
    lines = 0
    try:
        for language, option, code in BLOCK.findall((DOCS / "first-run.md").read_text(encoding="utf-8")):
            if language != "sh":
                (tmp_path / option).write_text(code, encoding="utf-8")
                continue
            for line in code.splitlines():
                run.do(line, fails=option == "fails")
                lines += 1
    finally:
        for node in run.nodes:
            node.terminate()
            node.wait(60)

    assert lines >= 17
    assert run.printed == "Hello, the program!\n"
