"""The worker process: runs steps one after the other, away from the node.

    reader thread   orders from the node into the queue; takes back, cancels, stops; the end of the pipe ends everything
    main thread     runs the step at the head of the queue, then the next
    pulse thread    what is due while a step runs: finished reports, StepStarted, heartbeats, the timeout

Reports go out together: when the queue is empty, when there are many, and at the latest a few milliseconds after they
were made. ``StepStarted`` is only sent for a step that has been running for ``STARTED_AFTER_MS``. Which step runs right
now stands in shared memory (``running_mark``), for the node to read when this process is gone.

Who ends a step that takes too long:

    timeout     here: the agent's ``cancelled`` is set, a coroutine is cancelled, a script gets SIGTERM
    + grace     here: a script and all that it started is killed
    + a second  the node kills this process and all below it (``process.KILL_MARGIN_MS``): code that does not stop

The node dies: its end of the pipe closes, everything below this process is killed, and it exits at once. Code that
holds the interpreter lock keeps the reader from seeing that; such a process ends at its step's timeout and grace time.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from relaymesh.agents.capture import capture_prints, route_logging
from relaymesh.agents.context import Attempt
from relaymesh.agents.execute import report_of, run_attempt, spent_message, with_spending
from relaymesh.agents.leftover import end_leftovers, watch_for_children
from relaymesh.agents.memory import Memory
from relaymesh.agents.module import AgentFileFinder
from relaymesh.agents.pipe import FrameReader, import_fd, write_message
from relaymesh.agents.process_tree import (
    adopt_orphans,
    descendants,
    kill_descendants,
    reap_adopted,
    wake_when_parent_dies,
)
from relaymesh.agents.pulse import Pulse
from relaymesh.agents.python import CoroutineLoop, one_line
from relaymesh.agents.registry import Registry, load_registry
from relaymesh.agents.running_mark import RunningMark
from relaymesh.agents.spec import AgentSpec, Kind
from relaymesh.agents.windows_job import end_with_this_process
from relaymesh.core.budget import BUDGET_EXHAUSTED
from relaymesh.core.outcome import Failed, Outcome
from relaymesh.errors import MessageError, RelayMeshError
from relaymesh.wire.work import (
    STARTED_AFTER_MS,
    CancelStep,
    CutStep,
    RevokeSteps,
    RunSteps,
    StartWorker,
    StepOrder,
    StepProgress,
    StepReport,
    StepReports,
    StepsRevoked,
    StepStarted,
    StopWorker,
    WorkerReady,
    WorkerRefused,
    WorkerRetiring,
)

if TYPE_CHECKING:
    from relaymesh.agents.process_ref import Process
    from relaymesh.wire.codec import Message

__all__ = ["REPORTS_MAX", "Host", "main"]

REPORTS_MAX: Final = 256
_REPORT_CHARS_MAX: Final = 4 * 1024 * 1024
_TICK_NS: Final = 5_000_000
_STARTED_AFTER_NS: Final = STARTED_AFTER_MS * 1_000_000
_REAP_EVERY_NS: Final = 5_000_000_000
_MEMORY_EVERY_STEPS: Final = 256
# Starting a process takes longer than this; asking the kernel whether there is one takes a good part of it.
_FORK_NS_MIN: Final = 50_000
_EXIT_WITHIN_S: Final = 2.0

EXIT_NODE_GONE: Final = 70
EXIT_BAD_MESSAGE: Final = 76


class Host:
    """One worker process. All state that threads share is guarded by ``_lock``, which also guards the pipe."""

    def __init__(
        self,
        registry: Registry,
        orders: FrameReader,
        reports_fd: int,
        running: RunningMark,
        spare: tuple[Process, ...],
    ) -> None:
        self._registry = registry
        self._orders = orders
        self._reports_fd = reports_fd
        self._running = running
        self._spare = spare
        self._pid = os.getpid()
        self._directory = _directory()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._queue: deque[StepOrder] = deque()
        self._current: Attempt | None = None
        self._finished: list[StepReport] = []
        self._finished_chars = 0
        self._stopping = False
        self._retiring = False
        self._steps = 0
        self._reap_at_ns = 0
        self._loop = CoroutineLoop()
        self._memory = Memory()
        self._pulse = Pulse(self._tick, name="pulse")
        self._captures = capture_prints(self.current)

    def current(self) -> Attempt | None:
        """Return the attempt that runs."""
        return self._current

    def run(self) -> None:
        """Run steps until the node says stop; the end of the pipe ends the process from inside."""
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        self._pulse.start()
        while (attempt := self._next()) is not None:
            if self._pulse.asleep:
                self._pulse.poke()
            spec = self._registry.get(attempt.order.agent_id)
            outcome = _unknown(attempt.order) if spec is None else self._run_one(spec, attempt)
            now_ms = time.time_ns() // 1_000_000
            report = report_of(attempt.order, outcome, attempt.log_lines(), attempt.started_at_ms, now_ms)
            if attempt.meter is not None:
                report = with_spending(report, attempt)
            self._finish(report, attempt)
            if spec is not None:
                self._retire_if_due(spec, attempt)
        self._pulse.stop()
        self._loop.close()

    def _run_one(self, spec: AgentSpec, attempt: Attempt) -> Outcome:
        attempt.grace_ms = spec.grace_ms
        if attempt.meter is not None:
            attempt.meter.measure_cpu()
        outcome = run_attempt(spec, attempt, self._loop, self._spare)
        if os.getpid() != self._pid:
            os._exit(1)  # an agent forked, and its child came back out of the agent: it is no worker
        for capture in self._captures:
            capture.end_line()
        if spec.kind is Kind.PYTHON and _directory() != self._directory:
            self._go_back()
        # A script has done it, before its output was drained. A quick step cannot have started a process.
        if spec.kind is not Kind.SCRIPT and time.monotonic_ns() - attempt.started_at_ns > _FORK_NS_MIN:
            end_leftovers(attempt, self._spare)
        return outcome

    def _go_back(self) -> None:
        """Leave the directory that an agent went to: the next step of this process may be of another agent."""
        with contextlib.suppress(OSError):
            os.chdir(self._directory)

    def _next(self) -> Attempt | None:
        """Wait for an order and make it the current attempt; None is the end."""
        with self._lock:
            while not self._queue:
                self._flush()
                if self._stopping:
                    return None
                self._changed.wait()
            order = self._queue.popleft()
            self._running.set(order.row_id)
            self._current = Attempt(order, on_progress=self._send_progress, on_spent=self._send_spent)
            return self._current

    def _finish(self, report: StepReport, attempt: Attempt) -> None:
        if attempt.announced:
            faulthandler.cancel_dump_traceback_later()
        with self._lock:
            self._running.clear()
            self._current = None
            self._finished.append(report)
            self._finished_chars += len(report.output)
            if len(self._finished) >= REPORTS_MAX or self._finished_chars > _REPORT_CHARS_MAX:
                self._flush()

    def _flush(self) -> None:
        if self._finished:
            reports, self._finished, self._finished_chars = tuple(self._finished), [], 0
            self._send(StepReports(reports))

    def _send(self, message: Message) -> None:
        with contextlib.suppress(OSError):  # the node is gone; the reader sees it too and ends the process
            write_message(self._reports_fd, message)

    def _send_progress(self, attempt: Attempt, text: str) -> None:
        with self._lock:
            if attempt is self._current:
                self._send(StepProgress(attempt.order.row_id, attempt.order.lease_token, text))

    def _send_spent(self, attempt: Attempt, spent: Mapping[str, int]) -> None:
        if attempt.overspent is not None:
            self._pulse.poke()  # its grace time counts from now
        with self._lock:
            if attempt is self._current:
                self._send(spent_message(attempt, spent))

    def _tick(self, now_ns: int) -> int | None:
        with self._lock:
            attempt = self._current
            if attempt is None:
                return None  # the main thread sends what is finished itself before it waits
            self._flush()
            if not attempt.announced and now_ns - attempt.started_at_ns >= _STARTED_AFTER_NS:
                attempt.announced = True
                self._send(StepStarted(attempt.order.row_id, attempt.order.lease_token))
                self._limit_if_locked_up(attempt)
        due_ns = attempt.pulse(now_ns)
        return min(due_ns, self._reap(attempt, now_ns)) if attempt.announced else now_ns + _TICK_NS

    def _limit_if_locked_up(self, attempt: Attempt) -> None:
        """See to it that code which never gives up the interpreter lock cannot outlive a node that is gone."""
        limit_s = (attempt.order.timeout_ms + attempt.grace_ms) / 1000 + 10
        faulthandler.dump_traceback_later(min(limit_s, 1e6), exit=True)

    def _reap(self, attempt: Attempt, now_ns: int) -> int:
        """Collect what a script's descendants left to us, now and then; Python agents wait for children themselves."""
        spec = self._registry.get(attempt.order.agent_id)
        if spec is None or spec.kind is not Kind.SCRIPT:
            return attempt.deadline_ns
        if now_ns >= self._reap_at_ns:
            reap_adopted(unreaped=attempt.waited_for)
            self._reap_at_ns = now_ns + _REAP_EVERY_NS
        return self._reap_at_ns

    def _retire_if_due(self, spec: AgentSpec, attempt: Attempt) -> None:
        self._steps += 1
        reason = ""
        if spec.recycle_after_steps is not None and self._steps >= spec.recycle_after_steps:
            reason = "steps"
        elif spec.recycle_above_mib is not None and (attempt.announced or self._steps % _MEMORY_EVERY_STEPS == 0):
            reason = "memory" if self._memory.resident_mib() > spec.recycle_above_mib else ""
        if reason:
            with self._lock:
                if not self._retiring:
                    self._retiring = True
                    self._flush()
                    self._send(WorkerRetiring(os.getpid(), reason, tuple(order.row_id for order in self._queue)))
                    self._queue.clear()

    def _read(self) -> None:
        while True:
            try:
                message = self._orders.read()
            except MessageError as error:
                os.write(2, f"worker {os.getpid()}: {error}\n".encode())
                _end(EXIT_BAD_MESSAGE)
            match message:
                case None:
                    _end(EXIT_NODE_GONE)
                case RunSteps(orders):
                    self._take(orders)
                case CancelStep(row_id, lease_token, reason):
                    self._cancel(row_id, lease_token, reason)
                case CutStep(row_id, lease_token, why, retryable):
                    self._cut(row_id, lease_token, Failed(BUDGET_EXHAUSTED, why, retryable))
                case RevokeSteps(row_ids):
                    self._revoke(row_ids)
                case StopWorker():
                    self._stop()
                case _:
                    os.write(2, f"worker {os.getpid()}: not for a worker: {type(message).__name__}\n".encode())

    def _take(self, orders: tuple[StepOrder, ...]) -> None:
        with self._lock:
            if self._stopping or self._retiring:
                self._send(StepsRevoked(tuple(order.row_id for order in orders)))
                return
            self._queue.extend(orders)
            self._changed.notify()

    def _cancel(self, row_id: int, lease_token: str, reason: str) -> None:
        with self._lock:
            attempt = self._current
            running = attempt is not None and _is(attempt.order, row_id, lease_token)
            if not running and any(_is(order, row_id, lease_token) for order in self._queue):
                self._queue = deque(order for order in self._queue if not _is(order, row_id, lease_token))
                self._send(StepsRevoked((row_id,)))
        if running and attempt is not None:
            attempt.cancel(reason)
            self._pulse.poke()  # its grace time counts from now

    def _cut(self, row_id: int, lease_token: str, failed: Failed) -> None:
        """End the attempt if it still runs: one that ended meanwhile is reported, with what it has spent."""
        with self._lock:
            attempt = self._current
            running = attempt is not None and _is(attempt.order, row_id, lease_token)
        if running and attempt is not None:
            attempt.cut(failed)
            self._pulse.poke()

    def _revoke(self, row_ids: tuple[int, ...]) -> None:
        wanted = set(row_ids)
        with self._lock:
            revoked = tuple(order.row_id for order in self._queue if order.row_id in wanted)
            if revoked:
                self._queue = deque(order for order in self._queue if order.row_id not in wanted)
            self._send(StepsRevoked(revoked))

    def _stop(self) -> None:
        with self._lock:
            self._stopping = True
            if self._queue:
                self._send(StepsRevoked(tuple(order.row_id for order in self._queue)))
                self._queue.clear()
            self._changed.notify()


