"""``status`` and ``top`` where there is no terminal; on one they are driven in tests/console."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from relaymesh import Client


def run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "relaymesh", "--root", str(root), *words],
        capture_output=True,
        text=True,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        check=False,
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with Client(tmp_path / "data") as client:
        client.submit("echo", "hello")
    return tmp_path / "data"


@pytest.mark.parametrize("words", [("top",), ("status", "--once=false"), ("--output", "table", "status")])
def test_in_a_pipe_it_is_printed_once(root: Path, words: tuple[str, ...]) -> None:
    ran = run(root, *words)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert "\x1b" not in ran.stdout
    if "table" in words:
        assert "no node runs on this root" in ran.stdout and "1 waiting" in ran.stdout
        assert max(map(len, ran.stdout.splitlines())) <= 80
    else:
        found = json.loads(ran.stdout)
        assert (found["nodesAlive"], [lane["waiting"] for lane in found["lanes"]]) == (0, [0, 1, 0])


def test_json_wins_over_tables(root: Path) -> None:
    assert json.loads(run(root, "--output", "table", "status", "--json").stdout)["membersTotal"] == 0


def test_a_root_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    ran = run(tmp_path / "none", "status")

    assert ran.returncode == 1
    assert ran.stderr.startswith("error[root_missing]") and ran.stderr.count("\n") == 1


@pytest.mark.parametrize("interval", ["499ms", "61s", "2"])
def test_an_interval_out_of_bounds_is_a_usage_error(terminal, interval: str) -> None:
    ran = terminal.run("top", "--interval", interval)

    assert ran.status == 2
    assert ran.err.startswith("error[usage]")


def test_help_loads_nothing_of_the_console() -> None:
    code = (
        "import sys; from relaymesh.cli import main; main(['--help']); print([m for m in sys.modules if 'rich' in m])"
    )
    code += "; print([m for m in sys.modules if 'console' in m or 'cli.status' in m])"

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert ran.stdout.splitlines()[-2:] == ["[]", "[]"]
