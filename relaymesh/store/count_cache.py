"""Counts of a root with very much that is open or did not succeed, kept so that nobody has to wait for them.

Such rows are counted one by one, some 10 µs each: nothing for thousands, many seconds for millions. So where there are
more than ``COUNTED_ANEW_MAX``, a node counts them in the background and writes down what it found, and every process
answers from the file. What was counted is fresh for fifty times as long as it took (10 s to 10 min): that a node spends
2 % of a processor on it is the most.

    run/counts.json     written by rename, read by anybody; one that is damaged, of another database, or from the future
                        of a clock that was set back, is none
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Final

import msgspec

from relaymesh.settings.aside import replace_file
from relaymesh.store.schema import RARE

__all__ = ["COUNTED_ANEW_MAX", "Counts", "age_ms_max", "is_large", "keep_counts", "kept_counts"]

COUNTED_ANEW_MAX: Final = 5_000
"""Tasks that are open, and tasks that did not succeed: up to so many of each are counted at every call."""
_AGE_MS_MIN: Final = 10_000
_AGE_MS_MAX: Final = 600_000
_TIMES: Final = 50
_BYTES_MAX: Final = 65_536
_FILE: Final = Path("run", "counts.json")

_OPEN = "SELECT count(*) FROM (SELECT 1 FROM tasks INDEXED BY tasks_open WHERE finished_at_ms IS NULL LIMIT ?)"
_RARE = f"SELECT count(*) FROM (SELECT 1 FROM tasks INDEXED BY tasks_rare WHERE {RARE} LIMIT ?)"


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted. at_ms: wall time of the moment that it is true for; took_ms: how long it took.

    at_least: not everything was counted; such counts are not kept.
    """

    tasks: dict[str, int]
    steps: dict[str, int]
    messages: dict[str, int]
    lanes: dict[str, int]
    at_ms: int
    took_ms: int
    at_least: bool = False
    database: int = 0


_DECODER = msgspec.json.Decoder(Counts)


def is_large(conn: sqlite3.Connection) -> bool:
    """Return whether there is more to count than is counted at every call; looks at so many rows at most."""
    limit = COUNTED_ANEW_MAX + 1
    return any(conn.execute(query, (limit,)).fetchone()[0] == limit for query in (_OPEN, _RARE))


def age_ms_max(took_ms: int) -> int:
    """Return for how long a count is fresh that took so long."""
    return min(max(_TIMES * took_ms, _AGE_MS_MIN), _AGE_MS_MAX)


def kept_counts(database: Path, now_ms: int) -> Counts | None:
    """Return what was last counted of a root, however long ago. database: its file."""
    try:
        with open(database.parent / _FILE, "rb") as file:
            counts = _DECODER.decode(file.read(_BYTES_MAX))
        return counts if counts.at_ms <= now_ms and counts.database == _identity(database) else None
    except (OSError, ValueError):
        return None


def keep_counts(database: Path, counts: Counts) -> None:
    """Write down what was counted. A disk that does not take it makes the next call count anew, no more."""
    with contextlib.suppress(OSError):
        data = msgspec.json.encode(msgspec.structs.replace(counts, database=_identity(database)))
        replace_file(database.parent / _FILE, data, private=False)


def _identity(database: Path) -> int:
    """Return what tells a database from one that an import put in its place."""
    return os.stat(database).st_ino
