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
from relaymesh.audit.segment import numbers, read_rows
from relaymesh.audit.settle import settle
from relaymesh.audit.trail import SEAL_ROWS
from relaymesh.boot import boot_id

__all__ = ["Integrity", "verify"]

_HASH = b',"hash":"'
_SEAL = b'","signature":"'


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
    checked: int = 0
    legacy: int = 0
    unsealed: int = 0
    hashed: bool = False


def verify(place: Place, limit: int = 0) -> Integrity:
    """Check the last ``limit`` rows, or all for 0. With a limit, the link of the first checked row is not tested.

    Raises:
        AuditBusyError, AuditKeyError: it cannot be checked.
        OSError: the log cannot be read.
    """
    head, known, log = _look(place)
    with log:
        skip = max(0, count_rows(place) - limit) if limit else 0
        walk = _Walk(load_public(place.security), None if skip else head.first_prev)
        number = 0
        try:
            for path, row, line in _lines(place, head, log):
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


def _look(place: Place) -> tuple[Head, bool, IO[bytes]]:
    """Return the end of the chain at this moment, whether it was known, and the log opened as it is now."""
    with locked(place.lock) as descriptor:
        secret = load_secret(place.security)
        found = read_head(descriptor, secret) if secret is not None else None
        head = settle(place, found, boot_id()).head
        try:
            log: IO[bytes] = open(place.log, "rb")  # noqa: SIM115
        except FileNotFoundError:
            log = io.BytesIO()
    return head, found is not None, log


def _lines(place: Place, head: Head, log: IO[bytes]) -> Iterator[tuple[Path, int, bytes]]:
    """Yield file, number in the file, and line, over all files; those of the log up to the head."""
    kept = [number for number in numbers(place) if head.first_segment <= number < head.segment]
    for number in kept:
        path = place.packed(number)
        for row, line in enumerate(read_rows(place, number), 1):
            yield path, row, line
    at = 0
    for row, line in enumerate(log, 1):
        if at >= head.size:
            break
        at += len(line)
        yield place.log, row, line


def _fault(walk: _Walk, line: bytes) -> str:
    """Return what is wrong with a line, "" for nothing."""
    at = line.rfind(_HASH)
    hash_at, sealed_at = at + len(_HASH), at + len(_HASH) + 64
    hash_, signature = line[hash_at:sealed_at], line[sealed_at + len(_SEAL) : -3]
    if at < 0 or line[sealed_at : sealed_at + len(_SEAL)] != _SEAL or line[-3:] != b'"}\n':
        return _oddity(walk, line)
    linked = walk.last is None or line[:at].endswith(f',"prev_hash":"{walk.last}"'.encode())
    if not linked:
        return _reason_of(line, "prev_hash_mismatch")
    if sha256(line[:at] + b"}").hexdigest().encode() != hash_:
        return _reason_of(line, "hash_mismatch")
    walk.checked += 1
    walk.hashed = True
    walk.last = hash_.decode()
    walk.unsealed = 0 if signature else walk.unsealed + 1
    if walk.unsealed > SEAL_ROWS:
        return "signature_mismatch"
    if signature and not _is_seal(walk, signature):
        return "signature_mismatch"
    return ""


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
    walk.checked += 1
    walk.legacy += 1
    walk.last = ""
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
