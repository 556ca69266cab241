"""The node's end of one worker process: start it, talk to it, kill it with all that it started, wait for it.

send ──▶ outbox ──▶ writer thread ──▶ pipe ──▶ host
on_event ◀── reader thread ◀── pipe ◀─────────┘
on_event(WorkerOutput) ◀── stderr thread        on_event(WorkerExited), the last one ◀── waiter thread
"""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from relaymesh.agents.log import LineSplitter
from relaymesh.agents.pipe import FrameReader, export_fd, write_message
from relaymesh.agents.process_tree import (
    MARK_VARIABLE,
    adopting_for_a_moment,
    kill_marked,
    kill_tree,
    wait_unreaped,
)
from relaymesh.agents.running_mark import RunningMark, create_mark_file
from relaymesh.core.plural import counted, verb
from relaymesh.core.setting import SECRET_VARIABLES
from relaymesh.errors import AgentError, MessageError
from relaymesh.wire.codec import Message
from relaymesh.wire.work import RunSteps, StartWorker, StepOrder, WorkerExited, WorkerOutput

__all__ = ["KILL_MARGIN_MS", "OUTBOX_MAX", "OUTPUT_LINES_MAX", "WorkerProcess"]

KILL_MARGIN_MS: Final = 1_000
"""How long after timeout (or cancel) and grace time a worker should be killed: it first ends a script by itself."""

OUTBOX_MAX: Final = 10_000
"""Messages that may wait for a worker that does not read; more than that, and it is deaf."""

OUTPUT_LINES_MAX: Final = 100
"""Lines of a worker's own stderr that are passed on in ``_OUTPUT_WINDOW_S``; the rest is counted."""

_OUTPUT_WINDOW_S: Final = 10.0
_ORDER_CHARS_MAX: Final = 4 * 1024 * 1024
_DRAIN_WITHIN_S: Final = 1.0
_KILL_WITHIN_S: Final = 5.0
# Between the end of its pipe and its own end a worker that exits needs no time at all.
_SILENT_MAX_S: Final = 1.0


