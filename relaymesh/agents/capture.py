"""What Python code prints in a worker process becomes lines of the log of the attempt that runs."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, cast

from relaymesh.agents.context import Attempt
from relaymesh.agents.log import LineSplitter

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["Capture", "capture_prints", "route_logging"]


class Capture(io.RawIOBase):
    """Takes the place of ``sys.stdout`` or ``sys.stderr``.

    Between attempts it is the stderr of the process, which the node reads. So is the file descriptor itself, always:
    what C code writes, or a program that a Python agent starts, goes to the node's log and not to the attempt's.
    """

    def __init__(self, level: str, current: Callable[[], Attempt | None]) -> None:
        super().__init__()
        self._level = level
        self._current = current
        self._attempt: Attempt | None = None
        self._splitter: LineSplitter | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2

    def write(self, data: ReadableBuffer, /) -> int:
        attempt = self._current()
        written = bytes(data)
        if attempt is None:
            os.write(2, written)
            return len(written)
        if self._splitter is None or attempt is not self._attempt:
            self.end_line()
            self._attempt = attempt
            self._splitter = LineSplitter(lambda line: attempt.log.add(self._level, line))
        self._splitter.feed(written)
        return len(written)

    def end_line(self) -> None:
        """The attempt is over: what it printed without a line break is a line too."""
        if self._splitter is not None:
            self._splitter.end()
            self._splitter = self._attempt = None


def capture_prints(current: Callable[[], Attempt | None]) -> tuple[Capture, Capture]:
    """Replace ``sys.stdout`` and ``sys.stderr``; return what has to be told when an attempt ends."""
    captures = Capture("STDOUT", current), Capture("STDERR", current)
    # Unbuffered, as with python -u: no text is left behind when an attempt ends.
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(cast(BinaryIO, raw), "utf-8", "replace", write_through=True) for raw in captures
    )
    return captures


def route_logging(current: Callable[[], Attempt | None]) -> None:
    """Let the ``logging`` module write to the running attempt, if an agent's module uses it and set up nothing else."""
    if "logging" not in sys.modules:
        return
    import logging

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            attempt = current()
            if attempt is not None:
                attempt.log.add(record.levelname, self.format(record))

    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(Handler())
        root.setLevel(logging.INFO)
