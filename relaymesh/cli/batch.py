"""``submit --batch``: NDJSON in, one answer per line out, and never an end that leaves a line untold.

    file ──▶ lines with numbers ──▶ TaskRequest ──▶ client.submit_many (commits in groups) ──▶ BatchLine, printed
                                └─▶ not a request: rejected, printed at once

Answers come in the order in which they are known, each with the number of its line.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import click
import msgspec

from relaymesh.cli.call import Call, at_terminal
from relaymesh.cli.source import open_bytes
from relaymesh.core.json_object import RepeatedMemberError, refuse_repeated
from relaymesh.view import BatchLine, TaskRequest, View

__all__ = ["LINE_BYTES_MAX", "BatchSummary", "submit_batch"]

# The largest payload with every character escaped as \uXXXX, and room for the rest.
LINE_BYTES_MAX = 64 * 1024 * 1024
PROGRESS_EVERY = 5000


class BatchSummary(View, frozen=True, kw_only=True):
    """The last line. ``unknown``: lines whose fate we did not learn before an error; submitting them again is safe."""

    lines: int
    accepted: int
    duplicate: int
    rejected: int
    unknown: int


def submit_batch(call: Call, path: str, agent_sources: Sequence[str]) -> int:
    """Submit every line of the file; print what became of each, then the sums. 1 if any line was rejected."""
    batch = _Batch(call)
    with open_bytes(path) as file, call.client(agent_sources) as client:
        try:
            for answer in client.submit_many(batch.requests(file)):
                batch.tell(answer)
        finally:
            batch.summarize()
    return 1 if batch.counts["rejected"] else 0


class _Batch:
    """One run: counts lines and answers, and prints them."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._lines = 0
        self.counts = {"accepted": 0, "duplicate": 0, "rejected": 0}
        self._progress = call.tables and at_terminal(sys.stderr)

    def requests(self, file: BinaryIO) -> Iterator[TaskRequest]:
        number = 0
        while line := file.readline(LINE_BYTES_MAX):
            number += 1
            if len(line) == LINE_BYTES_MAX and not line.endswith(b"\n"):
                self._lines += 1
                while (rest := file.readline(LINE_BYTES_MAX)) and not rest.endswith(b"\n"):
                    continue
                self._reject(number, "line_too_long", f"longer than {LINE_BYTES_MAX} bytes")
            elif line.strip():
                self._lines += 1
                request = self._read(number, line)
                if request is not None:
                    yield request

    def _read(self, number: int, line: bytes) -> TaskRequest | None:
        try:
            request = msgspec.json.decode(line, type=TaskRequest)
            refuse_repeated(line)
        except UnicodeDecodeError as error:
            self._reject(number, "not_utf8", f"not UTF-8 text (byte {error.start})")
        except (msgspec.DecodeError, RecursionError, RepeatedMemberError) as error:
            self._reject(number, "bad_line", str(error))
        else:
            if request.line == 0:
                return msgspec.structs.replace(request, line=number)
            self._reject(number, "bad_line", "Object contains unknown field `line`")
        return None

    def _reject(self, number: int, code: str, message: str) -> None:
        self.tell(BatchLine(line=number, result="rejected", code=code, message=message))

    def tell(self, answer: BatchLine) -> None:
        self.counts[answer.result] += 1
        # For a person only what needs attention; a program gets every line.
        if not self._call.tables or answer.result == "rejected":
            self._call.stream(answer)
        if self._progress and self._lines % PROGRESS_EVERY == 0:
            click.echo(f"\r{self._lines} lines", nl=False, err=True)

    def summarize(self) -> None:
        if self._progress:
            click.echo("\r", nl=False, err=True)
        unknown = self._lines - sum(self.counts.values())
        self._call.stream(BatchSummary(lines=self._lines, unknown=unknown, **self.counts))
