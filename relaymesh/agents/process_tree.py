"""Ending everything that an attempt started: children, grandchildren, and daemons that tried to get away.

On Linux a worker process adopts orphans (``PR_SET_CHILD_SUBREAPER``): a process whose parent died, or that was forked
twice and called ``setsid``, becomes a child of the worker instead of a child of init. So what an attempt started is
always below its worker, and is found by walking down the parent ids in /proc, whatever it closed, cleared or renamed.

Elsewhere there is no adoption. There psutil walks the tree, and orphans are known by a mark in the environment that
every worker gets; one that also cleared its environment escapes. On Windows a job object ends the rest when the worker
ends (``windows_job``).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from relaymesh.agents.process_ref import KILL_WITHIN_S, MARK_VARIABLE, Killed, Process

if TYPE_CHECKING:
    import subprocess

if sys.platform == "linux":
    from relaymesh.agents import tree_linux as _tree
else:
    from relaymesh.agents import tree_psutil as _tree

__all__ = [
    "KILL_WITHIN_S",
    "MARK_VARIABLE",
    "Killed",
    "Process",
    "adopt_orphans",
    "adopting_for_a_moment",
    "descendants",
    "has_children",
    "kill_descendants",
    "kill_marked",
    "kill_tree",
    "reap_adopted",
    "wait_unreaped",
    "wake_when_parent_dies",
]


def kill_descendants(root: int, *, spare: Collection[Process] = (), unreaped: Collection[int] = ()) -> Killed:
    """Kill everything below ``root``, which itself is left alone; blocks until it is gone, at most ``KILL_WITHIN_S``.

    spare: these are left alone, with all that is below them.
    unreaped: pids of children of this process that are killed but that somebody else waits for.
    """
    return _tree.kill_descendants(root, spare=spare, unreaped=unreaped)


def kill_tree(root: int) -> Killed:
    """Freeze ``root``, kill everything below it, then kill it too; whoever started it waits for it."""
    _tree.stop_root(root)
    killed = _tree.kill_descendants(root)
    _tree.kill_root(root)
    return killed


def kill_marked(mark: str) -> Killed:
    """Kill what carries this mark in its environment, and all below it: the orphans of a worker that died by itself."""
    gone: list[int] = []
    left: list[int] = []
    for process in _tree.marked(mark):
        killed = kill_tree(process.pid)
        gone += [*killed.gone, process.pid]
        left += killed.left
    _tree.reap(gone)
    return Killed(tuple(gone), tuple(left))


def descendants(root: int) -> list[Process]:
    """Return what is below ``root``; on Linux with zombies."""
    return _tree.descendants(root)


def has_children() -> bool:
    """Tell whether this process has any child, dead or alive. About a microsecond on Linux, milliseconds elsewhere."""
    return _tree.has_children()


def reap_adopted(unreaped: Collection[int] = ()) -> None:
    """Collect adopted children that have ended, so that a long attempt does not pile up zombies.

    Only for attempts in which nobody else waits for children, or ``unreaped`` names them.
    """
    _tree.reap_adopted(unreaped)


def wait_unreaped(child: subprocess.Popen[bytes]) -> None:
    """Wait until the child has ended, and leave it to be collected: until then its pid names nobody else.

    Where the platform cannot do that it is collected at once.
    """
    if sys.platform != "win32" and hasattr(os, "waitid"):
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    else:
        child.wait()


def adopt_orphans() -> bool:
    """Make this process the one that orphans below it fall to; return whether the platform can."""
    return _tree.adopt_orphans()


def wake_when_parent_dies() -> None:
    """Do not stay frozen when the parent dies, where the platform freezes processes at all."""
    _tree.wake_when_parent_dies()


def adopting_for_a_moment() -> AbstractContextManager[list[int]]:
    """Adopt what is orphaned meanwhile, and at the end reap the pids that were put into the list.

    When a worker is killed, what was killed below it falls to init as zombies, and in a container init is often a
    program that never waits. A node that adopted for good would collect orphans of the program that it is part of.
    """
    return _tree.adopting_for_a_moment()
