"""AuditTrail: appends records to the audit log of one root; any number of processes and threads may.

A trail never fails the work that it records: what was done is done, and its answer stays yes. When the log cannot be
written, the records are given up, counted in the head (whose bytes are there already, so a full disk takes it), and
told to the log of the process; the next record that can be written follows an ``audit.gap`` row that says how many are
missing, since when, and why.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from relaymesh.audit.head import Head, read_head, write_head
from relaymesh.audit.key import AuditKeyError, fingerprint_of, load_secret, make_secret, seal
from relaymesh.audit.lock import AuditBusyError, locked
from relaymesh.audit.place import Place
from relaymesh.audit.segment import Index, numbers, pack_waiting, read_block, read_index, read_rows
from relaymesh.audit.settle import LINE, Settled, rotated, settle
from relaymesh.boot import boot_id
from relaymesh.errors import RelayMeshError, RootError
from relaymesh.wire.audit import Record, body_of, chain, instant

if TYPE_CHECKING:
    from logging import Logger

__all__ = ["SEAL_MS", "SEAL_ROWS", "SEGMENT_AGE_MS", "SEGMENT_BYTES", "SYNC_MS", "AuditTrail", "spans_wanted"]

SEAL_ROWS = 1_000
"""A row is sealed at least so often: that many in a row without a seal are a fault."""
SEAL_MS = 600_000
"""The last row of a batch is sealed when the last seal is older."""
SYNC_MS = 1_000
"""The log is flushed to the disk by the first batch after this time: what a power failure may take."""
SEGMENT_BYTES = 16 * 1024 * 1024
SEGMENT_AGE_MS = 24 * 3_600_000
PLAIN_SEGMENTS_MAX = 8
"""Segments that may wait for their compression; whoever makes one more compresses two."""
SPAN_VARIABLE = "RELAYMESH_SPAN_FILE"
"""Set to 1, each row is also written as a span (``relaymesh.audit.span_file``)."""
_NOTHING: Mapping[str, object] = {}


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def spans_wanted() -> bool:
    """Return whether the environment asks for rows as spans, too."""
    return os.environ.get(SPAN_VARIABLE, "").strip().lower() in ("1", "true", "yes", "on")


class AuditTrail:
    """The door to one root's audit log. Cheap to make: nothing is opened before the first record. Thread-safe.

    root: the scoped root. masked_fields: more names of fields whose values are secret; None are those of the settings,
    read with the first record that has details.
    segment_bytes, segment_age_ms: the log is rotated by the first batch that finds it this large, or this old.
    boot: names the boot of the machine; what an earlier one had not synced may be gone.
    """

    def __init__(
        self,
        root: Path,
        namespace: str = "default",
        *,
        masked_fields: Iterable[str] | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        segment_age_ms: int = SEGMENT_AGE_MS,
        now_ms: Callable[[], int] = _wall_ms,
        boot: Callable[[], str] = boot_id,
    ) -> None:
        self.place = Place(root)
        self.namespace = namespace
        self.lost = 0
        """Records that this trail could not write."""
        self._masked = None if masked_fields is None else _field_names(masked_fields)
        self._segment_bytes = segment_bytes
        self._segment_age_ms = segment_age_ms
        self._now_ms = now_ms
        self._boot = boot
        self._turn = threading.Lock()
        self._complaints = 0
        self._rotated = False
        self._spans = spans_wanted()
        self._spans_failed = False

    def record(
        self,
        action: str,
        *,
        actor: str,
        resource: str,
        result: str,
        details: Mapping[str, object] = _NOTHING,
        task_id: str | None = None,
        step_id: str | None = None,
        trace_id: str | None = None,
        span_id: str | None = None,
        principal_id: str | None = None,
    ) -> None:
        """Write one record. Never raises for what the disk or another process does: see the module."""
        self.record_many(
            [Record(action, actor, resource, result, details, task_id, step_id, trace_id, span_id, principal_id)]
        )

    def record_many(self, records: Iterable[Record]) -> None:
        """Write records in this order, in one write."""
        now_ms, namespace = self._now_ms(), self.namespace
        self.append(
            [
                body_of(
                    record,
                    namespace=namespace,
                    now_ms=now_ms,
                    masked=self.masked_names() if record.details else frozenset(),
                )
                for record in records
            ]
        )

    def masked_names(self) -> frozenset[str]:
        """Return the names of fields that are masked beside those that always are (``relaymesh.core.mask``)."""
        if self._masked is None:
            from relaymesh.settings import load_settings  # here: who records no details need not load it

            names: tuple[str, ...] = ()
            with contextlib.suppress(RootError):  # what needs the settings says so
                names = load_settings(self.place.root).audit_masked_fields
            self._masked = _field_names(names)
        return self._masked

    def append(self, bodies: Sequence[str], *, lost: int = 0, lost_cause: str = "") -> None:
        """Write rows whose bodies are made (``relaymesh.wire.audit``).

        lost: records that were given up before they came here; a row tells of them.
        """
        if not bodies and not lost:
            return
        try:
            with self._turn, locked(self.place.lock) as descriptor:
                self._append(descriptor, bodies, lost, lost_cause)
        except (OSError, AuditBusyError, AuditKeyError) as error:
            self._give_up(len(bodies) + lost, error)
        else:
            self._complaints = 0
            if self._rotated:
                self._rotated = False
                if sum(self.place.plain(number).exists() for number in numbers(self.place)) > PLAIN_SEGMENTS_MAX:
                    self.pack(at_most=2)

    def pack(self, at_most: int | None = None) -> int:
        """Compress segments that wait for it, the oldest first; return how many. For when there is nothing else to do.

        Takes some 0.4 s a segment, during which others write on.
        """
        try:
            return pack_waiting(self.place, at_most)
        except OSError as error:
            _log().error("a segment of the audit log cannot be compressed (%s): it is kept as it is", error.strerror)
            return 0

    def drop_before(self, before_ms: int, at_most: int | None = None) -> int:
        """Remove segments whose rows are all older; return how many. The chain of what is kept still verifies.

        Only compressed segments, which know their ages. at_most: so many, the oldest first. The caller records it.

        Raises:
            OSError, AuditBusyError, AuditKeyError: nothing more was removed.
        """
        dropped = 0
        with self._turn, locked(self.place.lock) as descriptor:
            secret = load_secret(self.place.security)
            if secret is None:
                return 0  # the next record makes one, and says so
            head = settle(self.place, read_head(descriptor, secret), self._boot()).head
            for number in numbers(self.place)[:at_most]:
                found = None if self.place.plain(number).exists() else read_index(self.place, number)
                if found is None or found.last >= instant(before_ms):
                    break
                match = LINE.fullmatch(_last_line(self.place, number, found))
                head = msgspec.structs.replace(
                    head,
                    number=head.number + 1,
                    first_segment=number + 1,
                    first_prev=match[3].decode() if match else "",
                )
                # The head first: what a crash leaves lies before the first segment, and is removed next time.
                write_head(descriptor, head, secret)
                self.place.packed(number).unlink(missing_ok=True)
                self.place.index(number).unlink(missing_ok=True)
                dropped += 1
        return dropped

    def _rotation_due(self, head: Head, now_ms: int) -> bool:
        if head.size == 0:
            return False
        old = head.segment_since_ms and now_ms - head.segment_since_ms >= self._segment_age_ms
        return head.size >= self._segment_bytes or bool(old)

    def _rotate(self, descriptor: int, head: Head, secret: bytes, now_ms: int) -> Head:
        """Make the log a segment. Where the system refuses, as Windows does while somebody reads it, it grows on."""
        self.place.segments.mkdir(exist_ok=True)
        try:
            os.replace(self.place.log, self.place.plain(head.segment))
        except OSError as error:
            _log().info("the audit log is not rotated now (%s)", error.strerror)
            return head
        self._rotated = True
        head = msgspec.structs.replace(rotated(head, now_ms), number=head.number + 1)
        write_head(descriptor, head, secret)
        return head

    def _append(self, descriptor: int, bodies: Sequence[str], lost: int, lost_cause: str) -> None:
        now_ms = self._now_ms()
        known = load_secret(self.place.security)
        secret = known or make_secret(self.place.security)
        boot = self._boot()
        found = read_head(descriptor, secret)
        settled = settle(self.place, found, boot)
        if self._rotation_due(settled.head, now_ms):
            settled = Settled(self._rotate(descriptor, settled.head, secret, now_ms), settled.gap)
        head = settled.head
        gaps = self._gaps(head, settled.gap, lost, lost_cause, now_ms)
        if known is None and head.hash:
            gaps.append(self._new_key(secret, now_ms))
        lines: list[str] = []
        head = _extend(head, [*gaps, *bodies], lines, secret, now_ms)
        data = settled.mend + "".join(lines).encode()
        due = now_ms - head.synced_at_ms >= SYNC_MS or now_ms < head.synced_at_ms
        self._write(data, settled.head.size, sync=due)
        head = msgspec.structs.replace(
            head,
            number=head.number + 1,
            size=settled.head.size + len(data),
            boot=boot,
            lost=0,
            lost_since_ms=0,
            lost_cause="",
            segment_since_ms=head.segment_since_ms or now_ms,
        )
        if due:
            head = msgspec.structs.replace(
                head,
                synced_size=head.size,
                synced_rows=head.rows,
                synced_hash=head.hash,
                synced_unsealed=head.unsealed,
                synced_at_ms=now_ms,
            )
        write_head(descriptor, head, secret)
        if self._spans:
            self._write_spans([*gaps, *bodies])

    def _write_spans(self, bodies: Sequence[str]) -> None:
        from relaymesh.audit.span_file import SpanFile

        try:
            SpanFile(self.place.root).append(bodies)
        except (OSError, ValueError, KeyError) as error:
            if not self._spans_failed:  # a full disk stays full for many rows
                _log().error("the spans of audit rows cannot be written: %s", error)
            self._spans_failed = True
        else:
            self._spans_failed = False

    def _write(self, data: bytes, size: int, *, sync: bool) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        descriptor = os.open(self.place.log, flags, 0o640)
        try:
            try:
                left = memoryview(data)
                while left:
                    left = left[os.write(descriptor, left) :]
                if sync:
                    os.fsync(descriptor)
            except OSError:
                with contextlib.suppress(OSError):  # else the next writer cuts it
                    os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)

    def _gaps(self, head: Head, power: int, lost: int, cause: str, now_ms: int) -> list[str]:
        """Return rows about records that are missing, oldest first."""
        gaps = []
        if power:
            gaps.append(self._gap(power, None, "power_failure", now_ms))
        if head.lost:
            gaps.append(self._gap(head.lost, head.lost_since_ms, head.lost_cause, now_ms))
        if lost:
            gaps.append(self._gap(lost, None, cause, now_ms))
        return gaps

    def _gap(self, count: int, since_ms: int | None, cause: str, now_ms: int) -> str:
        details = {"lost": count, "since_ms": since_ms, "cause": cause}
        record = Record("audit.gap", "system", "runtime/audit", "lost", details)
        return body_of(record, namespace=self.namespace, now_ms=now_ms)

    def _new_key(self, secret: bytes, now_ms: int) -> str:
        """A row that says that the records before it were sealed with a key that is not there any more."""
        details = {"sealing_hash": fingerprint_of(secret), "cause": "no key was there"}
        record = Record("audit.key", "system", "runtime/audit", "replaced", details)
        return body_of(record, namespace=self.namespace, now_ms=now_ms)

    def _give_up(self, count: int, error: Exception) -> None:
        self.lost += count
        if isinstance(error, OSError):
            cause = error.strerror or type(error).__name__
        else:
            cause = str(error) if isinstance(error, RelayMeshError) else type(error).__name__
        if self._complaints & (self._complaints - 1) == 0:  # 1, 2, 4, 8, …: a full disk must not fill the log too
            from relaymesh.core.plural import counted, verb  # here: every submit loads this module

            missing = f"{counted(self.lost, 'record')} {verb(self.lost, 'is', 'are')} missing in it so far"
            _log().error("the audit log cannot be written (%s): %s", cause, missing)
        self._complaints += 1
        with contextlib.suppress(OSError, AuditBusyError, AuditKeyError), locked(self.place.lock, 0.1) as descriptor:
            self._note_lost(descriptor, count, cause)

    def _note_lost(self, descriptor: int, count: int, cause: str) -> None:
        secret = load_secret(self.place.security)
        head = read_head(descriptor, secret) if secret is not None else None
        if head is None or secret is None:
            return
        noted = msgspec.structs.replace(
            head,
            number=head.number + 1,
            lost=head.lost + count,
            lost_since_ms=head.lost_since_ms or self._now_ms(),
            lost_cause=head.lost_cause or cause[:64],
        )
        write_head(descriptor, noted, secret)


def _last_line(place: Place, number: int, index: Index) -> bytes:
    """Return the last row of a packed segment: of its last block, or of all of it where the index is no help.

    Others wait for the log meanwhile, and a block is a small part of a segment.
    """
    with contextlib.suppress(OSError, EOFError, zlib.error, IndexError):
        line = read_block(place.packed(number), index.blocks[-1]).splitlines(keepends=True)[-1]
        if LINE.fullmatch(line):
            return line
    return b"".join(deque(read_rows(place, number), maxlen=1))


def _extend(head: Head, bodies: Sequence[str], lines: list[str], secret: bytes, now_ms: int) -> Head:
    """Make lines of bodies, sealed where a seal is due; return the head behind them."""
    last, unsealed, sealed_at_ms = head.hash, head.unsealed, head.sealed_at_ms or now_ms
    overdue = not 0 <= now_ms - sealed_at_ms < SEAL_MS
    start = 0
    while start < len(bodies):
        end = min(len(bodies), start + SEAL_ROWS - unsealed)
        last = chain(bodies[start:end], last, lines)
        unsealed += end - start
        if unsealed >= SEAL_ROWS or (overdue and end == len(bodies)):
            lines[-1] = f'","signature":"{seal(secret, last)}"}}\n'
            unsealed, sealed_at_ms = 0, now_ms
        start = end
    return msgspec.structs.replace(
        head, rows=head.rows + len(bodies), hash=last, unsealed=unsealed, sealed_at_ms=sealed_at_ms
    )


def _field_names(names: Iterable[str]) -> frozenset[str]:
    names = tuple(names)
    if not names:
        return frozenset()
    from relaymesh.core.mask import field_names

    return field_names(names)


def _log() -> Logger:
    import logging  # here: every command that records something loads this module, and hardly any has to complain

    return logging.getLogger("relaymesh.audit")