def main() -> None:
    """``python -m relaymesh.agents.host ORDERS REPORTS MARK``: the numbers of what it inherited."""
    orders_number, reports_number, mark_number = map(int, sys.argv[1:])
    orders = FrameReader(import_fd(orders_number, os.O_RDONLY))
    reports_fd = import_fd(reports_number, os.O_WRONLY)
    mark_fd = import_fd(mark_number, os.O_RDWR)
    running = RunningMark(mark_fd)
    os.close(mark_fd)
    _restore_import_path()
    _ignore_signals()
    faulthandler.enable()
    wake_when_parent_dies()
    if not adopt_orphans():
        end_with_this_process()
    start = orders.read()
    if start is None:
        return
    assert isinstance(start, StartWorker), type(start)
    sys.path[:] = start.sys_path
    try:
        registry = load_registry(Path(start.root), start.sources)
    except RelayMeshError as error:
        write_message(reports_fd, WorkerRefused(os.getpid(), str(error)))
        sys.exit(error.exit_status)
    # What modules start when they are imported belongs to the worker and not to an attempt.
    spare = tuple(descendants(os.getpid()))
    watch_for_children()
    host = Host(registry, orders, reports_fd, running, spare)
    route_logging(host.current)
    write_message(reports_fd, WorkerReady(os.getpid(), tuple(sorted(registry.specs))))
    host.run()
    kill_descendants(os.getpid())
    _exit_soon()


