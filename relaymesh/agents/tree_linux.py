"""Process trees on Linux: /proc to look, pidfd to signal, adoption of orphans, reaping.

look ──▶ somebody new? ──yes──▶ SIGSTOP the new ones, look again
              │ no (nobody is left who could fork)
              ▼
         SIGKILL all ──▶ reap those that became ours ──▶ look ──▶ nobody left: done
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterator
from typing import Final

from relaymesh.agents.process_ref import KILL_WITHIN_S, MARK_VARIABLE, Killed, Process

assert sys.platform == "linux"

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

_FREEZE_ROUNDS_MAX: Final = 50
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_GET_CHILD_SUBREAPER: Final = 37


def kill_descendants(root: int, *, spare: Collection[Process] = (), unreaped: Collection[int] = ()) -> Killed:
    until = time.monotonic() + KILL_WITHIN_S
    frozen: set[tuple[int, float]] = set()
    killed: dict[int, None] = {}
    rounds = 0
    while True:
        below = _below(root, _table(), spare)
        alive = [process for process in below if not process.is_zombie]
        ours = [p.pid for p in below if p.is_zombie and p.parent == os.getpid() and p.pid not in unreaped]
        for pid in ours:
            _reap(pid)
        if not alive and (not ours or time.monotonic() > until):
            return Killed(tuple(killed), ())
        if time.monotonic() > until:
            left = tuple(process.pid for process in alive)
            return Killed(tuple(pid for pid in killed if pid not in left), left)
        fresh = [process for process in alive if (process.pid, process.started) not in frozen]
        rounds += 1
        if fresh and rounds <= _FREEZE_ROUNDS_MAX:
            for process in fresh:
                _signal(process, signal.SIGSTOP)
                frozen.add((process.pid, process.started))
            continue
        for process in alive:
            _signal(process, signal.SIGKILL)
            killed[process.pid] = None
        if alive:
            time.sleep(0.002 if rounds < 10 else 0.02)


def stop_root(pid: int) -> None:
    """Freeze it: it starts nothing more, and it still adopts what is orphaned below it."""
    _signal_pid(pid, signal.SIGSTOP)


def kill_root(pid: int) -> None:
    _signal_pid(pid, signal.SIGKILL)


def descendants(root: int) -> list[Process]:
    return _below(root, _table(), ())


def has_children() -> bool:
    """About a microsecond, so fit for every step."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def reap_adopted(unreaped: Collection[int]) -> None:
    if has_children():
        for process in _below(os.getpid(), _table(), ()):
            if process.is_zombie and process.parent == os.getpid() and process.pid not in unreaped:
                _reap(process.pid)


def reap(pids: Collection[int]) -> None:
    """Collect those that are our children, as they are in a container whose first process we are."""
    left = [pid for pid in pids if not _reap(pid)]
    until = time.monotonic() + 0.5
    while left and time.monotonic() < until:
        time.sleep(0.005)
        left = [pid for pid in left if not _reap(pid)]


def adopt_orphans() -> bool:
    return _set_adopting(1)


_adopting_lock = threading.Lock()


@contextlib.contextmanager
def adopting_for_a_moment() -> Iterator[list[int]]:
    pids: list[int] = []
    with _adopting_lock:
        was_adopting = _is_adopting()
        _set_adopting(1)
        try:
            yield pids
            reap(pids)
        finally:
            if not was_adopting:
                _set_adopting(0)


def marked(mark: str) -> list[Process]:
    wanted = f"{MARK_VARIABLE}={mark}".encode()
    found = []
    for process in _table().values():
        try:
            with open(f"/proc/{process.pid}/environ", "rb") as file:
                environment = file.read().split(b"\0")
        except OSError:
            continue  # gone, or not ours
        if wanted in environment and process.pid != os.getpid() and not process.is_zombie:
            found.append(process)
    return found


def _reap(pid: int) -> bool:
    """Collect this child if it has ended; return whether nothing is left to collect."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _table() -> dict[int, Process]:
    table = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            process = _read_stat(int(name))
            if process is not None:
                table[process.pid] = process
    return table


def _read_stat(pid: int) -> Process | None:
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = os.read(fd, 4096)
    except OSError:
        return None
    finally:
        os.close(fd)
    # The name in parentheses may hold anything, even ")": fields are counted from the last one.
    fields = data[data.rfind(b")") + 2 :].split()
    if len(fields) < 20:
        return None
    return Process(pid, int(fields[19]), parent=int(fields[1]), state=fields[0].decode())


def _below(root: int, table: dict[int, Process], spare: Collection[Process]) -> list[Process]:
    children: dict[int, list[Process]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    todo = [root]
    while todo:
        for process in children.get(todo.pop(), ()):
            if not any(process.is_same(spared) for spared in spare):
                found.append(process)
                todo.append(process.pid)
    return found


def _signal(process: Process, number: int) -> None:
    """Send a signal to this very process, never to a later one with its pid."""
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:
        now = _read_stat(process.pid)  # gone, or a kernel without pidfd
        if now is not None and now.is_same(process):
            _signal_pid(process.pid, number)
        return
    try:
        now = _read_stat(process.pid)
        if now is not None and now.is_same(process):
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(fd, number)
    finally:
        os.close(fd)


def _signal_pid(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def wake_when_parent_dies() -> None:
    """Have the kernel continue this process when its parent dies.

    A node freezes a worker before it kills it. Were the node killed in between, the worker would stay frozen for ever;
    woken, it finds its pipe closed, ends what it started, and exits. SIGKILL would leave what it started behind.
    """
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGCONT), 0, 0, 0)


def _set_adopting(value: int) -> bool:
    import ctypes

    return bool(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, value, 0, 0, 0) == 0)


def _is_adopting() -> bool:
    import ctypes

    answer = ctypes.c_int(0)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0)
    return answer.value == 1
