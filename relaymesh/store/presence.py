"""Whether a node of this machine is alive: it holds a file lock for as long as it lives.

The operating system drops the lock when the process ends, however it ends, so a peer on the same machine knows of a
death at once instead of after a lease. A stopped process still holds its lock: then the lease decides.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from pathlib import Path

from relaymesh.errors import InputError, UsageError
from relaymesh.file_lock import lock, unlock
from relaymesh.store.error import RootReadOnlyError

__all__ = [
    "BadNodeIdError",
    "NodeIdTakenError",
    "Presence",
    "check_node_id",
    "host_name",
    "is_alive",
    "living_nodes",
    "take_presence",
]

_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class BadNodeIdError(UsageError):
    """A node id that cannot be a file name."""

    code = "bad_node_id"

    def __init__(self, node_id: str) -> None:
        super().__init__(node_id)
        self.node_id = node_id

    def __str__(self) -> str:
        return f"{self.node_id!r} is no node id: use 1 to 64 letters, digits, dots, dashes and underscores"


class NodeIdTakenError(InputError):
    """Another live process runs under the id."""

    code = "node_id_taken"

    def __init__(self, node_id: str, pid: int | None) -> None:
        super().__init__(node_id, pid)
        self.node_id, self.pid = node_id, pid

    def __str__(self) -> str:
        by = f"by process {self.pid} " if self.pid else ""
        return f"the node id {self.node_id} is in use {by}on this machine: choose another with --node-id"


def host_name() -> str:
    """Return the name of this machine."""
    return socket.gethostname()


class Presence:
    """The lock of one live node. Keep it as long as the process works under the id."""

    def __init__(self, path: Path, descriptor: int, node_id: str) -> None:
        self._path = path
        self._descriptor = descriptor
        self.node_id = node_id

    def release(self) -> None:
        """Let go of the id; an orderly end."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                unlock(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


def take_presence(run: Path, node_id: str | None, *, default: str = "node-local", tries_ms: int = 300) -> Presence:
    """Take a node id on this machine: the one asked for, or the first free of ``default``, ``default-2``, ...

    Raises:
        BadNodeIdError: the id cannot be used.
        NodeIdTakenError: a live process has the id that was asked for.
        RootReadOnlyError: its lock cannot be written.
    """
    if node_id is not None:
        deadline = time.monotonic() + tries_ms / 1000
        while True:
            presence = _try_take(run, node_id)
            if presence is not None:
                return presence
            if time.monotonic() >= deadline:
                raise NodeIdTakenError(node_id, _holder(run / f"{node_id}.lock")[0])
            time.sleep(0.02)  # a peer that only looks holds the lock for an instant
    for number in range(1, 1000):
        presence = _try_take(run, default if number == 1 else f"{default}-{number}")
        if presence is not None:
            return presence
    raise NodeIdTakenError(default, None)


def is_alive(run: Path, node_id: str, host: str) -> bool | None:
    """Return whether the process of a node lives; None when it cannot be told from this machine."""
    path = run / f"{node_id}.lock"
    if not _ID.fullmatch(node_id):
        return None
    if _holder(path)[1] != host:
        return None
    return _is_held(path)


def living_nodes(run: Path) -> list[str]:
    """Return the ids of the nodes of this machine that live on a root, in order."""
    return [path.stem for path in sorted(run.glob("*.lock")) if _is_held(path)]


def _is_held(path: Path) -> bool | None:
    """Return whether a process holds the lock; None when that cannot be asked."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        if not lock(descriptor, shared=True):
            return True
        unlock(descriptor)
        return False
    finally:
        os.close(descriptor)


def check_node_id(node_id: str) -> None:
    """Refuse an id that cannot be the name of a file.

    Raises:
        BadNodeIdError
    """
    if not _ID.fullmatch(node_id):
        raise BadNodeIdError(node_id)


def _try_take(run: Path, node_id: str) -> Presence | None:
    check_node_id(node_id)
    path = run / f"{node_id}.lock"
    try:
        run.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if lock(descriptor, shared=False):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, json.dumps({"pid": os.getpid(), "host": host_name()}).encode())
                return Presence(path, descriptor, node_id)
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as error:
        raise RootReadOnlyError(str(run), error.strerror or type(error).__name__) from error
    os.close(descriptor)
    return None


def _holder(path: Path) -> tuple[int | None, str | None]:
    """Return pid and host as the holder of a lock wrote them."""
    try:
        match json.loads(path.read_bytes()[:4096] or b"{}"):
            case {"pid": int(pid), "host": str(host)}:
                return pid, host
    except (OSError, ValueError):
        pass
    return None, None
