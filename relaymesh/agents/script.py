"""Running a script agent: one child process per attempt.

The payload goes to its stdin, its stdout is the output, its stderr is the attempt's log. What it started and left
behind is ended with it. On stderr it may also talk to RelayMesh, in lines of their own:

    ::relaymesh progress 40%      a heartbeat
    ::relaymesh snooze 5          run the step again in 5 seconds, if the script ends with exit code 0
    ::relaymesh no-retry          do not run the step again, if the script fails
    ::relaymesh spend tokens=1200 usd=0.02     what it has spent since it last said so

    timeout or cancel ──▶ SIGTERM to its process group ──▶ after the grace time: everything below this worker is killed
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Collection
from typing import IO, Any, Final

from relaymesh.agents.context import PROGRESS_CHARS_MAX, SNOOZE_MS_MAX, Attempt
from relaymesh.agents.leftover import end_leftovers
from relaymesh.agents.log import LineSplitter
from relaymesh.agents.process_ref import Process
from relaymesh.agents.process_tree import kill_descendants, wait_unreaped
from relaymesh.agents.python import ERROR_CHARS_MAX, cancelled_outcome, one_line, output_too_large
from relaymesh.agents.spec import ScriptTarget
from relaymesh.agents.trace import child_traceparent, span_id_of
from relaymesh.core.limit import PAYLOAD_BYTES_MAX
from relaymesh.core.outcome import Failed, Outcome, Snoozed, Succeeded
from relaymesh.wire.work import StepOrder

__all__ = ["PROTOCOL_PREFIX", "run_script", "script_environment"]

PROTOCOL_PREFIX: Final = "::relaymesh "
_PROTOCOL_BYTES: Final = PROTOCOL_PREFIX.encode()

# A pipe takes at least this much at once on every platform, so writing it cannot block.
_STDIN_AT_ONCE: Final = 4_096
_DRAIN_WITHIN_S: Final = 2.0


def run_script(target: ScriptTarget, attempt: Attempt, spare: Collection[Process] = ()) -> Outcome:
    """Run the command once. Only for worker processes: everything below this process is ended with the attempt.

    spare: processes that were there before any attempt.
    """
    payload = attempt.order.payload.encode("utf-8")
    try:
        child = subprocess.Popen(
            target.command,
            stdin=subprocess.PIPE if payload else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **script_environment(attempt.order, attempt.started_at_ms)},
            **_new_group(),
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Failed("cannot_start", one_line(f"cannot start {target.command[0]!r}: {reason}"))
    return _Run(child, attempt, spare).finish(payload)


def script_environment(order: StepOrder, started_at_ms: int) -> dict[str, str]:
    """Return the variables that a script is given on top of those that it inherits."""
    span_id = span_id_of(order.lease_token)
    return {
        "RELAYMESH_TASK_ID": order.task_id,
        "RELAYMESH_STEP_ID": order.step_id,
        "RELAYMESH_AGENT_ID": order.agent_id,
        "RELAYMESH_ATTEMPT": str(order.attempt),
        "RELAYMESH_FENCING_TOKEN": str(order.fencing_token),
        "RELAYMESH_IDEMPOTENCY_TOKEN": order.idempotency_token,
        "RELAYMESH_TRACE_ID": order.trace_id,
        "RELAYMESH_SPAN_ID": span_id,
        "RELAYMESH_DEADLINE_MS": str(started_at_ms + order.timeout_ms),
        "TRACEPARENT": child_traceparent(order.trace_id, span_id, order.traceparent),
    }


class _Run:
    """One child process, from its start to its outcome."""

    def __init__(self, child: subprocess.Popen[bytes], attempt: Attempt, spare: Collection[Process]) -> None:
        self._child = child
        self._attempt = attempt
        self._spare = spare
        self._lock = threading.Lock()
        self._ended = False
        self._output = bytearray()
        self._too_large = False
        self._errors = ""
        self._snooze_ms: int | None = None
        self._retryable = True

    def finish(self, payload: bytes) -> Outcome:
        self._attempt.waited_for = (self._child.pid,)
        self._attempt.on_grace_over = self._kill
        self._attempt.cancellation.on_set(self._terminate)
        readers = [self._thread(self._read_output), self._thread(self._read_errors)]
        if payload:
            self._feed(payload)
        wait_unreaped(self._child)
        with self._lock:
            self._ended = True  # from here on the pid may be somebody else's
        status = self._child.wait()
        self._end_what_is_left()  # before the output is drained: it holds the other end of the pipes
        for reader in readers:
            reader.join(_DRAIN_WITHIN_S)
        return self._outcome(status)

    def _outcome(self, status: int) -> Outcome:
        if self._too_large:
            return output_too_large(len(self._output))
        cancelled = cancelled_outcome(self._attempt)
        if cancelled is not None:
            return cancelled
        text = self._output.decode("utf-8", "replace")
        if status == 0:
            if self._snooze_ms is not None:
                return Snoozed(self._snooze_ms)
            text = text.strip()
            if "\ufffd" in text:
                self._attempt.log.add_ours("WARNING", "the output was not all UTF-8: what was not is now U+FFFD")
                if len(text.encode("utf-8")) > PAYLOAD_BYTES_MAX:
                    return output_too_large(len(text.encode("utf-8")))
            return Succeeded(text)
        said = " ".join(part for part in (self._errors.strip(), text[: 2 * ERROR_CHARS_MAX].strip()) if part)
        said = " ".join(said.splitlines())
        shown = said if len(said) <= ERROR_CHARS_MAX else said[:ERROR_CHARS_MAX] + "..."
        ending = f"exit code {status}" if status > 0 else f"signal {_signal_name(-status)}"
        return Failed("agent_error", f"the script ended with {ending}: {shown or 'it said nothing'}", self._retryable)

    def _feed(self, payload: bytes) -> None:
        stdin = self._child.stdin
        assert stdin is not None

        def write() -> None:
            # A child that does not read its input, or ends before it has, is none of our business.
            with contextlib.suppress(OSError, ValueError):
                stdin.write(payload)
            with contextlib.suppress(OSError, ValueError):
                stdin.close()

        if len(payload) <= _STDIN_AT_ONCE:
            write()
        else:
            self._thread(write)

    def _read_output(self) -> None:
        stdout = self._child.stdout
        assert stdout is not None
        while chunk := _read_some(stdout):
            self._output += chunk
            if len(self._output) > PAYLOAD_BYTES_MAX:
                self._too_large = True
                self._kill()
                break
        stdout.close()

    def _read_errors(self) -> None:
        stderr = self._child.stderr
        assert stderr is not None
        splitter = LineSplitter(self._take_line, skim=self._drop_flood)
        while chunk := _read_some(stderr):
            splitter.feed(chunk)
        splitter.end()
        stderr.close()

    def _drop_flood(self, lines: bytes) -> bool:
        """Count lines that neither fit into the log nor ask for anything, so that a flood does not slow the script."""
        if not self._attempt.log.full or _PROTOCOL_BYTES in lines or len(self._errors) <= ERROR_CHARS_MAX:
            return False
        self._attempt.log.drop(lines.count(b"\n"))
        return True

    def _take_line(self, line: str) -> None:
        if line.startswith(PROTOCOL_PREFIX) and self._obey(line[len(PROTOCOL_PREFIX) :].strip()):
            return
        if len(self._errors) <= ERROR_CHARS_MAX:
            self._errors += line[: ERROR_CHARS_MAX + 1] + "\n"
        self._attempt.log.add("STDERR", line)

    def _obey(self, request: str) -> bool:
        """Do what a line asks for; return False when it is nothing that we know, so that it is logged."""
        verb, _, argument = request.partition(" ")
        match verb:
            case "progress":
                self._attempt.progress(argument.strip()[:PROGRESS_CHARS_MAX])
            case "snooze":
                with contextlib.suppress(ValueError):
                    seconds = float(argument)
                    if math.isfinite(seconds) and 0 <= seconds * 1000 <= SNOOZE_MS_MAX:
                        self._snooze_ms = math.ceil(seconds * 1000)
                        return True
                return False
            case "spend":
                return self._spend(argument)
            case "no-retry" if not argument:
                self._retryable = False
            case _:
                return False
        return True

    def _spend(self, argument: str) -> bool:
        from relaymesh.core.budget_text import spent_of

        try:
            self._attempt.spend(spent_of(argument))
        except ValueError as error:
            self._attempt.log.add_ours("WARNING", f"what was spent is not counted: {error}")
            return False
        return True

    def _terminate(self) -> None:
        """Ask the script to end: its whole process group, as a terminal would."""
        with self._lock:
            if self._ended:
                return
            with contextlib.suppress(OSError):
                if sys.platform == "win32":
                    self._child.send_signal(signal.CTRL_BREAK_EVENT)
                else:
                    os.killpg(self._child.pid, signal.SIGTERM)

    def _kill(self) -> None:
        """End it and all that it started, now."""
        kill_descendants(os.getpid(), spare=self._spare, unreaped=self._attempt.waited_for)

    def _end_what_is_left(self) -> None:
        if sys.platform != "linux" and sys.platform != "win32":
            # No adoption there: what is left behind is found by its group, as long as it stayed in it.
            with contextlib.suppress(OSError):
                os.killpg(self._child.pid, signal.SIGKILL)
        end_leftovers(self._attempt, self._spare)

    def _thread(self, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, name=f"script-{work.__name__.strip('_')}", daemon=True)
        thread.start()
        return thread


def _read_some(pipe: IO[bytes]) -> bytes:
    try:
        return os.read(pipe.fileno(), 64 * 1024)
    except OSError:
        return b""


def _new_group() -> dict[str, Any]:
    """A group of its own, so that it can be asked to end, and so that Ctrl-C at the node's terminal is not for it."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    else:
        return {"start_new_session": True}


def _signal_name(number: int) -> str:
    try:
        return f"{number} ({signal.Signals(number).name})"
    except ValueError:
        return str(number)
