"""The admission gate as files of the inbox meet it: while it is shut they wait where they are, and nothing is refused.

    the disk is short of room (minFreeDiskBytes) ──▶ disk_pressure
    a bound that somebody set lets no step in ─────▶ the code of that bound
    else ──▶ so many steps may come in

As for programs, only bounds that somebody set hold (docs/decisions/admission-gate.md). They are looked at before each
batch, so the last workflow of a batch, and one batch of each other node, may go beyond the depth.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from relaymesh.admission import bounds_of, error_of
from relaymesh.core.admission import Bounds, room
from relaymesh.core.disk import short_of_disk
from relaymesh.core.inbox import LANES
from relaymesh.errors import RelayMeshError
from relaymesh.settings.file import Loaded, load
from relaymesh.store.admission import Refusal, give_back, load_of, reserve
from relaymesh.store.disk import free_disk_bytes
from relaymesh.store.inbox_files import InboxFiles

if TYPE_CHECKING:
    from relaymesh.store.store import Store
    from relaymesh.view import Explanation

__all__ = ["DISK_PRESSURE", "GATE_CODES", "InboxGate", "Shut", "explain_file", "files_waiting", "why_shut"]

DISK_PRESSURE: Final = "disk_pressure"
GATE_CODES: Final = (DISK_PRESSURE, "queue_depth_limit", "running_step_limit", "submit_rate_limit")
_LOOK_AGAIN_NS: Final = 1_000_000_000
"""How long settings and the free room of the disk are believed."""


@dataclass(frozen=True, slots=True)
class Shut:
    """Why files wait: a code that never changes, and a sentence that says what would let them in."""

    code: str
    sentence: str


class InboxGate:
    """The gate of one process that takes in files. Not thread-safe.

    store: a connection of its own; it is written through only where a rate is set.
    """

    def __init__(self, store: Store, now_ms: Callable[[], int], mono_ns: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms
        self._mono_ns = mono_ns
        self._looked_ns: int | None = None
        self._loaded: Loaded | None = None
        self._short = False

    def take(self, most: int, *, on_the_way: int) -> int:
        """Return how many of ``most`` steps may come in now. on_the_way: those that are not committed yet.

        Raises:
            StoreError: the database cannot be asked.
        """
        bounds = self._bounds()
        if self._short:
            return 0
        if bounds.per_minute:
            with self._store.write():
                granted = reserve(self._store.conn, bounds, most, now_ms=self._now_ms()).within(most)
            return granted
        if not bounds:
            return most
        with self._store.reading():
            found = room(bounds, load_of(self._store.conn, bounds, self._now_ms()))
        return max(0, found.within(most + on_the_way) - on_the_way) if found.steps is not None else most

    def settle(self, granted: int, used: int) -> None:
        """Give back what ``take`` granted and no file used; used may be more, by a workflow.

        Raises:
            StoreError: the database cannot be asked; this minute's count is too high by that much.
        """
        bounds = self._bounds()
        if bounds.per_minute and granted != used:
            with self._store.write():
                give_back(self._store.conn, bounds, granted - used, now_ms=self._now_ms())

    def _bounds(self) -> Bounds:
        now_ns = self._mono_ns()
        if self._looked_ns is None or now_ns - self._looked_ns >= _LOOK_AGAIN_NS:
            self._looked_ns = now_ns
            with contextlib.suppress(RelayMeshError):  # a bad file keeps what held
                self._loaded = load(self._store.root)
            self._short = self._loaded is not None and _is_short(self._store.root, self._loaded)
        return bounds_of(self._loaded, "set") if self._loaded is not None else Bounds()


def why_shut(conn: sqlite3.Connection, root: Path, *, now_ms: int) -> Shut | None:
    """Return why files wait in the inbox of a root at this moment, or None when they are taken in."""
    try:
        loaded = load(root)
    except RelayMeshError:
        return None  # which is told elsewhere; a node goes on with what it knew
    if _is_short(root, loaded):
        return Shut(DISK_PRESSURE, "the disk has less free than minFreeDiskBytes asks for: make room")
    bounds = bounds_of(loaded, "set")
    if not bounds:
        return None
    found = load_of(conn, bounds, now_ms)
    code = room(bounds, found).code
    if code is None:
        return None
    cause, _, rest = str(error_of(Refusal(code, found, 0), bounds)).partition(":")
    setting = rest.rpartition("raise ")[2].partition(" ")[0].strip(" ,;.")
    return Shut(str(code), f"{cause}: wait, or raise {setting}")


def files_waiting(root: Path) -> dict[str, int]:
    """Return how many files lie in each lane, counted no further than one listing goes."""
    files = InboxFiles(root, "nobody")
    return {lane: files.waiting(lane) for lane in LANES}


def explain_file(conn: sqlite3.Connection, root: Path, name: str, *, now_ms: int, nodes: int) -> Explanation | None:
    """Return why a file of the inbox waits, or None when there is none of this name. nodes: that are alive."""
    from relaymesh.view import Explanation

    if not name or Path(name).name != name:
        return None
    for lane in LANES:
        path = root / "inbox" / lane / name
        try:
            since_ms = int(path.lstat().st_mtime * 1000)
        except (OSError, ValueError):
            continue
        shut = why_shut(conn, root, now_ms=now_ms)
        if shut is not None:
            reason, detail, command = shut.code, f"it waits in the inbox, {shut.sentence}", None
        elif not nodes:
            reason, detail, command = "no_node", "no node is running", "relaymesh up"
        else:
            reason, detail, command = "ready", "it is taken in within a moment", None
        return Explanation(
            step_id=f"inbox/{lane}/{name}", reason=reason, since_ms=since_ms, detail=detail, command=command
        )
    return None


def _is_short(root: Path, loaded: Loaded) -> bool:
    wanted = loaded.settings.min_free_disk_bytes
    return wanted > 0 and short_of_disk(free_disk_bytes(root), wanted)
