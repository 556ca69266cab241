"""The console on a real pseudo-terminal, over real roots and real nodes; not on Windows, which has none."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import sys
from pathlib import Path

import psutil
import pytest

from relaymesh import Client

pytestmark = [pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal is POSIX"), pytest.mark.slow]


def test_the_death_of_a_node_and_an_action_are_seen_as_they_happen(root: Path, on_terminal, start_node) -> None:
    node = start_node(root)
    with Client(root) as client:
        client.submit("fail", "boom \x1b]0;own\x07 boom")
        task = client.submit("sleep", "60000")
    top = on_terminal(root, "top", "--interval", "500ms")

    lines = top.until("1 node", "1 ALIVE", "1 running", "node-local")
    assert len(lines) <= 24 and max(map(len, lines)) <= 80

    # Cancel what runs: not without its y.
    top.type("\t\tC")
    top.until(f"cancel {task.task_id}?")
    top.type("n")
    top.until("nothing was changed")
    top.type("Cy")
    top.until(f"cancelled {task.task_id}", "0 running")
    with Client(root) as client:
        assert client.task(task.task_id).status == "CANCELLED"
        assert "task.cancel" in " ".join(client.audit_tail(20))

    # Pause the queue, and see it.
    top.type("Py")
    top.until("PAUSED")

    for child in [*psutil.Process(node.pid).children(recursive=True), psutil.Process(node.pid)]:
        with contextlib.suppress(psutil.Error):
            child.send_signal(signal.SIGKILL)
    top.until("no node runs on this root", "ENDED", "node-local is gone: its process has ended")

    top.type("q")
    assert top.ended() == 0


def test_keys_sizes_and_the_way_out(root: Path, on_terminal) -> None:
    with Client(root) as client:
        for number in range(3):
            client.submit("echo", f"hello {number}", priority="high")
    top = on_terminal(root, "top", "--interval", "1s", "--read-only", env={"NO_COLOR": "1"})

    top.until("no node runs on this root", "3 waiting")
    assert not re.search(r"\x1b\[(?:\d+;)*[39]\d(?:;\d+)*m", top.raw), "NO_COLOR, and there is a colour"
    top.type("?")
    top.until("any key goes back", "Shift-Tab")
    top.type("x")
    top.until("HIGH", without="any key goes back")
    top.type("P")
    top.until("--read-only")
    top.type("\t\r")
    top.until("nothing is paused")
    top.type("q /zzz\r")
    top.until("none that fit the filter")
    top.type("\x1b")
    top.until("held still")
    top.resize(40, 12)
    top.until_that(lambda lines: len(lines) == 12 and max(map(len, lines)) <= 40 and "held still" in lines[1])
    top.resize(100, 30)
    top.until("held still", "RETRIES AND DEAD LETTERS", "ALERTS")

    top.process.send_signal(signal.SIGTERM)
    assert top.ended() == 128 + signal.SIGTERM


def test_ctrl_c_restores_the_terminal(root: Path, on_terminal) -> None:
    top = on_terminal(root, "top")
    top.until("no node runs")

    top.type("\x03")

    assert top.ended() == 128 + signal.SIGINT


def test_ctrl_z_gives_the_terminal_back_and_fg_goes_on(root: Path, on_terminal) -> None:
    top = on_terminal(root, "top", "--interval", "500ms")
    top.until("no node runs")
    process = psutil.Process(top.process.pid)

    top.process.send_signal(signal.SIGTSTP)
    top.until_that(lambda _: process.status() == psutil.STATUS_STOPPED)
    top.read()
    assert top.raw.rfind("\x1b[?1049l") > top.raw.rfind("\x1b[?1049h")
    top.process.send_signal(signal.SIGCONT)
    top.until_that(lambda _: top.raw.rfind("\x1b[?1049h") > top.raw.rfind("\x1b[?1049l"))

    top.type("?")
    top.until("any key goes back")
    top.type("xq")
    assert top.ended() == 0


def test_a_store_that_goes_away_does_not_hold_the_screen_and_what_is_shown_is_called_old(
    root: Path, on_terminal
) -> None:
    top = on_terminal(root, "top", "--interval", "500ms")
    top.until("no node runs on this root")

    os.rename(root, root.with_name("elsewhere"))
    top.until("as it was", "ago: ", "there is no data root")
    top.type("?")
    top.until("any key goes back")
    top.type("x")
    os.rename(root.with_name("elsewhere"), root)
    top.until("no node runs on this root", without="as it was")

    top.type("q")
    assert top.ended() == 0


@pytest.mark.parametrize(
    ("break_it", "code"),
    [
        (lambda root: os.rename(root, root.with_name("elsewhere")), "root_missing"),
        (lambda root: (root / "relaymesh.db").write_bytes(b"no database at all" * 500), "root_corrupt"),
    ],
)
def test_a_root_that_cannot_be_read_is_one_sentence(root: Path, on_terminal, break_it, code: str) -> None:
    for left in root.glob("relaymesh.db-*"):
        left.unlink()
    break_it(root)
    top = on_terminal(root, "top")

    assert top.ended() == 1
    last = top.raw.strip().splitlines()[-1]
    assert f"error[{code}]" in top.raw, last


def test_a_dumb_terminal_gets_one_screen(root: Path, on_terminal) -> None:
    top = on_terminal(root, "top", env={"TERM": "dumb"})

    assert top.ended() == 0
    assert "\x1b" not in top.raw
    assert "no node runs on this root" in top.raw
    assert "printed once" in top.raw


def test_a_root_that_somebody_else_has_locked_is_one_sentence(root: Path, on_terminal) -> None:
    holder = sqlite3.connect(root / "relaymesh.db", isolation_level=None)
    holder.execute("PRAGMA locking_mode=EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    try:
        holder.execute("DELETE FROM counters")
        top = on_terminal(root, "top")
        assert top.ended() == 1
        assert "error[store_busy]" in top.raw
    finally:
        holder.close()


_BROKEN = """
import sys
from pathlib import Path
from msgspec.structs import replace
from relaymesh.client import Client
from relaymesh.console.run import run

class Broken(Client):
    def status(self):
        found = super().status()
        return replace(found, throughput_per_s=object())

run(lambda: Broken(Path(sys.argv[1])), interval_ms=500, read_only=False)
"""


def test_a_bug_of_ours_restores_the_terminal_too(root: Path, on_terminal, tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text(_BROKEN, encoding="utf-8")

    top = on_terminal(root, script=script)

    assert top.ended() == 1
    assert "Traceback" in top.raw and "\x1b[?1049l" in top.raw