class WorkerProcess:
    """One worker process, started once. ``on_event`` is called from its threads and must not block.

    root, sources: what ``load_registry`` takes. environment: variables on top of those of this process.

    Events: ``WorkerReady`` or ``WorkerRefused`` first, then what the worker reports, ``WorkerOutput`` at any time, and
    ``WorkerExited`` as the last one, when the process was waited for and everything that it wrote was delivered.
    """

    def __init__(
        self,
        root: Path,
        sources: Sequence[str],
        on_event: Callable[[Message], object],
        *,
        executable: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._start_message = StartWorker(str(Path(root).absolute()), tuple(sources), tuple(sys.path))
        self._on_event = on_event
        self._executable = executable or sys.executable
        self._environment = dict(environment or {})
        self._mark = secrets.token_hex(16)
        self._outbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._ended = False
        self._exited = threading.Event()
        self._status: int | None = None

    @property
    def pid(self) -> int:
        """The process id, 0 before the start."""
        return 0 if self._child is None else self._child.pid

    @property
    def alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and not self._ended

    def start(self) -> None:
        """Start it; ``WorkerReady`` comes when it has loaded its agents.

        Raises:
            AgentError: the platform cannot start a process now.
        """
        assert self._child is None, "a worker process is started once"
        ours, theirs = contextlib.ExitStack(), contextlib.ExitStack()
        try:
            with theirs:
                orders_read, orders_write = os.pipe()
                theirs.callback(os.close, orders_read)
                ours.callback(os.close, orders_write)
                reports_read, reports_write = os.pipe()
                theirs.callback(os.close, reports_write)
                ours.callback(os.close, reports_read)
                mark_fd = create_mark_file()
                theirs.callback(os.close, mark_fd)
                self._running = RunningMark(mark_fd)
                self._running.clear()
                self._child = self._popen(orders_read, reports_write, mark_fd)
        except OSError as error:
            ours.close()
            raise AgentError(f"cannot start a worker process ({error.strerror}): free memory or processes") from error
        self._outbox.put(self._start_message)
        reader = self._thread("read", lambda: self._read(FrameReader(reports_read)))
        listener = self._thread("stderr", self._listen)
        self._thread("write", lambda: self._write(orders_write))
        self._thread("wait", lambda: self._wait(reader, listener))

    def send(self, message: Message) -> bool:
        """Hand over a message without waiting; False when the worker is gone or does not read any more: kill it."""
        if not self.alive or self._outbox.qsize() >= OUTBOX_MAX:
            return False
        for part in _parts(message):
            self._outbox.put(part)
        return True

    def kill(self) -> None:
        """Kill it and everything below it, and wait for it; usually some 10 ms, at most a few seconds.

        What was killed below it leaves no zombie either. Safe to call at any time, from any thread but its own.
        """
        with self._lock:
            child = self._child
            if child is None or self._ended:
                return
            with adopting_for_a_moment() as orphans:
                orphans += kill_tree(child.pid).gone
                # The waiter thread collects it; only then do its zombies fall to us.
                self._exited.wait(_KILL_WITHIN_S)

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for the end; return the exit status, or None when it still runs."""
        self._exited.wait(timeout_s)
        return self._status

    def _popen(self, *fds: int) -> subprocess.Popen[bytes]:
        numbers = [export_fd(fd) for fd in fds]
        options: dict[str, Any] = {}
        if sys.platform == "win32":
            startup = subprocess.STARTUPINFO()
            startup.lpAttributeList = {"handle_list": numbers}
            options["startupinfo"] = startup
            options["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        else:
            options["pass_fds"] = numbers
            # Away from the node's terminal: a Ctrl-C there is for the node, which then drains its workers.
            options["start_new_session"] = True
        # -P: the working directory is not put before everything else on the import path.
        return subprocess.Popen(
            [self._executable, "-P", "-m", "relaymesh.agents.host", *map(str, numbers)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._whole_environment(),
            **options,
        )

    def _whole_environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES}
        environment = {**inherited, **self._environment, MARK_VARIABLE: self._mark}
        ours = str(Path(__file__).parents[2])
        former = environment.get("PYTHONPATH")
        # Only until the host has read its import path; it puts the former value back for what it starts.
        environment["PYTHONPATH"] = ours if former is None else ours + os.pathsep + former
        return environment

    def _thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, name=f"worker-{self.pid}-{name}", daemon=True)
        thread.start()
        return thread

    def _emit(self, message: Message) -> None:
        try:
            self._on_event(message)
        except Exception:  # nobody supervises it any more: an actor that has ended, say
            self._outbox.put(None)

    def _read(self, reports: FrameReader) -> None:
        with contextlib.closing(reports):
            try:
                while (message := reports.read()) is not None:
                    self._emit(message)
                self._thread("silent", self._end_silent)
            except MessageError as error:
                self._emit(WorkerOutput(self.pid, f"killed, because it wrote what is no message: {error}"))
                self._thread("kill", self.kill)

    def _end_silent(self) -> None:
        """Kill a worker that lives on without its pipe: an agent has closed it, and no result can come any more."""
        if not self._exited.wait(_SILENT_MAX_S) and self.alive:
            self._emit(WorkerOutput(self.pid, "killed, because an agent has closed the pipe on which it reports"))
            self.kill()

    def _write(self, fd: int) -> None:
        try:
            while (message := self._outbox.get()) is not None:
                write_message(fd, message)
        except OSError:
            pass  # it has ended, and the waiter says so
        finally:
            os.close(fd)  # which ends the worker, if it still runs

    def _listen(self) -> None:
        assert self._child is not None and self._child.stdout is not None
        limiter = _OutputLimiter(lambda line: self._emit(WorkerOutput(self.pid, line)))
        splitter = LineSplitter(limiter.take)
        with self._child.stdout as pipe:
            while chunk := os.read(pipe.fileno(), 64 * 1024):
                splitter.feed(chunk)
        splitter.end()
        limiter.end()

    def _wait(self, reader: threading.Thread, listener: threading.Thread) -> None:
        child = self._child
        assert child is not None
        wait_unreaped(child)
        # From here on nobody signals the pid: it is free for others as soon as it is collected.
        self._ended = True
        status = child.wait()
        self._outbox.put(None)
        if status != 0:
            # It was killed, or crashed: what it started may live on, and hold the pipes open.
            kill_marked(self._mark)
        reader.join(_DRAIN_WITHIN_S)
        listener.join(_DRAIN_WITHIN_S)
        self._status = status
        self._exited.set()
        running_row_id = self._running.read()
        self._running.close()
        self._emit(WorkerExited(child.pid, status, running_row_id))


class _OutputLimiter:
    """Passes on so many lines in a time window, and then how many it dropped."""

    def __init__(self, sink: Callable[[str], None]) -> None:
        self._sink = sink
        self._until = 0.0
        self._passed = 0
        self._dropped = 0

    def take(self, line: str) -> None:
        now = time.monotonic()
        if now >= self._until:
            self.end()
            self._until, self._passed = now + _OUTPUT_WINDOW_S, 0
        if self._passed < OUTPUT_LINES_MAX:
            self._passed += 1
            self._sink(line)
        else:
            self._dropped += 1

    def end(self) -> None:
        if self._dropped:
            self._sink(f"{counted(self._dropped, 'more line')} {verb(self._dropped, 'was', 'were')} dropped")
            self._dropped = 0


def _parts(message: Message) -> Iterator[Message]:
    """Split what could be larger than a frame may be; every single order fits."""
    if not isinstance(message, RunSteps):
        yield message
        return
    part: list[StepOrder] = []
    chars = 0
    for order in message.orders:
        if part and chars + len(order.payload) > _ORDER_CHARS_MAX:
            yield RunSteps(tuple(part))
            part, chars = [], 0
        part.append(order)
        chars += len(order.payload)
    if part:
        yield RunSteps(tuple(part))
