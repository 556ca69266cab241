"""After an attempt: what it started and left behind is ended, and its log says so."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection
from typing import Any

from relaymesh.agents.context import Attempt
from relaymesh.agents.process_ref import Process
from relaymesh.agents.process_tree import has_children, kill_descendants
from relaymesh.core.plural import counted

__all__ = ["end_leftovers", "watch_for_children"]

_started_something = sys.platform == "linux"


def watch_for_children() -> None:
    """Note from now on whether this process starts others, where looking for them is too dear to do after each step."""
    if sys.platform != "linux":
        sys.addaudithook(_on_audit)


def end_leftovers(attempt: Attempt, spare: Collection[Process]) -> None:
    """Kill what is below this process and not spared; costs a microsecond when nothing is."""
    global _started_something
    if not _started_something or not has_children():
        return
    killed = kill_descendants(os.getpid(), spare=spare)
    _started_something = sys.platform == "linux"
    _forget_fork_server(killed.gone)
    if killed.gone:
        count = len(killed.gone)
        attempt.log.add_ours("WARNING", f"ended {counted(count, 'process', 'processes')} that the attempt left behind")
    if killed.left:
        attempt.log.add_ours("ERROR", f"could not end these processes: {', '.join(map(str, killed.left))}")


def _forget_fork_server(gone: Collection[int]) -> None:
    """Let ``multiprocessing`` start its fork server anew if it was among these.

    It relies on being the only one that collects it, and would fail for every later step of this process.
    """
    server: Any = getattr(sys.modules.get("multiprocessing.forkserver"), "_forkserver", None)
    if getattr(server, "_forkserver_pid", None) in gone:
        with contextlib.suppress(OSError, TypeError):
            os.close(server._forkserver_alive_fd)
        server._forkserver_address = server._forkserver_alive_fd = server._forkserver_pid = None


def _on_audit(event: str, _: object) -> None:
    global _started_something
    if event in _STARTS:
        _started_something = True


_STARTS = frozenset(
    ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "_winapi.CreateProcess")
)
