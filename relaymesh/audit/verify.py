"""Checking the chain: every line of every segment, in order, up to where the head says that it ends.

    changed      the line's own hash does not fit            inserted, removed, reordered   a link does not fit
    cut off      the last line is not the head's             forged                         a seal is missing or wrong

It stops at the first fault. The hash is taken of the bytes as they stand, so nothing can hide in how they are written.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO

from relaymesh.audit.head import Head, read_head
from relaymesh.audit.key import load_public, load_secret, unsealed
from relaymesh.audit.lock import locked
from relaymesh.audit.place import Place
from relaymesh.audit.read import count_rows
from relaymesh.audit.segment import numbers, read_lines
from relaymesh.audit.settle import settle
from relaymesh.audit.trail import SEAL_ROWS
from relaymesh.boot import boot_id

__all__ = ["Integrity", "verify"]

_HASH = b',"hash":"'
_HASH_END = len(_HASH) + 64
_SEAL = b'","signature":"'
_LOG_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Integrity:
    """What a check came to.

    broken_line: 1 for the oldest row that is kept; one more than there are when rows were cut off the end; 0 for none.
    where: file and line of the fault, for people.
    """

    total: int
    checked: int = 0
    legacy: int = 0
    broken_line: int = 0
    reason: str = ""
    tail_hash: str = ""
    where: str = ""


@dataclass(slots=True)
class _Walk:
    public: bytes | None
    last: str | None
    legacy_max: int = -1
    checked: int = 0
    legacy: int = 0
    unsealed: int = 0
    hashed: bool = False
    link: bytes = b""

    def take(self, hash_: str) -> None:
        """Go on from a row that is as it was written."""
        self.checked += 1
        self.hashed = True
        self.last = hash_
        # How the next row has to end, but for its own hash.
        self.link = f',"prev_hash":"{hash_}"'.encode()


def verify(place: Place, limit: int = 0) -> Integrity:
    """Check the last ``limit`` rows, or all for 0. With a limit, the link of the first checked row is not tested.

    Raises:
        AuditBusyError, AuditKeyError: it cannot be checked.
        OSError: the log cannot be read.
    """
    head, known, log, listed = _look(place)
    with log:
        skip = max(0, count_rows(place) - limit) if limit else 0
        walk = _Walk(load_public(place.security), None, head.legacy)
        if not skip:
            # Before what a crash left of the segment that was dropped last, nothing is known.
            left = head.first_segment > 1 and head.first_segment - 1 in listed
            walk.last = None if left else head.first_prev
            walk.link = f',"prev_hash":"{head.first_prev}"'.encode()
        number = 0
        try:
            for path, first, lines, ours in _lines(place, listed, head, log):
                if not ours:
                    where = f"{path} is no segment of this log"
                    return _broken(place, walk, number + 1, "prev_hash_mismatch", where)
                for row, line in enumerate(lines, first):
                    number += 1
                    if number <= skip:
                        walk.last = None
                    elif reason := _fault(walk, line):
                        return _broken(place, walk, number, reason, f"line {row} of {path}")
        except (OSError, EOFError, zlib.error) as error:
            return _broken(place, walk, number + 1, "invalid_json", f"a file is damaged or missing ({error})")
    if known and (walk.last or "") != head.hash:
        return _broken(
            place, walk, number + 1, "prev_hash_mismatch", f"rows are missing behind line {number}, the last one"
        )
    return Integrity(number, walk.checked, walk.legacy, tail_hash=walk.last or "")


def _look(place: Place) -> tuple[Head, bool, IO[bytes], list[int]]:
    """Return the end of the chain now, whether it was known, the log opened as it is, and which segments there are."""
    with locked(place.lock) as descriptor:
        secret = load_secret(place.security)
        found = read_head(descriptor, secret) if secret is not None else None
        head = settle(place, found, boot_id()).head
        try:
            log: IO[bytes] = open(place.log, "rb")  # noqa: SIM115
        except FileNotFoundError:
            log = io.BytesIO()
        listed = numbers(place)
    return head, found is not None, log, listed


def _lines(
    place: Place, listed: list[int], head: Head, log: IO[bytes]
) -> Iterator[tuple[Path, int, list[bytes], bool]]:
    """Yield file, number of the first line, some lines, and whether the file is of the chain, over all files.

    Lines of the log up to the head. A query tells of the rows of every segment that lies there, so one that nobody
    wrote is a fault. The one before the first may be left of a crash while it was dropped, and must still fit.
    """
    for number in listed:
        path, first = place.plain(number), 1
        if not path.exists():
            path = place.packed(number)
        if not max(1, head.first_segment - 1) <= number < head.segment:
            yield path, first, [], False
        for lines in read_lines(place, number):
            yield path, first, lines, True
            first += len(lines)
    at, first = 0, 1
    while at < head.size and (lines := log.readlines(min(_LOG_BYTES, head.size - at))):
        yield place.log, first, lines, True
        at += sum(map(len, lines))
        first += len(lines)


def _fault(walk: _Walk, line: bytes) -> str:
    """Return what is wrong with a line, "" for nothing."""
    at = line.rfind(_HASH)
    body, rest = line[:at], line[at:]
    found = sha256(body + b"}").hexdigest()
    linked = walk.last is None or body.endswith(walk.link)
    if linked and rest == f',"hash":"{found}","signature":""}}\n'.encode():
        walk.take(found)
        walk.unsealed += 1
        return "signature_mismatch" if walk.unsealed > SEAL_ROWS else ""
    if not (rest.startswith(_HASH) and rest.startswith(_SEAL, _HASH_END) and rest.endswith(b'"}\n')):
        return _oddity(walk, line)
    if not linked:
        return _reason_of(line, "prev_hash_mismatch")
    if rest[len(_HASH) : _HASH_END] != found.encode():
        return _reason_of(line, "hash_mismatch")
    walk.take(found)
    walk.unsealed = 0
    return "" if _is_seal(walk, rest[_HASH_END + len(_SEAL) : -3]) else "signature_mismatch"


def _is_seal(walk: _Walk, signature: bytes) -> bool:
    assert walk.last is not None
    return walk.public is not None and unsealed(walk.public, walk.last, signature.decode("ascii", "replace"))


def _oddity(walk: _Walk, line: bytes) -> str:
    """Return what is wrong with a line that is not of our form; one without a hash is of an older version.

    Those stand before all others: a hash that was taken away later is a fault.
    """
    try:
        row = json.loads(line)
    except ValueError:
        return "invalid_json"
    if not isinstance(row, dict):
        return "invalid_json"
    if walk.hashed or not row.keys().isdisjoint(("prev_hash", "hash", "signature")):
        return "hash_mismatch"
    if walk.legacy == walk.legacy_max:  # one more than were there when the chain began
        return "hash_mismatch"
    walk.checked += 1
    walk.legacy += 1
    walk.last, walk.link = "", b',"prev_hash":""'
    return ""


def _reason_of(line: bytes, reason: str) -> str:
    try:
        json.loads(line)
    except ValueError:
        return "invalid_json"
    return reason


def _broken(place: Place, walk: _Walk, number: int, reason: str, where: str) -> Integrity:
    total = count_rows(place)
    return Integrity(total, walk.checked, walk.legacy, number, reason, walk.last or "", where)
