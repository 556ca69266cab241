"""The log of a node: one line for each record, as JSON or as text, on stderr or in a file that is rotated.

    any thread ──▶ bounded queue ──▶ one thread: mask, format, write

Nobody waits for a slow terminal or disk: what does not fit into the queue is dropped, and a line says how much. What a
record is about travels in ``extra``: the names of ``ABOUT``. Secrets are masked as in the audit log, by the name of a
field and by the look of a text; payloads are never logged.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import queue
import sys
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener, RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import Literal

from relaymesh.core.mask import mask
from relaymesh.errors import UsageError

__all__ = ["ABOUT", "Log", "LogFileError", "start_log"]

ABOUT = ("task_id", "step_id", "trace_id", "span_id", "agent_id", "attempt", "code", "node_id", "rule")
"""What a record may say that it is about, in the order in which it is printed."""
QUEUE_RECORDS_MAX = 10_000
FILE_BYTES_MAX = 10_485_760
FILES_MAX = 5
TRACEBACK_CHARS_MAX = 16_384

Format = Literal["json", "text"]


class LogFileError(UsageError):
    """The file for the log cannot be written."""

    code = "log_unwritable"

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(path, cause)
        self.path, self.cause = path, cause

    def __str__(self) -> str:
        return f"the log cannot be written to {self.path} ({self.cause}): choose another --log-file"


class Log:
    """A log that was started, and a context manager. ``stop`` writes what is waiting and gives the loggers back."""

    def __init__(self, logger: logging.Logger, handler: _Handler, listener: QueueListener) -> None:
        self._logger, self._handler, self._listener = logger, handler, listener
        self._former = logger.level
        atexit.register(self.stop)

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Write what is waiting, and end. May be called twice."""
        atexit.unregister(self.stop)
        if self._handler not in self._logger.handlers:
            return
        self._logger.removeHandler(self._handler)
        self._listener.stop()
        for handler in self._listener.handlers:
            handler.close()
        self._logger.setLevel(self._former)


def start_log(form: Format, level: str, file: str | Path | None = None, *, logger: str = "relaymesh") -> Log:
    """Send what the loggers below ``logger`` say to stderr, or to a file.

    level: ``debug``, ``info``, ``warning`` or ``error``. file: rotated at 10 MiB, five old ones kept; mode 0600.

    Raises:
        LogFileError
    """
    target = _open(file)
    target.setFormatter(_Json() if form == "json" else _Text())
    waiting: queue.Queue[logging.LogRecord] = queue.Queue(QUEUE_RECORDS_MAX)
    handler = _Handler(waiting)
    listener = QueueListener(waiting, target)
    listener.start()
    top = logging.getLogger(logger)
    log = Log(top, handler, listener)
    top.addHandler(handler)
    top.setLevel(level.upper())
    return log


def _open(file: str | Path | None) -> logging.Handler:
    if file is None:
        return logging.StreamHandler(sys.stderr)
    try:
        # Made by us, so that nobody else can read it; the handler only appends.
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        return RotatingFileHandler(file, maxBytes=FILE_BYTES_MAX, backupCount=FILES_MAX, encoding="utf-8")
    except OSError as error:
        raise LogFileError(str(file), error.strerror or type(error).__name__) from error


class _Handler(QueueHandler):
    """Puts records into the queue; counts what does not fit, and says so with the next one that does."""

    def __init__(self, waiting: queue.Queue[logging.LogRecord]) -> None:
        super().__init__(waiting)
        self._waiting = waiting
        self._dropped = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        if self._dropped and not self._waiting.full():
            count, self._dropped = self._dropped, 0
            from relaymesh.core.plural import counted, verb  # here: nearly nobody drops any

            dropped = f"{counted(count, 'record')} before this one {verb(count, 'was', 'were')} dropped"
            sentence = f"{dropped}: more came than could be written"
            note = logging.LogRecord("relaymesh.log", logging.WARNING, __file__, 0, sentence, (), None)
            self._waiting.put_nowait(note)
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            self._dropped += 1

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Keep the record as it is, but bind its message: what it was made of may change."""
        record.msg, record.args = record.getMessage(), None
        return record


class _Masked(logging.Formatter):
    """What both forms have in common: the fields of a record, masked."""

    def fields(self, record: logging.LogRecord) -> dict[str, object]:
        about = {name: value for name in ABOUT if (value := getattr(record, name, None)) is not None}
        return dict(mask(about))

    def sentence(self, record: logging.LogRecord) -> str:
        return str(mask({"message": record.getMessage()})["message"])

    def traceback(self, record: logging.LogRecord) -> str:
        if not record.exc_info:
            return ""
        text = self.formatException(record.exc_info)
        return "\n".join(str(mask({"line": line})["line"]) for line in text[-TRACEBACK_CHARS_MAX:].split("\n"))


class _Json(_Masked):
    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, object] = {
            "timestamp": _instant(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.sentence(record),
            "pid": record.process,
            "thread": record.threadName,
            **self.fields(record),
        }
        traceback = self.traceback(record)
        if traceback:
            document["traceback"] = traceback
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


class _Text(_Masked):
    def format(self, record: logging.LogRecord) -> str:
        sentence = self.sentence(record).replace("\n", "\\n")
        about = "".join(f" {name}={value}" for name, value in self.fields(record).items())
        line = f"{_instant(record.created)} {record.levelname.lower():<8}{record.name}: {sentence}{about}"
        traceback = self.traceback(record)
        return f"{line}\n{traceback}" if traceback else line


def _instant(created_s: float) -> str:
    return datetime.fromtimestamp(created_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
