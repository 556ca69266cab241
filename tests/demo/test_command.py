"""``relaymesh demo`` as people run it: real processes, with and without a terminal, stopped, and run again."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

RELAYMESH = [sys.executable, "-m", "relaymesh"]
WITHIN_S = 60
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal or POSIX signals")


def run(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RELAYMESH, *words],
        cwd=folder,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=WITHIN_S,
    )


def suggested(text: str) -> list[str]:
    """The commands that are set in."""
    return [line.strip() for line in text.splitlines() if line.startswith("  ") and " --root " in line]


def paste(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    if sys.platform == "win32":
        return subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", timeout=WITHIN_S)
    return subprocess.run(shlex.split(command), cwd=folder, capture_output=True, encoding="utf-8", timeout=WITHIN_S)


def test_it_runs_to_its_report_and_what_it_suggests_works_when_pasted(tmp_path: Path) -> None:
    ended = run(tmp_path, "demo")

    assert (ended.returncode, ended.stderr) == (0, "")
    report = tmp_path / "relaymesh-demo" / "report.html"
    assert f"The report: {report}" in ended.stdout
    assert "<svg" in report.read_text(encoding="utf-8")
    assert (tmp_path / "relaymesh-demo" / "chart.svg").exists()
    # Every text, the chart and the report; one of them twice.
    assert len(re.findall(r"SUCCESS +attempt 1", ended.stdout)) == 9
    assert len(re.findall(r"RETRYING +attempt 1", ended.stdout)) == 1
    assert len(re.findall(r"SUCCESS +attempt 2", ended.stdout)) == 1
    commands = suggested(ended.stdout)
    assert len(commands) == 3
    for command in commands:
        pasted = paste(command, tmp_path)
        assert pasted.returncode == 0, pasted.stderr
        assert pasted.stdout
    assert "fails on purpose" in paste(commands[1], tmp_path).stdout


def test_running_it_again_adds_a_task_to_the_same_root(tmp_path: Path) -> None:
    texts = tmp_path / "my texts"
    texts.mkdir()
    (texts / "a.txt").write_text("one", encoding="utf-8")

    first = run(tmp_path, "--output", "json", "demo", "--input", "my texts")
    second = run(tmp_path, "--output", "json", "demo", "--input", "my texts")

    documents: list[dict[str, Any]] = [json.loads(ended.stdout) for ended in (first, second)]
    assert [document["status"] for document in documents] == ["SUCCESS", "SUCCESS"]
    assert [(document["steps"], document["retried"]) for document in documents] == [(3, 1), (3, 1)]
    assert documents[0]["taskId"] != documents[1]["taskId"]
    assert {document["root"] for document in documents} == {str(tmp_path / "relaymesh-demo" / "data")}
    listed = json.loads(run(tmp_path, "--root", "relaymesh-demo/data", "tasks").stdout)
    assert len(listed) == 2


@pytest.mark.parametrize(
    ("words", "root"),
    [
        (["demo", "--root", "r 1", "--out", "o"], "r 1"),
        (["--root", "r 1", "demo", "--out", "o"], "r 1"),
        (["--namespace", "blue", "demo", "--out", "o"], "o/data"),
    ],
)
def test_root_and_out_are_where_they_are_said_to_be(words: list[str], root: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two", encoding="utf-8")

    ended = run(tmp_path, *words, "--input", ".")

    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "o" / "report.html").exists()
    assert list((tmp_path / root).rglob("relaymesh.db"))
    assert json.loads(paste(suggested(ended.stdout)[0], tmp_path).stdout)["task"]["status"] == "SUCCESS"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--input", "none"], "demo_input"),
        (["--input", "file"], "demo_input"),
        (["--input", "empty"], "demo_input"),
        (["--out", "file"], "io"),
        (["--root", "file"], None),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], code: str | None, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()

    ended = run(tmp_path, "demo", *words)

    assert ended.returncode == 1
    (sentence,) = ended.stderr.splitlines()
    assert sentence.startswith(f"error[{code}]: " if code else "error[")
    assert "a bug" not in sentence


def test_it_prints_in_any_encoding(tmp_path: Path) -> None:
    (tmp_path / "größe – 日本.txt").write_text("eins", encoding="utf-8")

    ended = run(tmp_path, "demo", "--input", ".", PYTHONIOENCODING="ascii", PYTHONUTF8="0")

    assert ended.returncode == 0, ended.stderr
    assert "gr" in ended.stdout


@posix
def test_ctrl_c_stops_it_in_order_and_what_it_suggests_runs_the_rest(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(60):
        (texts / f"{number:02d}.txt").write_text("word " * number, encoding="utf-8")
    process = subprocess.Popen(
        [*RELAYMESH, "demo", "--input", "texts"], cwd=tmp_path, stdout=subprocess.PIPE, encoding="utf-8"
    )
    assert process.stdout is not None
    said = ""
    while "SUCCESS" not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    process.send_signal(signal.SIGINT)
    said += process.communicate(timeout=WITHIN_S)[0]

    assert process.returncode == 130
    assert re.search(r"Stopped with \d+ of 62 steps done", said)
    commands = suggested(said)
    assert len(commands) == 3
    node = subprocess.Popen(shlex.split(commands[0]), cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        report = tmp_path / "relaymesh-demo" / "report.html"
        deadline = time.monotonic() + WITHIN_S
        while not report.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "60 texts" in report.read_text(encoding="utf-8")
    finally:
        node.terminate()
        assert node.wait(WITHIN_S) == 0
    assert all(step["status"] == "SUCCESS" for step in json.loads(paste(commands[1], tmp_path).stdout)["steps"])


@posix
def test_a_stop_before_the_node_is_up_is_heard_as_well(tmp_path: Path) -> None:
    process = subprocess.Popen([*RELAYMESH, "demo"], cwd=tmp_path, stdout=subprocess.PIPE, encoding="utf-8")
    assert process.stdout is not None
    assert "RelayMesh demo" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=WITHIN_S)[0]

    assert process.returncode == 130
    assert "Stopped with" in said


@posix
def test_a_terminal_of_80_by_24_shows_a_table_that_fits(tmp_path: Path) -> None:
    screen = on_a_terminal(tmp_path, [*RELAYMESH, "demo"], NO_COLOR="1")

    assert "\x1b[3" not in screen  # no colour
    unstyled = re.sub(r"\x1b\[[0-9;]*m", "", screen)
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", unstyled).replace("\r", "\n").splitlines()
    rows = [line for line in lines if re.search(r"words-shaky", line)]
    assert any("PENDING" in row for row in rows)
    assert any("RETRYING" in row for row in rows)
    assert any("SUCCESS" in row for row in rows)
    assert all(len(row) <= 80 for row in rows)
    assert "10 of 10 steps done" in screen


@posix
def test_a_terminal_that_cannot_redraw_gets_lines(tmp_path: Path) -> None:
    screen = on_a_terminal(tmp_path, [*RELAYMESH, "demo"], TERM="dumb")

    assert "\x1b" not in screen
    assert "SUCCESS" in screen


def on_a_terminal(folder: Path, command: list[str], **environment: str) -> str:
    """Run on a pseudo-terminal of 80 columns and 24 lines; return all that was written to it."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    clean = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**clean, "TERM": "xterm-256color", **environment},
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 65_536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not piece:
            break
        written += piece
    os.close(ours)
    assert process.wait(WITHIN_S) == 0, written.decode()
    return written.decode()
