"""What a writer that was killed left behind, put in order by the next one before it appends.

the head is behind the log          rows of the killed writer that are whole count; half a line is cut off
the log is shorter than the head    somebody cut it: the chain goes on from the head, so that the gap shows
the same, after the power failed    what was not on the disk yet is gone: the chain goes on from what is left, and
                                    a record tells how many rows are missing
    the log is a segment already        it was killed between the two steps of a rotation
    there is no head                    it was removed, or is of another key: the end is read from the log
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from relaymesh.audit.head import Head
from relaymesh.audit.place import Place
from relaymesh.audit.segment import numbers, read_rows

__all__ = ["LINE", "Settled", "rotated", "settle"]

LINE = re.compile(
    rb'(\{"timestamp":"[^"]*",.*,"prev_hash":"([0-9a-f]{64}|)")'
    rb',"hash":"([0-9a-f]{64})","signature":"([0-9a-f]{128}|)"\}\n',
    re.DOTALL,
)
"""A whole line: what was hashed, but for the last brace; the link; the hash; the seal."""
_TAIL_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Settled:
    """The true end. gap: rows that the power failure took. mend: bytes to put before the next row."""

    head: Head
    gap: int = 0
    mend: bytes = b""


def settle(place: Place, head: Head | None, boot: str) -> Settled:
    """Return where the next row goes; cuts half a line that a killed writer left. The caller holds the lock.

    Raises:
        OSError: the log cannot be read or cut.
    """
    log = place.log
    try:
        size = os.stat(log).st_size
    except FileNotFoundError:
        size = 0
    if head is None:
        return Settled(_without_head(place, size))
    if size < head.size and (place.plain(head.segment).exists() or place.packed(head.segment).exists()):
        head = rotated(head, 0)
    if size == head.size and head.boot == boot:
        return Settled(head)
    if head.boot != boot and size >= head.synced_size:
        was = head
        head = msgspec.structs.replace(
            head,
            size=head.synced_size,
            rows=head.synced_rows,
            hash=head.synced_hash,
            unsealed=head.synced_unsealed,
        )
        settled = _read_on(log, head, size)
        return Settled(settled.head, max(0, was.rows - settled.head.rows), settled.mend)
    if size < head.size:
        # Not mended: the next row links to a row that is not there, and whoever verifies is told where.
        return Settled(msgspec.structs.replace(head, size=size), mend=b"" if _ends_whole(log, size) else b"\n")
    return _read_on(log, head, size)


def _read_on(log: Path, head: Head, size: int) -> Settled:
    """Take in the rows behind the head that belong to the chain; cut half a line behind them."""
    if size == head.size:
        return Settled(head)
    with open(log, "r+b") as file:
        file.seek(head.size)
        data = file.read(min(size - head.size, _TAIL_BYTES_MAX))
        at, rows, last, unsealed = 0, head.rows, head.hash, head.unsealed
        while (end := data.find(b"\n", at)) >= 0:
            match = LINE.fullmatch(data, at, end + 1)
            if match is None or match[2].decode() != last:
                break
            if sha256(match[1] + b"}").hexdigest().encode() != match[3]:
                break
            at, rows, last = end + 1, rows + 1, match[3].decode()
            unsealed = 0 if match[4] else unsealed + 1
        rest = data[at:]
        keep = rest.rfind(b"\n") + 1
        if keep == 0:  # nothing, or half a line
            file.truncate(head.size + at)
            return Settled(msgspec.structs.replace(head, size=head.size + at, rows=rows, hash=last, unsealed=unsealed))
    # Whole lines that are no part of the chain: not ours to remove. Whoever verifies is told of the first.
    mend = b"" if rest.endswith(b"\n") else b"\n"
    return Settled(msgspec.structs.replace(head, size=size, rows=rows, hash=last, unsealed=unsealed), mend=mend)


def rotated(head: Head, now_ms: int) -> Head:
    """Return the head once the log is a segment and the next one is empty; since ``now_ms``, 0 is not known yet."""
    return msgspec.structs.replace(
        head,
        segment=head.segment + 1,
        segment_since_ms=now_ms,
        size=0,
        synced_size=0,
        synced_rows=head.rows,
        synced_hash=head.hash,
        synced_unsealed=head.unsealed,
    )


def _without_head(place: Place, size: int) -> Head:
    """Return the end of a log that has no head: of a restored copy, or one whose head was removed."""
    kept = numbers(place)
    rows, last, at, first = 0, "", 0, None
    old = _Old()
    if kept:
        first = next(iter(read_rows(place, kept[0])), b"")
        for line in read_rows(place, kept[0]):
            if not old.take(line):
                break
        for line in read_rows(place, kept[-1]):
            match = LINE.fullmatch(line)
            last = match[3].decode() if match else ""
    if size:
        with open(place.log, "r+b") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    file.truncate(at)
                    break
                first = line if first is None else first
                old.take(line)
                at += len(line)
                rows += 1
                match = LINE.fullmatch(line)
                last = match[3].decode() if match else ""
    linked = LINE.fullmatch(first) if first else None
    return Head(
        segment=kept[-1] + 1 if kept else 1,
        size=at,
        rows=rows,
        hash=last,
        first_segment=kept[0] if kept else 1,
        first_prev=linked[2].decode() if linked else "",
        legacy=old.rows,
    )


@dataclass(slots=True)
class _Old:
    """Counts rows that have no hash as long as none has: those from before there was a chain.

    They lie in one file, for the chain began with the first segment.
    """

    rows: int = 0
    over: bool = False

    def take(self, line: bytes) -> bool:
        self.over = self.over or LINE.fullmatch(line) is not None
        self.rows += not self.over
        return not self.over


def _ends_whole(log: Path, size: int) -> bool:
    if not size:
        return True
    with open(log, "rb") as file:
        file.seek(size - 1)
        return file.read(1) == b"\n"
