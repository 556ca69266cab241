"""``trace/otel-spans.jsonl``: each audit row once more as a span, one OTLP JSON object per line. Off by default.

Written with the environment variable ``RELAYMESH_SPAN_FILE=1``, by whoever holds the lock of the audit log, so that
lines are whole and in its order. A file of ``FILE_BYTES_MAX`` becomes ``otel-spans.1.jsonl``, and so on; the oldest of
``FILES_MAX`` goes. It is a copy for other programs: what cannot be written is given up and told to the log.

The span of an attempt that ended with a report lasts from its start to its end, by the clock of the machine that ran
it. Of everything else, an attempt that ended with its worker process included, a row knows one instant, and so does its
span.

Source: OpenTelemetry Protocol 1.0, JSON encoding.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

__all__ = ["FILES_MAX", "FILE_BYTES_MAX", "SpanFile", "span_line", "timed"]

FILE_BYTES_MAX: Final = 16 * 1024 * 1024
FILES_MAX: Final = 4
"""Files together, the present one included."""
_NAME: Final = "otel-spans"
_FAILED: Final = frozenset(
    {
        "failed",
        "dead_lettered",
        "exception",
        "agent_not_found",
        "stale_lease",
        "stale_lease_on_success",
        "rejected",
        "invalid_spec",
        "degraded",
        "alert",
        "lost",
    }
)
"""Results that mean failure; a span of any other has no error."""
_ATTRIBUTES: Final = ("actor", "resource", "result", "task_id", "step_id", "principal_id")


class TimedBody(str):
    """The body of a row about an attempt, with when that ran: wall time in ms. Made only where spans are written."""

    __slots__ = ("began_ms", "ended_ms")

    began_ms: int
    ended_ms: int


def timed(body: str, began_ms: int, ended_ms: int) -> str:
    """Return a body whose span lasts as long as the attempt did; one whose times are not known as it is."""
    if not 0 < began_ms <= ended_ms:
        return body
    made = TimedBody(body)
    made.began_ms, made.ended_ms = began_ms, ended_ms
    return made


class SpanFile:
    """The span files of one root. The caller holds the lock of the audit log."""

    def __init__(self, root: Path, file_bytes_max: int = FILE_BYTES_MAX) -> None:
        self._folder = root / "trace"
        self._file_bytes_max = file_bytes_max

    def append(self, bodies: Iterable[str]) -> None:
        """Write the spans of rows whose bodies are made (``relaymesh.wire.audit``).

        Raises:
            OSError: some of them may not be there.
        """
        data = "".join(_line_of(body) for body in bodies).encode()
        self._folder.mkdir(exist_ok=True)
        path = self._folder / f"{_NAME}.jsonl"
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            size = 0
        if size and size + len(data) > self._file_bytes_max:
            self._rotate(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o640)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(descriptor, left) :]
        finally:
            os.close(descriptor)

    def _rotate(self, path: Path) -> None:
        older = [self._folder / f"{_NAME}.{number}.jsonl" for number in range(1, FILES_MAX)]
        for source, target in reversed(list(zip([path, *older], older, strict=False))):
            if source.exists():
                os.replace(source, target)


def _line_of(body: str) -> str:
    row = json.loads(body + '"}')
    return span_line(row, body.began_ms, body.ended_ms) if isinstance(body, TimedBody) else span_line(row)


def span_line(row: Mapping[str, Any], began_ms: int | None = None, ended_ms: int | None = None) -> str:
    """Return the line of one row. A row without trace or span gets ids that follow from it.

    began_ms, ended_ms: of what the row is about, wall time; without them the span begins and ends with the row.
    """
    at_ms = round(datetime.fromisoformat(row["timestamp"]).timestamp() * 1000)
    seed = json.dumps([row["timestamp"], row["action"], row["resource"], row["result"], row["task_id"]]).encode()
    attributes = [_attribute(f"relaymesh.{name}", row[name]) for name in _ATTRIBUTES if row.get(name) not in (None, "")]
    span = {
        "traceId": row["trace_id"] or blake2b(seed, digest_size=16).hexdigest(),
        "spanId": row["span_id"] or blake2b(seed, digest_size=8).hexdigest(),
        "name": row["action"],
        "kind": 1,
        "startTimeUnixNano": str((at_ms if began_ms is None else began_ms) * 1_000_000),
        "endTimeUnixNano": str((at_ms if ended_ms is None else ended_ms) * 1_000_000),
        "status": {"code": 2} if row["result"] in _FAILED else {},
        "attributes": attributes,
    }
    resource = [
        _attribute("service.name", "relaymesh"),
        _attribute("service.namespace", row["namespace"]),
        _attribute("relaymesh.namespace", row["namespace"]),
    ]
    scope = {"scope": {"name": "relaymesh-audit", "version": "v1"}, "spans": [span]}
    line = {"resourceSpans": [{"resource": {"attributes": resource}, "scopeSpans": [scope]}]}
    return json.dumps(line, separators=(",", ":")) + "\n"


def _attribute(key: str, value: str) -> dict[str, object]:
    return {"key": key, "value": {"stringValue": value}}