def _restore_import_path() -> None:
    """Undo what the node did so that this module is found: programs that agents start get what the node had."""
    _, _, former = os.environ.pop("PYTHONPATH", "").partition(os.pathsep)
    if former:
        os.environ["PYTHONPATH"] = former


def _directory() -> str:
    """Return the working directory, "" when it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def _unknown(order: StepOrder) -> Failed:
    return Failed("unknown_agent", one_line(f"this worker has no agent {order.agent_id!r}"))


def _is(order: StepOrder, row_id: int, lease_token: str) -> bool:
    return order.row_id == row_id and order.lease_token == lease_token


def _ignore_signals() -> None:
    """The node decides when a worker ends: a Ctrl-C, or a stop of a whole service, reaches it first and it drains.

    A handler that does nothing, not SIG_IGN: that would be handed down to scripts, which could then not be stopped.
    """
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    for number in numbers:
        signal.signal(number, _do_nothing)
    if sys.platform != "win32":

        def restore() -> None:
            for number in numbers:
                signal.signal(number, signal.SIG_DFL)

        os.register_at_fork(after_in_child=restore)


def _do_nothing(*_: object) -> None:
    pass


def _end(status: int) -> NoReturn:
    """End everything below this process, and then it, without waiting for anything."""
    kill_descendants(os.getpid())
    os._exit(status)


def _exit_soon() -> None:
    """Let the interpreter end in its own way, unless threads of an agent keep it from doing so."""

    def give_up() -> None:
        time.sleep(_EXIT_WITHIN_S)
        os._exit(0)

    threading.Thread(target=give_up, daemon=True).start()


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":
    # In a process that an agent started with multiprocessing, which imports this before it is told what to run.
    sys.meta_path.append(AgentFileFinder())
