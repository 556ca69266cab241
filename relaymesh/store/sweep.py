"""Remove payload files that no row names, while others store and read.

    mark    the names in all rows, read in pieces without holding anything
    sweep   a file that is not marked and not young ──▶ moved aside ──▶ still not young? removed : brought back

A file is on disk before the row that names it is committed, and a text that is there already is not written again but
touched (relaymesh.store.payload). So what a row may be about to name is young, and a touch that comes between our look
and the removal is seen after the move, or finds no file and writes it anew.

While somebody copies the root (relaymesh.store.snapshot), nothing is removed: rows of his image may name it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from relaymesh.file_lock import Hold, holding
from relaymesh.store.database import Database
from relaymesh.store.payload import payload_name
from relaymesh.store.snapshot import PAYLOAD_GUARD

__all__ = ["YOUNG_MS", "Swept", "sweep"]

YOUNG_MS: Final = 600_000
"""A file that was written or touched within 10 minutes is spared: a commit waits for its turn for a minute at most."""
_PIECE = 2_000
_ASIDE = ".sweep"


class Swept(NamedTuple):
    """What was removed. held_off: a copy of the root was being made, and nothing was."""

    files: int
    bytes: int
    held_off: bool = False


def sweep(database: Database, *, now_ms: int, pause: Callable[[], None] = lambda: None) -> Swept:
    """Remove all unused payload files; one bad file does not keep the others from going.

    pause: called between two pieces of reading. Needs 100 bytes of memory for each file that is in use.

    Raises:
        StoreError: the rows could not be read; nothing was removed.
    """
    root = database.root
    with holding(root / "run" / PAYLOAD_GUARD, Hold.EXCLUSIVE) as ours:
        if not ours:
            return Swept(0, 0, held_off=True)
        _bring_back(root)
        # Before the marks: what is stored from now on is young, whether its row is seen or not.
        young_from_s = (now_ms - YOUNG_MS) / 1000
        if not any(_candidates(root, young_from_s)):
            return Swept(0, 0)
        named = _named(database, pause)
        files = size = 0
        for path in _candidates(root, young_from_s):
            if path.relative_to(root).as_posix() in named:
                continue
            removed = _remove(path, young_from_s)
            files += removed is not None
            size += removed or 0
        return Swept(files, size)


def _named(database: Database, pause: Callable[[], None]) -> set[str]:
    named: set[str] = set()
    after = 0
    while True:
        with database.reading():
            rows = database.conn.execute(
                "SELECT id, payload_path, result_path FROM steps WHERE id>? ORDER BY id LIMIT ?", (after, _PIECE)
            ).fetchall()
        if not rows:
            return named
        after = rows[-1][0]
        for _, payload, result in rows:
            if payload or result:
                named.update(name for name in (payload_name(payload), payload_name(result)) if name)
        pause()


def _candidates(root: Path, young_from_s: float) -> Iterator[Path]:
    """Yield the payload files that are not young, and what crashed writers left aside."""
    for folder in sorted((root / "payload").glob("[0-9a-f][0-9a-f]")):
        if folder.is_symlink():
            continue
        try:
            entries = list(os.scandir(folder))
        except OSError:
            continue
        for entry in entries:
            if not entry.is_file(follow_symlinks=False) or entry.name.endswith(_ASIDE):
                continue
            ours = payload_name(entry.name) is not None or (entry.name.startswith(".") and entry.name.endswith(".tmp"))
            if ours and entry.stat(follow_symlinks=False).st_mtime < young_from_s:
                yield Path(entry.path)


def _remove(path: Path, young_from_s: float) -> int | None:
    """Remove one file unless it was touched meanwhile; return its size, or None."""
    aside = path.with_name(f"{path.name}{_ASIDE}")
    try:
        os.replace(path, aside)
        facts = aside.stat()
        if facts.st_mtime >= young_from_s:
            os.replace(aside, path)
            return None
        aside.unlink()
    except OSError:
        return None
    return facts.st_size


def _bring_back(root: Path) -> None:
    """Undo the move of a sweep that was killed in the middle of one."""
    for aside in (root / "payload").glob(f"*/*{_ASIDE}"):
        os.replace(aside, aside.with_name(aside.name.removesuffix(_ASIDE)))
