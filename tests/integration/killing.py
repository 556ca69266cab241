"""Run something in a process of its own that is killed at its n-th step on the disk.

A step is what Python tells its audit hooks of: a rename, a removal, a folder made, a file opened to be written, a mode
or a time changed, a database opened. The process ends by SIGKILL right before it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["kill_at", "kill_at_every_step", "kill_at_statement"]

_STEPS = frozenset(
    {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.utime", "os.truncate", "shutil.rmtree"}
)


def kill_at(step: int, work: Callable[[], object], below: Path) -> bool:
    """Run ``work`` in a child and kill it before its ``step``-th step below a folder; return whether it ended first.

    Fails when the child ended in another way.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            sys.addaudithook(_Killer(step, str(below)))
            work()
            status = 0
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    if os.WIFSIGNALED(ended):
        assert os.WTERMSIG(ended) == signal.SIGKILL
        return False
    assert os.waitstatus_to_exitcode(ended) == 0, "it failed by itself"
    return True


def kill_at_every_step(prepare: Callable[[int], Callable[[], object]], below: Path) -> Iterator[int]:
    """Kill at the first step, then anew at the second, and so on; yield after each kill, end when one ran through."""
    step = 1
    while True:
        work = prepare(step)
        if kill_at(step, work, below):
            return
        yield step
        step += 1


class _Killer:
    def __init__(self, step: int, below: str) -> None:
        self._left, self._below = step, below

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._is_step(event, args):
            return
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def _is_step(self, event: str, args: tuple[Any, ...]) -> bool:
        if event == "sqlite3.connect":
            return True
        path = args[0] if args else None
        if isinstance(path, os.PathLike):
            path = os.fspath(path)
        if not isinstance(path, str) or not path.startswith(self._below):
            # What is removed in a tree is named relative to an open folder.
            return event in ("os.remove", "os.rmdir") and isinstance(path, str) and not path.startswith("/")
        if event == "open":
            flags = args[2] if len(args) > 2 and isinstance(args[2], int) else 0
            return bool(flags & (os.O_WRONLY | os.O_RDWR))
        return event in _STEPS


def kill_at_statement(statement: int, work: Callable[[Callable[[str], None]], object]) -> bool:
    """Run ``work`` in a child; it hands what it is given to the trace callback of its connection, which kills it when
    its ``statement``-th statement is about to run. Return whether it ended first.
    """
    left = [statement]

    def on_statement(_: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        status = 1
        try:
            work(on_statement)
            status = 0
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    if os.WIFSIGNALED(ended):
        assert os.WTERMSIG(ended) == signal.SIGKILL
        return False
    assert os.waitstatus_to_exitcode(ended) == 0, "it failed by itself"
    return True
