"""The thread that asks: one client, one job at a time, so that no slow query ever holds the screen.

Three jobs at most wait or run, because the rules ask for one query, one look and one action at a time. The thread is a
daemon: a disk that does not answer keeps nobody from leaving. What is looked at more slowly has one of its own
(``checker``).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING

from relaymesh.checks import with_checks
from relaymesh.console.board import board_of, paused_of, rows_of, sample_of, standings_of, task_lines
from relaymesh.console.checker import Checker
from relaymesh.core.console_event import Act, Acted, Action, Event, Failed, Look, Query, Seen, Told, Verb
from relaymesh.core.console_news import News
from relaymesh.core.printable import printable
from relaymesh.errors import RelayMeshError
from relaymesh.store.root import DATABASE

if TYPE_CHECKING:
    from relaymesh.client import Client

__all__ = ["Asker"]

Job = Query | Look | Act
_REASON = "from the status console"
_JOIN_S = 0.5


class Asker:
    """open_client: makes the client, in the thread. notify: called from the thread when ``take`` has something."""

    def __init__(self, open_client: Callable[[], Client], notify: Callable[[], None]) -> None:
        self._open_client = open_client
        self._notify = notify
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._answers: deque[Event] = deque()
        self._lock = threading.Lock()  # around what runs, so that an interrupt never hits an action
        self._running: Job | None = None
        self._interrupted = False
        self._client: Client | None = None
        self._news = News()
        self._checker = Checker()
        self._file: tuple[int, int] | None = None
        self.errors: dict[int, BaseException] = {}
        """The error of the last query that failed, by its version."""
        self._thread = threading.Thread(target=self._work, name="console", daemon=True)
        self._thread.start()

    def put(self, job: Job) -> None:
        """Take a job; its answer comes by ``take``."""
        self._jobs.put(job)

    def interrupt(self, version: int) -> None:
        """Break the query of this version off, if it is what runs."""
        with self._lock:
            if isinstance(self._running, Query) and self._running.version == version and self._client is not None:
                # While the root is being opened nothing can be broken off, and what fails then has a cause of its own.
                self._interrupted = self._client.interrupt() or self._interrupted

    def take(self) -> list[Event]:
        """Return the answers that have come."""
        found = []
        while self._answers:
            found.append(self._answers.popleft())
        return found

    def close(self) -> None:
        """End the thread; one that is still held up by the disk is left behind."""
        with self._lock:
            if isinstance(self._running, Query) and self._client is not None:
                self._client.interrupt()
        self._checker.close()
        self._jobs.put(None)
        self._thread.join(_JOIN_S)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            with self._lock:
                self._running, self._interrupted = job, False
            answer = self._answer(job)
            with self._lock:
                self._running = None
            self._answers.append(answer)
            self._notify()
        if self._client is not None:
            self._client.close()

    def _answer(self, job: Job) -> Event:
        try:
            client = self._current()
            match job:
                case Query(version):
                    return self._seen(client, version)
                case Look(version, task_id):
                    return Told(version, _look(client, task_id))
                case Act(action):
                    return _act(client, action)
        except Exception as error:
            # The home of what goes wrong in this thread: it becomes an answer, and the screen shows it.
            return self._failed(job, error)

    def _current(self) -> Client:
        """Return the client, on the file that is there now: an import puts another one in its place."""
        if self._client is None:
            self._client = self._open_client()
        try:
            facts = os.stat(self._client.root / DATABASE)
            file = (facts.st_dev, facts.st_ino)
        except OSError:
            file = None
        if file != self._file:
            self._client.close()
            self._file = file
            self._news = News()  # of the nodes of another root
            self._checker.forget()
        return self._client

    def _seen(self, client: Client, version: int) -> Seen:
        status = with_checks(client.status(), self._checker.latest(client.checks))
        whole = status.members_total == len(status.members)
        news = self._news.take(status.checked_at_ms, standings_of(status), whole=whole)
        return Seen(
            version=version,
            body=board_of(status, news),
            rows=rows_of(status, news),
            sample=sample_of(status, time.monotonic_ns()),
            paused=paused_of(status),
        )

    def _failed(self, job: Job, error: Exception) -> Event:
        expected = isinstance(error, RelayMeshError)
        sentence = printable(str(error) if expected else f"{type(error).__name__}: {error}")
        match job:
            case Query(version) if self._interrupted:
                return Failed(version, "the store did not answer in time")
            case Query(version):
                self.errors = {version: error}
                if self._client is not None:
                    with contextlib.suppress(Exception):  # opened anew next time, whatever was wrong with it
                        self._client.close()
                return Failed(version, sentence, hopeless=True)
            case Look(version):
                return Told(version, (sentence,))
            case Act(action):
                return Acted(f"{action.verb.value} failed: {sentence}", done=False)


def _look(client: Client, task_id: str) -> tuple[str, ...]:
    return task_lines(client.task(task_id), client.workflow(task_id), client.explain(task_id))


def _act(client: Client, action: Action) -> Acted:
    target = printable(action.target)
    match action.verb:
        case Verb.CANCEL:
            cancelled = client.cancel(action.target, reason=f"cancelled {_REASON}")
            if cancelled.cancelled:
                return Acted(f"cancelled {target}", done=True)
            return Acted(f"{target} was not cancelled: {printable(cancelled.message)}", done=False)
        case Verb.REPLAY:
            replayed = client.replay(action.target)
            if replayed.replayed:
                return Acted(f"replayed {target}: its dead steps run again", done=True)
            return Acted(f"{target} was not replayed: {printable(replayed.message)}", done=False)
        case Verb.PAUSE:
            paused = client.pause_queue(priority=action.target or None, reason=_REASON)
            return Acted(f"{target or 'the queue'}: {paused.message.replace('_', ' ')}", done=paused.changed)
        case Verb.RESUME:
            resumed = client.resume_queue(priority=action.target or None)
            return Acted(f"{target or 'the queue'}: {resumed.message.replace('_', ' ')}", done=resumed.changed)
