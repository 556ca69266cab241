"""Segments: what was rotated out of the log, compressed in blocks, with an index of what is in them.

    audit.log ──rotate──▶ segments/audit-00000007.jsonl ──pack──▶ audit-00000007.jsonl.gz and audit-00000007.idx

A packed segment is a gzip file of many members, one per block of rows, so that any tool reads it and a query need not
unpack more than a block. The index is a line of JSON (time span, actions and place of each block) and a sorted table of
short hashes of task ids, each with its block: a query opens the index, and only the blocks in which something may be.

The chain says nothing about the index; a query trusts it, ``audit-verify`` does not read it.
"""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

import msgspec

from relaymesh.audit.lock import AuditBusyError, locked
from relaymesh.audit.place import Place

__all__ = [
    "BLOCK_ROWS",
    "Block",
    "Index",
    "action_of",
    "blocks_with_task",
    "instant_of",
    "line_blocks",
    "numbers",
    "pack",
    "pack_waiting",
    "read_block",
    "read_index",
    "read_lines",
    "read_rows",
    "task_of",
]

BLOCK_ROWS = 512
"""Rows that are compressed together: some 280 KB, of which a query unpacks what it needs in 2 ms."""
_LEVEL = 1
_TASK_BYTES = 6
_ENTRY_BYTES = _TASK_BYTES + 2
_NAME = re.compile(r"audit-(\d{8,})\.jsonl(\.gz)?")
_BEGINS = b'{"timestamp":"'
_INSTANT_END = len(_BEGINS) + len("2026-01-31T08:00:00.000Z")


class Block(msgspec.Struct, frozen=True, array_like=True):
    """Rows that were compressed together. first, last: the smallest and the largest instant among them."""

    offset: int
    size: int
    rows: int
    first: str
    last: str
    actions: dict[str, int]


class Index(msgspec.Struct, frozen=True):
    """What a packed segment holds. first, last: the smallest and the largest instant."""

    rows: int
    first: str
    last: str
    blocks: tuple[Block, ...]


_DECODER = msgspec.json.Decoder(Index)  # at import: relaymesh.wire.typed says why


def numbers(place: Place) -> list[int]:
    """Return the segments that are there, oldest first."""
    try:
        names = os.listdir(place.segments)
    except FileNotFoundError:
        return []
    return sorted({int(match[1]) for name in names if (match := _NAME.fullmatch(name))})


def pack_waiting(place: Place, at_most: int | None = None) -> int:
    """Compress segments that wait for it, the oldest first; return how many. Somebody else at it means none.

    Raises:
        OSError: one could not be read or written; it stays as it was.
    """
    waiting = [number for number in numbers(place) if place.plain(number).exists()]
    done = 0
    if waiting:
        with contextlib.suppress(AuditBusyError), locked(place.segments / "pack.lock", wait_s=0):
            for number in waiting[:at_most]:
                if place.plain(number).exists():
                    pack(place, number)
                    done += 1
    return done


def pack(place: Place, number: int) -> Index:
    """Compress one segment and write its index; the caller holds the lock of packing.

    A crash in the middle leaves the plain segment, which is packed again.
    """
    data = place.plain(number).read_bytes()
    blocks: list[Block] = []
    tasks: set[bytes] = set()
    aside = place.packed(number).with_suffix(".tmp")
    with open(aside, "wb") as file:
        for rows in line_blocks(data):
            packed = _gzip(b"".join(rows))
            blocks.append(_block(rows, len(blocks), file.tell(), len(packed), tasks))
            file.write(packed)
        file.flush()
        os.fsync(file.fileno())
    times = [block for block in blocks if block.first]
    index = Index(
        rows=sum(block.rows for block in blocks),
        first=min((block.first for block in times), default=""),
        last=max((block.last for block in times), default=""),
        blocks=tuple(blocks),
    )
    beside = place.index(number).with_suffix(".idx.tmp")
    beside.write_bytes(msgspec.json.encode(index) + b"\n" + b"".join(sorted(tasks)))
    os.replace(beside, place.index(number))
    os.replace(aside, place.packed(number))
    place.plain(number).unlink()
    return index


def line_blocks(data: bytes) -> Iterator[list[bytes]]:
    """Yield the lines of a plain segment, ``BLOCK_ROWS`` at a time, each with its line end."""
    lines = data.splitlines(keepends=True)
    for start in range(0, len(lines), BLOCK_ROWS):
        yield lines[start : start + BLOCK_ROWS]


