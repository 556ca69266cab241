"""Every program of examples/ runs and prints what it says that it prints."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROGRAMS = sorted(path.name for path in EXAMPLES.glob("*.py") if "\nprints:\n" in path.read_text(encoding="utf-8"))
WITHIN_S = 60.0


def promised(path: Path) -> list[str]:
    """The lines below ``prints:`` in the docstring."""
    page = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return [line.removeprefix("    ") for line in page.partition("\nprints:\n")[2].splitlines()]


def run(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=WITHIN_S
    )


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_prints_what_its_docstring_promises(name: str, tmp_path: Path) -> None:
    ended = run(str(EXAMPLES / name), folder=tmp_path)

    assert ended.stderr == ""
    assert ended.stdout.splitlines() == promised(EXAMPLES / name)
    assert ended.returncode == 0
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


def test_the_tests_of_the_agents_pass(tmp_path: Path) -> None:
    ended = run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLES / "test_word_agents.py"), folder=tmp_path)

    assert ended.returncode == 0, ended.stdout
    assert re.search(r"^5 passed", ended.stdout, re.MULTILINE)


def test_the_page_names_every_program() -> None:
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")

    assert sorted(re.findall(r"^\| \[[^]]+\]\(([^)]+)\)", page, re.MULTILINE)) == sorted(
        path.name for path in EXAMPLES.glob("*.py")
    )
    assert len(PROGRAMS) == 10
