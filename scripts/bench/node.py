"""Nodes to measure: one inside this process, or one in a process of its own, as ``relaymesh up`` runs it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import psutil

from actors.system import Node, build
from bench.place import environment, python
from relaymesh.node import NodeOptions

__all__ = ["BenchError", "NodeProcess", "node_inside", "node_outside"]

READY_S = 30.0
STOP_S = 20.0


class BenchError(Exception):
    """A measurement could not be taken; the sentence says why."""


@contextlib.contextmanager
def node_inside(root: Path, agents: Sequence[Path] = (), concurrency: int | None = None) -> Iterator[Node]:
    """Run a node in this process."""
    node = build(NodeOptions(root, agents=tuple(str(path) for path in agents), concurrency=concurrency))
    try:
        yield node
    finally:
        node.drain(0)
        if node.wait(STOP_S) is None:
            node.kill()


class NodeProcess:
    """A node in a process of its own. ``command`` says how it was started, without paths."""

    def __init__(self, process: subprocess.Popen[str], command: str) -> None:
        self._process = process
        self.pid = process.pid
        self.command = command

    def tree(self) -> list[psutil.Process]:
        """Return the node's process, then its worker processes."""
        node = psutil.Process(self.pid)
        return [node, *node.children(recursive=True)]

    def stop(self) -> None:
        """End it in order; what does not end in time is killed, with all that it started."""
        if self._process.poll() is None:
            below = self.tree()[1:]
            if sys.platform == "win32":
                os.kill(self.pid, signal.CTRL_BREAK_EVENT)
            else:
                self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            for process in below:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


@contextlib.contextmanager
def node_outside(root: Path, agents: Sequence[Path] = (), concurrency: int | None = None) -> Iterator[NodeProcess]:
    """Run ``relaymesh up``, or where the package is not installed the same by hand; wait until it is up.

    Raises:
        BenchError: it did not come up.
    """
    options = [argument for path in agents for argument in ("--agents", str(path))]
    options += ["--concurrency", str(concurrency)] if concurrency else []
    if _installed():
        command, arguments = "relaymesh up", ["-m", "relaymesh", "--root", str(root), "up", *options]
    else:
        command, arguments = "bench.up (not installed)", ["-m", "bench.up", str(root), *options]
    process = subprocess.Popen(
        python(*arguments),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=root,
        creationflags=_creation_flags(),
    )
    node = NodeProcess(process, command)
    try:
        assert process.stderr is not None
        _wait_for_line(process.stderr, "is up on", command)
        yield node
    finally:
        node.stop()


def _creation_flags() -> int:
    """On Windows a process can be asked to end only when it has a group of its own."""
    if sys.platform == "win32":
        return subprocess.CREATE_NEW_PROCESS_GROUP
    return 0


def _installed() -> bool:
    """Whether ``relaymesh up`` finds what a node is made of: it is registered, or this checkout was installed."""
    from importlib.metadata import entry_points

    return any(entry.name == "default" for entry in entry_points(group="relaymesh.node"))


def _wait_for_line(stream: IO[str], text: str, command: str) -> None:
    """Wait for the line; go on reading in a thread, so that the process is never stopped by a full pipe."""
    found = threading.Event()
    lines: list[str] = []

    def read() -> None:
        for line in stream:
            if text in line:
                found.set()
            elif not found.is_set() and len(lines) < 100:
                lines.append(line)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    deadline = time.monotonic() + READY_S
    while not found.wait(0.05):
        if not reader.is_alive() and not found.is_set():
            raise BenchError(f"{command} ended before it was up: {''.join(lines)[-2000:].strip()}")
        if time.monotonic() > deadline:
            raise BenchError(f"{command} did not come up within {READY_S:g} s: {''.join(lines)[-2000:].strip()}")