def read_index(place: Place, number: int) -> Index | None:
    """Return the index of a segment without its table of tasks; None when there is none, or none that is whole."""
    try:
        with open(place.index(number), "rb") as file:
            return _DECODER.decode(file.readline())
    except (OSError, msgspec.DecodeError):
        return None


def blocks_with_task(place: Place, number: int, task_id: str) -> list[int]:
    """Return the blocks of a segment that may hold rows of a task, in order; ``task_id`` as it is written.

    Raises:
        OSError: the index cannot be read.
    """
    wanted = _short(task_id.encode())
    with open(place.index(number), "rb") as file:
        file.readline()
        begin = file.tell()
        low, high = 0, (file.seek(0, os.SEEK_END) - begin) // _ENTRY_BYTES

        def entry(at: int) -> bytes:
            file.seek(begin + at * _ENTRY_BYTES)
            return file.read(_ENTRY_BYTES)

        while low < high:
            middle = (low + high) // 2
            if entry(middle)[:_TASK_BYTES] < wanted:
                low = middle + 1
            else:
                high = middle
        found = []
        while (here := entry(low))[:_TASK_BYTES] == wanted:
            found.append(int.from_bytes(here[_TASK_BYTES:], "big"))
            low += 1
    return found


def read_block(file_path: Path, block: Block) -> bytes:
    """Return the rows of one block of a packed segment.

    Raises:
        OSError, EOFError, zlib.error: it cannot be read.
    """
    with open(file_path, "rb") as file:
        file.seek(block.offset)
        return zlib.decompress(file.read(block.size), wbits=31)


def read_rows(place: Place, number: int) -> Iterator[bytes]:
    """Yield the lines of a segment, oldest first, each with its line end. Raises as ``read_lines``."""
    for lines in read_lines(place, number):
        yield from lines


def read_lines(place: Place, number: int) -> Iterator[list[bytes]]:
    """Yield the lines of a segment, oldest first, each with its line end, a block at a time.

    Raises:
        OSError, EOFError, zlib.error: it cannot be read, or is damaged; the blocks before were yielded.
    """
    try:
        data = place.plain(number).read_bytes()
    except FileNotFoundError:
        data = place.packed(number).read_bytes()
        while data:
            member = zlib.decompressobj(wbits=31)
            lines = member.decompress(data).splitlines(keepends=True)
            if not member.eof:
                raise EOFError("it is cut off") from None
            yield lines
            data = member.unused_data
    else:
        yield from line_blocks(data)


# Members are found by their names: a quote within a text is escaped, so the names cannot stand in one.


def instant_of(row: bytes) -> bytes | None:
    """Return the instant of a row as it is written; None for a line that is no row of ours."""
    return row[len(_BEGINS) : _INSTANT_END] if row.startswith(_BEGINS) else None


def action_of(row: bytes) -> bytes:
    """Return the action of a row as it is written, without quotes."""
    at = row.find(b'","action":"', _INSTANT_END) + 12
    return row[at : row.find(b'","actor":"', at)]


def task_of(row: bytes) -> bytes | None:
    """Return the task id of a row as it is written, without quotes; None for null."""
    at = row.find(b',"task_id":', _INSTANT_END) + 11
    return row[at + 1 : row.find(b'","step_id":', at)] if row[at : at + 1] == b'"' else None


def _block(rows: Sequence[bytes], number: int, offset: int, size: int, tasks: set[bytes]) -> Block:
    counts: Counter[bytes] = Counter()
    first, last, former = b"", b"", b""
    place = number.to_bytes(2, "big")
    for row in rows:
        at = instant_of(row)
        if at is None:
            continue  # a line that is none of ours: it is kept, and no query finds it
        first = min(first or at, at)
        last = max(last, at)
        counts[action_of(row)] += 1
        task_id = task_of(row)
        if task_id is not None and task_id != former:  # rows of one task often stand together
            tasks.add(_short(task_id) + place)
            former = task_id
    actions = {action.decode(): count for action, count in counts.items()}
    return Block(offset, size, len(rows), first.decode(), last.decode(), actions)


def _short(task_id: bytes) -> bytes:
    return blake2b(task_id, digest_size=_TASK_BYTES).digest()


def _gzip(data: bytes) -> bytes:
    packer = zlib.compressobj(_LEVEL, wbits=31)
    return packer.compress(data) + packer.flush()
