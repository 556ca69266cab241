"""Which events were seen, kept for the next process of the root: ``run/gossip-seen``, as msgpack.

It is no authority: without it an event may be taken once more, which changes nothing that is newer.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgpack

from relaymesh.core.mesh.event import EventId, Seen
from relaymesh.file_lock import Hold, holding

__all__ = ["SEEN_FILE", "keep_seen", "load_seen"]

SEEN_FILE: Final = "run/gossip-seen"
_BYTES_MAX: Final = 4_194_304
_WAIT_S: Final = 1.0


def load_seen(root: Path, seen: Seen, now_ms: int) -> None:
    """Take in what earlier processes have seen."""
    seen.restore(now_ms, _entries(root / SEEN_FILE))


def keep_seen(root: Path, seen: Seen, now_ms: int) -> None:
    """Keep what was seen, beside what others have kept meanwhile."""
    path = root / SEEN_FILE
    with contextlib.suppress(OSError), holding(path.with_suffix(".guard"), Hold.EXCLUSIVE, wait_s=_WAIT_S):
        seen.restore(now_ms, _entries(path))
        seen.trim(now_ms)
        data: bytes = msgpack.packb([[*event_id, until] for event_id, until in seen.entries()])
        aside = path.with_suffix(f".{os.getpid()}.tmp")
        aside.write_bytes(data)
        os.replace(aside, path)


def _entries(path: Path) -> Iterator[tuple[EventId, int]]:
    try:
        with open(path, "rb") as file:
            rows = msgpack.unpackb(file.read(_BYTES_MAX))
        for origin, generation, number, until in rows:
            yield ((int(origin), int(generation), int(number)), int(until))
    except (OSError, ValueError, TypeError, msgpack.UnpackException):
        return
