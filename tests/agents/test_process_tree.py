"""Ending processes and all below them, with the two ways of looking for them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType

import psutil
import pytest

from relaymesh.agents import process_tree, tree_psutil
from relaymesh.agents.process_ref import Process

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""

GRANDPARENT = """
import subprocess, time
parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
print(parent.pid, parent.stdout.readline(), sep="\\n", end="", flush=True)
time.sleep(600)
"""

ways: list[ModuleType] = [tree_psutil]
if sys.platform == "linux":
    from relaymesh.agents import tree_linux

    ways.append(tree_linux)


def start(**variables: str) -> tuple[subprocess.Popen[str], int]:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, env={**os.environ, **variables}
    )
    assert parent.stdout is not None
    with parent.stdout:
        return parent, int(parent.stdout.readline())


def over(pid: int) -> bool:
    """Gone, or a zombie that init has not collected yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("way", ways)
def test_all_below_a_process_is_killed_and_the_process_is_left_alone(way: ModuleType) -> None:
    parent, child = start()
    assert [process.pid for process in way.descendants(parent.pid)] == [child]

    killed = way.kill_descendants(parent.pid)

    assert (killed.gone, killed.left) == ((child,), ())
    assert over(child) and parent.poll() is None
    way.kill_root(parent.pid)
    assert parent.wait() != 0


@pytest.mark.parametrize("way", ways)
def test_what_is_spared_lives_with_all_below_it(way: ModuleType) -> None:
    top = subprocess.Popen(
        [sys.executable, "-c", f"import sys\nPARENT = {PARENT!r}\n" + GRANDPARENT], stdout=subprocess.PIPE, text=True
    )
    assert top.stdout is not None
    with top.stdout:
        parent, child = int(top.stdout.readline()), int(top.stdout.readline())
    spared = next(process for process in way.descendants(top.pid) if process.pid == parent)

    assert way.kill_descendants(top.pid, spare=[spared]).gone == ()
    assert not over(parent) and not over(child)
    another = Process(parent, spared.started - 1)  # the same pid, but a process of former times
    assert set(way.kill_descendants(top.pid, spare=[another]).gone) == {parent, child}
    way.kill_root(top.pid)
    top.wait()


@pytest.mark.parametrize("way", ways)
def test_what_carries_a_mark_is_found(way: ModuleType) -> None:
    parent, child = start(RELAYMESH_WORKER="a-mark-of-this-test")

    assert {process.pid for process in way.marked("a-mark-of-this-test")} == {parent.pid, child}
    assert way.marked("no such mark") == []
    process_tree.kill_tree(parent.pid)
    parent.wait()


def test_a_tree_is_killed_from_its_root_on(eventually: Callable[[Callable[[], object]], None]) -> None:
    parent, child = start()

    with process_tree.adopting_for_a_moment() as orphans:
        orphans += process_tree.kill_tree(parent.pid).gone
        parent.wait()

    eventually(lambda: not psutil.pid_exists(child))  # collected by us where we may, by init elsewhere


def test_what_does_not_exist_is_no_error() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()

    assert process_tree.kill_tree(gone.pid).gone == ()
    assert process_tree.kill_marked("no such mark").gone == ()


def test_a_child_that_ended_is_left_to_be_collected() -> None:
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(5)"])

    process_tree.wait_unreaped(child)

    assert process_tree.has_children() or sys.platform != "linux"
    assert child.wait() == 5
