"""What ``relaymesh worker`` prints while its node runs.

    the node's threads ──(bounded, they never wait)──▶ Printer ──▶ its own thread ──▶ stdout

Each cycle of ``--interval-ms`` begins with a SettingsReloadOutcome if settings were changed, and a MaintenanceOutcome;
then comes a WorkerOutcome for each attempt that ended, a moment after it did; a cycle without any ends with one that
says so. A person gets the attempts only, changes of settings, and rounds of maintenance that changed something.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from relaymesh.cli.call import Call
from relaymesh.core.plural import counted, verb
from relaymesh.errors import RelayMeshError
from relaymesh.node_view import MaintenanceOutcome, WorkerOutcome
from relaymesh.once import idle, outcomes
from relaymesh.rule_view import SettingsReloadOutcome
from relaymesh.view import View

if TYPE_CHECKING:
    from relaymesh.client import Client
    from relaymesh.node import RunningNode

__all__ = ["WAITING_MAX", "Printer"]

WAITING_MAX = 65_536
"""Attempts that have ended and are not printed yet. More are left out and counted: the node waits for no reader."""
_BATCH_MAX = 512
"""Attempts that are looked up with one query."""
_RELOADS_MAX = 16
"""Changes of settings that wait for a slow reader; of more, the oldest are left out."""
# How long ended attempts collect: a query for each commit would take the interpreter from the node.
_COLLECT_S = 0.05
# At the end, what a reader that stands still may cost.
_CLOSE_S = 5.0


class Printer:
    """Prints what a node does, as its listener: give it to ``NodeOptions``, ``begin``, and ``finish`` at the end."""

    def __init__(self, call: Call, *, interval_s: float, maintenance: bool) -> None:
        self._call = call
        self._interval_s = interval_s
        self._maintenance = maintenance
        self._waiting: deque[tuple[int, int]] = deque()
        # Counted by the node's thread alone; how many of them were told is the printing thread's own.
        self._left_out = self._told = self._in_hand = 0
        self._reloads: deque[SettingsReloadOutcome] = deque(maxlen=_RELOADS_MAX)
        self._done: dict[str, int] = {}
        self._done_lock = threading.Lock()
        self._news = threading.Event()
        self._ending = threading.Event()
        self._hurry = threading.Event()
        self._error: BaseException | None = None
        self._read_failed = False
        self._thread = threading.Thread(target=self._run, name="printer", daemon=True)

    # In the node's threads: at once, whatever the reader does.

    def committed(self, leases: Sequence[tuple[int, int]]) -> None:
        room = max(0, WAITING_MAX - len(self._waiting))
        self._waiting.extend(leases[:room])
        self._left_out += max(0, len(leases) - room)
        if not self._news.is_set():
            self._news.set()

    def maintained(self, done: MaintenanceOutcome) -> None:
        with self._done_lock:  # held for a few additions only, here and there
            for name in done.__struct_fields__:
                if name != "node_id":
                    self._done[name] = self._done.get(name, 0) + getattr(done, name)

    def reloaded(self, outcome: SettingsReloadOutcome) -> None:
        if outcome.changed:
            self._reloads.append(outcome)

    # In the command's thread.

    def begin(self, node: RunningNode) -> None:
        """Start to print; when that is not possible any more, the node is drained."""
        self._node = node
        self._thread.start()

    def finish(self, status: int) -> None:
        """Print what is left, now that the node has ended.

        Raises:
            BaseException: what ended the printing; a reader that has gone is an OSError, as with other commands.
        """
        self._ending.set()
        self._news.set()
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            self._hurry.set()
            self._thread.join(_COLLECT_S)
        if self._error is not None:
            raise self._error
        stands_still = self._thread.is_alive()
        # How much of a batch that stands in a write has reached the reader, nobody knows.
        in_hand = self._in_hand if stands_still else 0
        self._left_out += len(self._waiting) + in_hand
        self._say_left_out(in_hand)
        if stands_still:
            # It stands in a write to a full pipe, and the interpreter would wait for its lock.
            os._exit(status)

    # In the printing thread.

    def _run(self) -> None:
        try:
            with contextlib.ExitStack() as stack:
                self._stack = stack
                self._client: Client | None = None
                while not self._ending.is_set():
                    self._cycle()
                if self._maintenance and self._done:
                    self._print_maintenance()
                while self._waiting and not self._hurry.is_set() and self._print_batch():
                    continue
        except BaseException as error:
            self._error = error
            self._node.drain()

    def _cycle(self) -> None:
        until = time.monotonic() + self._interval_s
        while self._reloads:
            self._print([self._reloads.popleft()])
        if self._maintenance:
            self._print_maintenance()
        printed = 0
        while not self._ending.is_set() and (left_s := until - time.monotonic()) > 0:
            if not self._news.wait(left_s):
                break
            if len(self._waiting) < _BATCH_MAX:
                self._ending.wait(min(_COLLECT_S, left_s))
            printed += self._print_batch()
            if self._read_failed:
                self._ending.wait(max(0.0, until - time.monotonic()))
        self._say_left_out()
        if not printed and not self._waiting and not self._ending.is_set() and not self._call.tables:
            paused = self._node.paused_reason
            self._print([idle(f"paused: {paused}" if paused else "no attempt ended in this time")])

    def _print_batch(self) -> int:
        """Print the attempts that have waited longest; return how many, 0 also when they could not be read."""
        self._news.clear()
        batch = [self._waiting.popleft() for _ in range(min(_BATCH_MAX, len(self._waiting)))]
        if not batch:
            return 0
        try:
            if self._client is None:
                self._client = self._stack.enter_context(self._call.client())
            ended = outcomes(self._client.query, batch)
        except RelayMeshError as error:
            if not self._read_failed:
                attempts = counted(len(batch), "attempt")
                _say(f"what became of {attempts} cannot be read ({error.code}), trying again: {error}")
            self._read_failed = True
            self._waiting.extendleft(reversed(batch))
            self._news.set()
            return 0
        self._read_failed = False
        self._in_hand = len(batch)
        self._print(ended)
        self._in_hand = 0
        if self._waiting:
            self._news.set()
        return len(batch)

    def _print_maintenance(self) -> None:
        with self._done_lock:
            done, self._done = self._done, {}
        report = bool(done.pop("lease_report_generated", 0))
        if any(done.values()) or report or not self._call.tables:
            self._print([MaintenanceOutcome(node_id=self._node.node_id, lease_report_generated=report, **done)])

    def _print(self, items: Sequence[View]) -> None:
        """Print with one write, which ``click.echo`` flushes."""
        if self._call.tables:
            click.echo("\n".join(map(_line, items)))
        else:
            click.echo(b"\n".join(map(msgspec.json.encode, items)))

    def _say_left_out(self, in_hand: int = 0) -> None:
        count = self._left_out - self._told
        if count:
            self._told += count
            part = f", of which up to {in_hand} may have been" if in_hand else ""
            ended = f"{counted(count, 'attempt')} ended and {verb(count, 'is', 'are')} not printed{part}"
            _say(f"{ended}: the reader of this output is slower than the node")


def _line(item: View) -> str:
    """One line for a person."""
    from relaymesh.cli.table import printable

    if isinstance(item, WorkerOutcome):
        return printable(f"{time.strftime('%H:%M:%S')}  {item.task_id or '-'}  {item.message}")
    if isinstance(item, SettingsReloadOutcome):
        return f"{time.strftime('%H:%M:%S')}  settings changed: {', '.join(item.changed_fields)}"
    counts = ((name.replace("_", " "), getattr(item, name)) for name in item.__struct_fields__ if name != "node_id")
    return (
        f"{time.strftime('%H:%M:%S')}  maintenance: {', '.join(f'{name} {count}' for name, count in counts if count)}"
    )


def _say(sentence: str) -> None:
    with contextlib.suppress(OSError):
        click.echo(f"relaymesh worker: {sentence}", err=True)
