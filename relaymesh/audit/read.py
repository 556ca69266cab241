"""Reading the audit log: its end, or the rows that match, newest first, without reading the rest.

A reader takes no lock. It sees whole lines only; a line that is being written has no end yet. When the log is rotated
under it, a row may be told of twice or not at all in that instant, so it looks again.
"""

from __future__ import annotations

import errno
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from relaymesh.audit.place import Place
from relaymesh.audit.segment import (
    Index,
    action_of,
    blocks_with_task,
    instant_of,
    numbers,
    read_block,
    read_index,
    read_lines,
    task_of,
)
from relaymesh.wire.audit import instant, quoted

__all__ = ["Filter", "count_rows", "newest", "tail"]

_CHUNK_BYTES = 1 << 20
_LAST_INSTANT = "9999-12-31T23:59:59.999Z"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows. action: exactly. from_ms, to_ms: instants, inclusive."""

    task_id: str | None = None
    action: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None

    @property
    def first(self) -> str:
        """The smallest instant, as it is written."""
        return "" if self.from_ms is None else instant(self.from_ms)

    @property
    def last(self) -> str:
        """The largest instant, as it is written."""
        return _LAST_INSTANT if self.to_ms is None else instant(self.to_ms)


def tail(place: Place, lines: int) -> list[str]:
    """Return the last rows, oldest first."""
    return newest(place, Filter(), lines)[::-1]


def newest(place: Place, wanted: Filter, limit: int) -> list[str]:
    """Return rows that match, newest first, without line ends; at most ``limit``.

    Raises:
        OSError: the log cannot be read; its file name says which part.
    """
    for _ in range(3):
        before = _current(place)
        found: list[str] = []
        for line in _newest_lines(place, wanted):
            found.append(line.decode("utf-8", "replace"))
            if len(found) >= limit:
                break
        if _current(place) == before:
            break
    return found


def count_rows(place: Place) -> int:
    """Return how many rows are kept, from the indexes and by counting line ends."""
    total = 0
    for number in numbers(place):
        indexed = None if place.plain(number).exists() else read_index(place, number)
        total += indexed.rows if indexed else sum(chunk.count(b"\n") for chunk in _chunks(place, number))
    try:
        with open(place.log, "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                total += chunk.count(b"\n")
    except FileNotFoundError:
        pass
    return total


def _current(place: Place) -> int:
    """What names the present file of the log: another one means that it was rotated."""
    try:
        return place.log.stat().st_ino
    except FileNotFoundError:
        return 0


def _newest_lines(place: Place, wanted: Filter) -> Iterator[bytes]:
    first, last = wanted.first.encode(), wanted.last.encode()
    action = None if wanted.action is None else quoted(wanted.action)[1:-1].encode()
    task_id = None if wanted.task_id is None else quoted(wanted.task_id)[1:-1].encode()
    hint = _hint(action, task_id)
    listed = numbers(place)  # before the log: a segment that is made meanwhile is met as the log
    for chunk in _log_chunks(place.log):
        yield from _matching(chunk, hint, first, last, action, task_id)
    for number in reversed(listed):
        for chunk in _candidates(place, number, wanted):
            yield from _matching(chunk, hint, first, last, action, task_id)


def _hint(action: bytes | None, task_id: bytes | None) -> bytes:
    """A text that every matching row contains: looking for it is cheaper than taking a row apart."""
    if task_id is not None:
        return b',"task_id":"' + task_id + b'"'
    return b'"action":"' + action + b'"' if action is not None else b""


def _matching(
    chunk: bytes, hint: bytes, first: bytes, last: bytes, action: bytes | None, task_id: bytes | None
) -> Iterator[bytes]:
    if hint and hint not in chunk:
        return
    for line in reversed(chunk.splitlines()):
        if hint and hint not in line:
            continue
        at = instant_of(line)
        if at is None:
            if not hint and not first:
                yield line  # no row of ours; only who asks for everything sees it
        elif (
            first <= at <= last
            and (action is None or action_of(line) == action)
            and (task_id is None or task_of(line) == task_id)
        ):
            yield line


def _log_chunks(log: Path) -> Iterator[bytes]:
    """Yield whole lines of a plain file, the last ones first, some ``_CHUNK_BYTES`` at a time."""
    try:
        file = open(log, "rb")  # noqa: SIM115
    except FileNotFoundError:
        return
    with file:
        at = file.seek(0, 2)
        rest: list[bytes] = []  # the end of a line whose beginning is in the chunk before, the last part first
        whole = False  # what stands behind the last line end is half a line
        while at > 0:
            size = min(_CHUNK_BYTES, at)
            at -= size
            file.seek(at)
            data = file.read(size)
            end = data.find(b"\n") + 1 if at else 0
            if at and not end:
                rest.append(data)
                continue
            joined = data[end:] + b"".join(reversed(rest))
            rest = [data[:end]]
            if not whole:
                joined = joined[: joined.rfind(b"\n") + 1]
                whole = bool(joined)
            yield joined


def _candidates(place: Place, number: int, wanted: Filter) -> Iterator[bytes]:
    """Yield the parts of a segment in which rows that match may be, the last ones first."""
    plain = place.plain(number)
    if plain.exists():
        yield from _log_chunks(plain)
        return
    found = read_index(place, number)
    if found is None:
        yield from reversed(list(_chunks(place, number)))
        return
    with _naming(place.packed(number)):
        for position in _positions(place, number, found, wanted):
            yield read_block(place.packed(number), found.blocks[position])


def _positions(place: Place, number: int, index: Index, wanted: Filter) -> list[int]:
    first, last = wanted.first, wanted.last
    if index.last < first or index.first > last:
        return []
    positions = list(range(len(index.blocks)))
    if wanted.task_id is not None:
        positions = blocks_with_task(place, number, quoted(wanted.task_id)[1:-1])
    action = None if wanted.action is None else quoted(wanted.action)[1:-1]
    return [
        position
        for position in reversed(positions)
        if position < len(index.blocks)
        and (action is None or action in index.blocks[position].actions)
        and index.blocks[position].last >= first
        and index.blocks[position].first <= last
    ]


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say which segment is damaged, instead of what the decompressor says about it."""
    try:
        yield
    except (EOFError, zlib.error) as error:
        raise OSError(errno.EIO, f"it is damaged, {error}", str(path)) from error


def _chunks(place: Place, number: int) -> Iterator[bytes]:
    """Yield a whole segment, oldest rows first, a block's worth at a time."""
    with _naming(place.packed(number)):
        for lines in read_lines(place, number):
            yield b"".join(lines)
