"""The log of one attempt: bounded, whatever the agent writes.

The first lines are kept and the rest is counted, because what went wrong first explains the rest. A small reserve is
kept for what the runner itself has to say at the end (a traceback, processes that were left behind).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from relaymesh.core.plural import counted, verb
from relaymesh.wire.work import LogLine

__all__ = ["LOG_BYTES_MAX", "LOG_LINES_MAX", "LOG_LINE_BYTES_MAX", "AttemptLog", "LineSplitter", "clean", "cut_bytes"]

LOG_LINES_MAX: Final = 1_000
LOG_BYTES_MAX: Final = 64 * 1024
LOG_LINE_BYTES_MAX: Final = 4 * 1024
_RESERVED_LINES: Final = 50
_RESERVED_BYTES: Final = 8 * 1024


def clean(text: str) -> str:
    """Return the text with what UTF-8 cannot carry (lone surrogates) replaced by ``?``."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def cut_bytes(text: str, bytes_max: int) -> str:
    """Return the text, or as much of it as fits into so many bytes of UTF-8 with ``...`` behind it."""
    if len(text) * 4 <= bytes_max:
        return text
    data = text.encode("utf-8")
    if len(data) <= bytes_max:
        return text
    return data[: bytes_max - 3].decode("utf-8", "ignore") + "..."


class AttemptLog:
    """Lines of one attempt, at most ``LOG_LINES_MAX`` and ``LOG_BYTES_MAX``; any thread may add to it."""

    __slots__ = ("_bytes", "_dropped", "_full", "_lines", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: list[LogLine] = []
        self._bytes = 0
        self._dropped = 0
        self._full = False

    @property
    def full(self) -> bool:
        """Whether a line of the agent found no room: all that follow are only counted."""
        return self._full

    def drop(self, lines: int) -> None:
        """Count lines of the agent that nobody needs to look at, because the log is full."""
        with self._lock:
            self._dropped += lines

    def add(self, level: str, text: str) -> None:
        """Add what the agent wrote; a text of several lines becomes several lines."""
        if self._full:  # a flood costs no more than it must
            self.drop(text.count("\n") + 1)
        elif self._add(level, text, LOG_LINES_MAX - _RESERVED_LINES, LOG_BYTES_MAX - _RESERVED_BYTES):
            self._full = True

    def add_ours(self, level: str, text: str) -> None:
        """Add what the runner has to say; the reserve is there for it."""
        self._add(level, text, LOG_LINES_MAX, LOG_BYTES_MAX)

    def _add(self, level: str, text: str, lines_max: int, bytes_max: int) -> int:
        """Add what there is room for; return how many lines were dropped."""
        at_ms = time.time_ns() // 1_000_000
        dropped = 0
        for line in text.split("\n"):
            kept = cut_bytes(clean(line.rstrip("\r")), LOG_LINE_BYTES_MAX)
            size = len(kept.encode("utf-8"))
            with self._lock:
                if len(self._lines) >= lines_max or self._bytes + size > bytes_max:
                    self._dropped += 1
                    dropped += 1
                else:
                    self._lines.append(LogLine(at_ms, level, kept))
                    self._bytes += size
        return dropped

    def lines(self) -> tuple[LogLine, ...]:
        """Return the lines kept, and at the end one that says how many were dropped, if any were."""
        with self._lock:
            if not self._dropped:
                return tuple(self._lines)
            last = LogLine(
                time.time_ns() // 1_000_000,
                "WARNING",
                f"{counted(self._dropped, 'more line')} {verb(self._dropped, 'was', 'were')} dropped: the log of one"
                f" attempt holds {LOG_LINES_MAX} lines and {LOG_BYTES_MAX} bytes",
            )
            return (*self._lines, last)


class LineSplitter:
    """Turns bytes as they arrive into lines of text for ``sink``; holds no more than one line, cut to the limit.

    skim: asked about whole lines that came together, whether none of them is wanted; then they do not go to ``sink``.
    """

    __slots__ = ("_cut", "_partial", "_sink", "_skim")

    def __init__(self, sink: Callable[[str], None], *, skim: Callable[[bytes], bool] | None = None) -> None:
        self._sink = sink
        self._skim = skim
        self._partial = b""
        self._cut = False

    def feed(self, data: bytes) -> None:
        """Take more bytes; what follows the last line break waits for the rest of its line."""
        if self._skim is not None:
            data = self._skimmed(data, self._skim)
        *complete, rest = data.split(b"\n")
        for line in complete:
            self._extend(line)
            self._emit()
        self._extend(rest)

    def _skimmed(self, data: bytes, skim: Callable[[bytes], bool]) -> bytes:
        """Return what is left to be split: the end of a line that had begun before, and the beginning of the last."""
        first = data.find(b"\n") + 1 if self._partial else 0
        last = data.rfind(b"\n") + 1
        return data[:first] + data[last:] if first < last and skim(data[first:last]) else data

    def end(self) -> None:
        """Nothing more comes: what is left is a line too."""
        if self._partial:
            self._emit()

    def _extend(self, data: bytes) -> None:
        room = LOG_LINE_BYTES_MAX - len(self._partial)
        self._cut = self._cut or len(data) > room
        self._partial += data[: max(room, 0)]

    def _emit(self) -> None:
        text = self._partial.decode("utf-8", "replace").rstrip("\r")
        if self._cut:
            text = text[:-3] + "..."
        self._partial, self._cut = b"", False
        self._sink(text)
