"""Process trees where there is no adoption of orphans (macOS, Windows): psutil to look and to kill.

This module was run on Linux, in tests; on macOS and Windows it could only be read.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterator

import psutil

from relaymesh.agents.process_ref import KILL_WITHIN_S, MARK_VARIABLE, Killed, Process

__all__ = [
    "adopt_orphans",
    "adopting_for_a_moment",
    "descendants",
    "has_children",
    "kill_descendants",
    "kill_root",
    "marked",
    "reap",
    "reap_adopted",
    "stop_root",
    "wake_when_parent_dies",
]


def kill_descendants(root: int, *, spare: Collection[Process] = (), unreaped: Collection[int] = ()) -> Killed:
    until = time.monotonic() + KILL_WITHIN_S
    gone: dict[int, None] = {}
    while True:
        alive = _alive_below(root, spare)
        if not alive:
            return Killed(tuple(gone), ())
        if time.monotonic() > until:
            left = tuple(child.pid for child in alive)
            return Killed(tuple(pid for pid in gone if pid not in left), left)
        for child in alive:
            with contextlib.suppress(psutil.Error):
                child.kill()  # psutil checks that the pid is still the same process
                gone[child.pid] = None
        time.sleep(0.01)


def stop_root(pid: int) -> None:
    with contextlib.suppress(psutil.Error):
        psutil.Process(pid).suspend()


def kill_root(pid: int) -> None:
    with contextlib.suppress(psutil.Error):
        psutil.Process(pid).kill()


def descendants(root: int) -> list[Process]:
    try:
        found = psutil.Process(root).children(recursive=True)
    except psutil.Error:
        return []
    return [Process(child.pid, created) for child in found if (created := _created(child)) is not None]


def has_children() -> bool:
    return bool(descendants(os.getpid()))


def reap_adopted(unreaped: Collection[int]) -> None:
    """Nothing is adopted here."""


def reap(pids: Collection[int]) -> None:
    """Nothing is adopted here."""


def adopt_orphans() -> bool:
    return False


def wake_when_parent_dies() -> None:
    """Do nothing: only Linux can be asked to. On Windows the job object ends with the node."""


@contextlib.contextmanager
def adopting_for_a_moment() -> Iterator[list[int]]:
    yield []


def marked(mark: str) -> list[Process]:
    found = []
    for candidate in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if candidate.environ().get(MARK_VARIABLE) == mark and candidate.pid != os.getpid():
                found.append(Process(candidate.pid, candidate.create_time()))
    return found


def _alive_below(root: int, spare: Collection[Process]) -> list[psutil.Process]:
    try:
        found = psutil.Process(root).children(recursive=True)  # parents come before their children
    except psutil.Error:
        return []
    spared: set[int] = set()
    alive = []
    for child in found:
        with contextlib.suppress(psutil.Error):
            if child.ppid() in spared or any(it.pid == child.pid and it.started == child.create_time() for it in spare):
                spared.add(child.pid)
            elif child.status() != psutil.STATUS_ZOMBIE:
                alive.append(child)
    return alive


def _created(process: psutil.Process) -> float | None:
    try:
        return process.create_time()
    except psutil.Error:
        return None
