"""Taking in files: from the lanes to tasks in the database, and from ended tasks to answers beside the files.

    look ──▶ batch ──────────────▶ (the caller commits) ──▶ committed ──▶ deliver
             take, read, check     500 files at most         mark         answers for tasks that have ended
                  └── refused: dead, with the reason           │
                                                            uncertain: the caller does not know; looked up, tried again

What to do with which file is decided in ``relaymesh.core.inbox``, how it is done on disk stands in
``relaymesh.store.inbox_files``. A node does this in its InboxActor and commits through its StoreActor; ``take_in`` is a
round of it for commands, which commit themselves.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import msgspec

from relaymesh.core import inbox
from relaymesh.core.inbox import LANES, FolderWatch, Held, Lane, Look
from relaymesh.core.priority import Priority, normalize_priority
from relaymesh.core.workflow import check_agents, parse
from relaymesh.errors import InputError, UnknownAgentError
from relaymesh.store import read
from relaymesh.store.database import Database
from relaymesh.store.error import BadTextError
from relaymesh.store.inbox_files import Content, InboxFiles, Sight
from relaymesh.submission import new_task, new_workflow, payload_of, text_of
from relaymesh.view import TaskRequest
from relaymesh.wire.handed import BadFileError, HandedTask, HandedWorkflow, read_handed
from relaymesh.wire.store import NewTask

__all__ = [
    "BATCH_BYTES_MAX",
    "BATCH_FILES_MAX",
    "OPEN_MAX",
    "Accepted",
    "Batch",
    "Intake",
    "IntakeNeeds",
    "PriorityConflictError",
    "Refused",
]

log = logging.getLogger("relaymesh.inbox")

BATCH_FILES_MAX = 500
"""Files of one commit."""
BATCH_BYTES_MAX = 8 * 1024 * 1024
"""A batch also ends when its files reach this, so that memory stays bounded."""
OPEN_MAX = 100_000
"""Stored files of this process whose tasks are watched for their end; the others are found when half have ended."""
_LOOKUPS_MAX = 500
_LATER_MAX = 1_000
"""Files that may still be being written and are looked at again; beyond it they are refused at once."""
_TROUBLES_MAX = 10
"""Files that the disk may refuse before a round ends: it may be full, or there may be something wrong with one file."""
_AGENTS_FOR_NS = 1_000_000_000


class PriorityConflictError(InputError):
    """A file names another priority than the lane that it lies in."""

    code = "priority_conflict"

    def __init__(self, lane: str, priority: str) -> None:
        super().__init__(lane, priority)
        self.lane, self.priority = lane, priority

    def __str__(self) -> str:
        return f"the file lies in the lane {self.lane} and asks for {self.priority}: leave the priority out, or move it"


class IntakeNeeds(Protocol):
    """What taking in asks of the process around it."""

    def now_ms(self) -> int: ...
    def new_ticket(self) -> str:
        """Return a fresh task id."""
        ...

    def known_agents(self) -> Iterable[str]:
        """Return the agents that can be submitted to; may be slow, is asked once a second at most."""
        ...

    def taken_in(self, rows: Sequence[Accepted]) -> None:
        """These files are stored as tasks."""
        ...

    def refused(self, row: Refused) -> None:
        """This file went to ``dead`` unread or unstored."""
        ...


@dataclass(frozen=True, slots=True)
class Accepted:
    """A file that was stored, and what as."""

    file_name: str
    task: NewTask
    task_id: str
    deduplicated: bool
    workflow: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that was refused. kept_as: its name in ``dead``."""

    file_name: str
    kept_as: str
    lane: str | None
    code: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that was read, and the task to store for it."""

    held: Held
    task: NewTask
    workflow: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """Files to store in one commit. Each ticket is in one batch only."""

    entries: tuple[Entry, ...]

    @property
    def tasks(self) -> tuple[NewTask, ...]:
        return tuple(entry.task for entry in self.entries)


class _Ticket:
    """Gives a task the id that its file has as a ticket."""

    def __init__(self, ticket: str) -> None:
        self._ticket = ticket

    def task(self) -> str:
        return self._ticket


class Intake:
    """The files of one root, for one process. Not thread-safe. Keep it as long as the process works under its owner id.

    reads: a connection of its own to look things up with.
    """

    def __init__(self, files: InboxFiles, reads: Database, needs: IntakeNeeds) -> None:
        self._files = files
        self._reads = reads
        self._needs = needs
        self._watches = {lane: FolderWatch() for lane in LANES}
        self._seen: dict[Lane, deque[Sight]] = {lane: deque() for lane in LANES}
        self._turn: deque[Lane] = deque(LANES)
        # Files of ours that are to be looked up: now, and from an instant of the monotonic clock on.
        self._uncertain: deque[Held] = deque()
        self._later: deque[tuple[int, Held]] = deque()
        self._trouble: OSError | None = None
        # Files whose tasks are stored, longest unseen first.
        self._open: OrderedDict[str, Held] = OrderedDict()
        self._overflowed = False
        self._unseen = 0
        self._told: set[tuple[Lane, str]] = set()
        self._agents: frozenset[str] = frozenset()
        self._agents_until_ns = 0

    # -- what there is -----------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """Find the files that lie in our folder from before this start."""
        self._overflowed = False
        for file_name in self._files.held():
            self._hold(inbox.parse_held(file_name))

    def adopt(self, is_dead: Callable[[str], bool]) -> int:
        """Take over files of owners that have ended, at most a batch of each; return how many."""
        count = 0
        for owner in self._files.other_owners():
            if not is_dead(owner):
                continue
            for file_name in list(islice(self._files.held(owner), BATCH_FILES_MAX)):
                held = inbox.parse_held(file_name)
                if held is not None and self._files.adopt(owner, held):
                    count += 1
                    self._hold(held)
            self._files.drop_owner(owner)
        return count

    def _hold(self, held: Held | None) -> None:
        """Go on with a file that lies in our folder; None: a message of the runtime, or somebody's own."""
        if held is not None and held.task_id is None:
            self._uncertain.append(held)
        elif held is not None:
            self._watch(held)

    def look(self) -> bool:
        """Look for new files, at the cost of one stat a lane when nothing has changed; return whether there are any."""
        look = Look(time.time_ns(), time.monotonic_ns())
        for lane, seen in self._seen.items():
            if seen:
                continue
            changed_ns = self._files.changed_ns(lane)
            if self._watches[lane].due(changed_ns, look):
                found, whole = self._files.list_lane(lane)
                seen.extend(found)
                self._watches[lane].listed(changed_ns, look, whole=whole)
        return self.has_more(look.mono_ns)

    def has_more(self, mono_ns: int | None = None) -> bool:
        """Whether ``batch`` has something to do now."""
        if self._uncertain or any(self._seen.values()):
            return True
        return bool(self._later) and self._later[0][0] <= (time.monotonic_ns() if mono_ns is None else mono_ns)

    @property
    def troubled(self) -> bool:
        """Whether the disk has refused something since ``trouble`` was asked."""
        return self._trouble is not None

    def trouble(self) -> OSError | None:
        """Return what the disk has refused since the last call. The files concerned are tried again after a while."""
        trouble, self._trouble = self._trouble, None
        return trouble

    # -- from files to tasks -----------------------------------------------------------------------------------------

    def batch(self) -> Batch:
        """Take and read files, refuse what is wrong; return what is to be stored now, perhaps nothing.

        Raises:
            StoreError: the database or its payload files cannot be used; all files stay with us and come again.
        """
        entries: list[Entry] = []
        again = self._again()
        taken: Held | None = None
        size = tried = troubles = 0
        try:
            while tried < BATCH_FILES_MAX and size < BATCH_BYTES_MAX and troubles < _TROUBLES_MAX:
                tried += 1
                taken = None
                try:
                    if again:
                        taken = again.popleft()
                    elif (sight := self._next_sight()) is not None:
                        taken = self._take(sight)
                    else:
                        break
                    if taken is not None:
                        size += self._read(taken, entries)
                except OSError as error:
                    troubles += 1
                    self._trouble = error
        except BaseException:
            self._uncertain.extend([*(entry.held for entry in entries), *again, *([taken] if taken else ())])
            raise
        self._uncertain.extendleft(reversed(again))
        return Batch(tuple(entries))

    def _again(self) -> deque[Held]:
        """Return files of ours that are to be read, under new tickets; go on with those that need not be."""
        now_ns = time.monotonic_ns()
        while self._later and self._later[0][0] <= now_ns:
            self._uncertain.append(self._later.popleft()[1])
        some = [self._uncertain.popleft() for _ in range(min(len(self._uncertain), BATCH_FILES_MAX))]
        to_read: deque[Held] = deque()
        try:
            known = self._statuses(held.task_id or held.ticket for held in some) if some else {}
        except BaseException:
            self._uncertain.extend(some)
            raise
        for held in some:
            try:
                match inbox.next_step(held, known.get(held.task_id or held.ticket)):
                    case inbox.Submit():
                        fresh = self._with_new_ticket(held)
                        if fresh is not None:
                            to_read.append(fresh)
                    case inbox.Mark(task_id):
                        self._mark(held, task_id)
                    case inbox.Refuse(code):
                        self._refuse(held, code, _SENTENCES.get(code, _AFTER_A_CRASH))
                    case inbox.Wait() | inbox.Deliver():
                        self._watch(held)
            except OSError as error:
                self._trouble = error
        return to_read

    def _with_new_ticket(self, held: Held) -> Held | None:
        fresh = Held(self._needs.new_ticket(), held.mark, held.name)
        try:
            return fresh if self._files.remark(held, fresh) else None
        except OSError:
            self._wait_with(held)
            raise

    def _next_sight(self) -> Sight | None:
        for _ in LANES:
            seen = self._seen[self._turn[0]]
            self._turn.rotate(-1)
            if seen:
                return seen.popleft()
        return None

    def _take(self, sight: Sight) -> Held | None:
        match inbox.on_sight(sight.name, sight.kind):
            case inbox.LeaveAlone(why):
                self._tell_once(sight, why)
                return None
            case inbox.Take() as take:
                held = Held.taken(self._needs.new_ticket(), sight.lane, sight.name, take)
        try:
            taken = self._files.take(sight, held)
        except PermissionError as error:
            self._tell_once(sight, f"it cannot be moved ({error.strerror})")
            return None
        if not taken or held.refused is None:
            return held if taken else None
        self._refuse(held, held.refused, _SENTENCES[held.refused], lane=sight.lane, name=sight.name)
        return None

    def _read(self, held: Held, entries: list[Entry]) -> int:
        """Read a file and draft its task, or refuse it; return its size in bytes."""
        content = self._files.read(held, self._needs.now_ms())
        if not isinstance(content, Content):
            if content.later and len(self._later) < _LATER_MAX:
                self._wait_with(held)
            elif not content.gone:
                self._refuse(held, content.code, content.sentence)
            return 0
        try:
            entries.append(self._draft(held, content.data))
        except InputError as error:
            if isinstance(error, BadFileError) and content.unfinished and len(self._later) < _LATER_MAX:
                self._wait_with(held)
            else:
                self._refuse(held, error.code, str(error))
        return len(content.data)

    def _wait_with(self, held: Held) -> None:
        self._later.append((time.monotonic_ns() + inbox.SETTLE_MS * 1_000_000, held))

    def _draft(self, held: Held, data: bytes) -> Entry:
        lane = held.lane
        assert lane is not None
        handed = read_handed(held.name, data)
        priority = _priority_of(handed, lane)
        key = handed.idempotency_key
        key = key if key is not None and key.strip() else held.name
        _check_text(key)
        if isinstance(handed, HandedTask):
            return Entry(held, self._task(held, handed, priority, key), workflow=False)
        return Entry(held, self._workflow(held, handed, priority, key), workflow=True)

    def _task(self, held: Held, handed: HandedTask, priority: Priority, key: str) -> NewTask:
        if handed.agent not in self._known(handed.agent):
            raise UnknownAgentError(handed.agent)
        request = TaskRequest(
            agent=handed.agent,
            input=text_of(handed.input),
            priority=priority,
            idempotency_key=key,
            delay_ms=handed.delay_ms,
            at_ms=handed.at_ms,
            expires_in_ms=handed.expires_in_ms,
            labels=handed.labels,
            traceparent=handed.traceparent,
        )
        return new_task(
            request,
            payload_of(request),
            now_ms=self._needs.now_ms(),
            ids=_Ticket(held.ticket),
            files=self._reads.payloads,
        )

    def _workflow(self, held: Held, handed: HandedWorkflow, priority: Priority, key: str) -> NewTask:
        plan = parse(handed.workflow, priority=priority)
        for step in plan.steps:
            if step.agent not in self._known(step.agent):
                check_agents(plan, self._agents)
        return new_workflow(
            plan,
            now_ms=self._needs.now_ms(),
            ids=_Ticket(held.ticket),
            files=self._reads.payloads,
            idempotency_key=key,
            delay_ms=handed.delay_ms,
            at_ms=handed.at_ms,
            expires_in_ms=handed.expires_in_ms,
            labels=handed.labels,
            traceparent=handed.traceparent,
        )

    def _known(self, agent: str) -> frozenset[str]:
        """Return the known agents, asked for anew when this one is not among them and a second has passed."""
        now_ns = time.monotonic_ns()
        if agent not in self._agents and now_ns >= self._agents_until_ns:
            self._agents = frozenset(self._needs.known_agents())
            self._agents_until_ns = now_ns + _AGENTS_FOR_NS
        return self._agents

    # -- after the commit --------------------------------------------------------------------------------------------

    def committed(self, batch: Batch, results: Sequence[tuple[str, bool]]) -> None:
        """The batch is on disk; results: ``(task id, deduplicated)`` of each of its tasks."""
        rows = []
        for entry, (task_id, deduplicated) in zip(batch.entries, results, strict=True):
            self._mark(entry.held, task_id)
            rows.append(Accepted(entry.held.name, entry.task, task_id, deduplicated, entry.workflow))
        self._needs.taken_in(rows)

    def uncertain(self, batch: Batch) -> None:
        """The batch may be on disk or not: its files are looked up before anything else is done with them."""
        self._uncertain.extend(entry.held for entry in batch.entries)

    def _mark(self, held: Held, task_id: str) -> None:
        marked = Held(held.ticket, task_id, held.name)
        try:
            there = self._files.remark(held, marked)
        except OSError as error:
            log.warning("the file %s is stored, and cannot be renamed to say so: %s", held.file_name, error)
            self._wait_with(held)
            return
        if there:
            self._watch(marked)

    def _watch(self, held: Held) -> None:
        if len(self._open) >= OPEN_MAX:
            self._overflowed = True
        else:
            self._open[held.file_name] = held
            self._unseen += 1

    # -- from ended tasks to answers ---------------------------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Whether a task is watched for its end."""
        return bool(self._open)

    def changed(self) -> None:
        """Something was committed: every open file is to be looked at once more."""
        self._unseen = len(self._open)

    def deliver(self) -> bool:
        """Look at some open files, longest unseen first, and put away those whose tasks have ended.

        Returns whether there are more to look at.

        Raises:
            StoreError: the database cannot be read.
        """
        some = list(islice(self._open.values(), min(self._unseen, _LOOKUPS_MAX)))
        known = self._statuses(held.task_id or "" for held in some) if some else {}
        troubles = 0
        for held in some:
            if troubles >= _TROUBLES_MAX:
                break
            self._unseen -= 1
            try:
                ended = self._put_away(held, known.get(held.task_id or ""))
            except OSError as error:
                troubles += 1
                self._trouble = error
                ended = False
            if ended:
                del self._open[held.file_name]
            else:
                self._open.move_to_end(held.file_name)
        if self._overflowed and len(self._open) < OPEN_MAX // 2:
            self._find_the_others()
        return self._unseen > 0 and not troubles

    def _put_away(self, held: Held, status: str | None) -> bool:
        """Return whether the file needs no more watching."""
        match inbox.next_step(held, status):
            case inbox.Deliver(succeeded):
                self._deliver(held, succeeded=succeeded)
                return True
            case inbox.Refuse(code):
                self._refuse(held, code, _SENTENCES[code])
                return True
            case _:
                return False

    def _find_the_others(self) -> None:
        self._overflowed = False
        for file_name in self._files.held():
            held = inbox.parse_held(file_name)
            if held is not None and held.task_id is not None and file_name not in self._open:
                self._watch(held)

    def _deliver(self, held: Held, *, succeeded: bool) -> None:
        assert held.task_id is not None
        answer, ended_ms = self._answer(held)
        if succeeded:
            day = time.strftime("%Y-%m-%d", time.localtime(ended_ms / 1000))
            self._files.put_away(held, f"done/{day}", ".result.json", answer)
        else:
            self._files.put_away(held, "dead", ".reason.json", answer)

    def _answer(self, held: Held) -> tuple[bytes, int]:
        """Return what is written beside a file whose task has ended: the task as ``relaymesh task`` prints it."""
        assert held.task_id is not None
        beside: dict[str, object] = {
            "file": held.name,
            "ticket": held.ticket,
            "deduplicated": held.ticket != held.task_id,
        }
        with self._reads.reading():
            conn = self._reads.conn
            try:
                view = read.task_view(conn, held.task_id, self._reads.payloads.read)
            except InputError as error:
                # The task has succeeded; its outputs together are more than an answer holds.
                row = conn.execute("SELECT updated_at_ms FROM tasks WHERE task_id=?", (held.task_id,)).fetchone()
                beside |= {"taskId": held.task_id, "status": "SUCCESS", "code": error.code, "message": str(error)}
                return _json(beside), int(row[0])
        assert view is not None
        if view.status != "SUCCESS":
            beside |= {
                "code": view.status.lower(),
                "message": view.last_error or f"the task ended as {view.status}",
            }
        task = msgspec.to_builtins(view)
        return _json({**task, **beside}), view.updated_at_ms

    # -- refusing ----------------------------------------------------------------------------------------------------

    def _refuse(
        self, held: Held, code: str, sentence: str, *, lane: str | None = None, name: str | None = None
    ) -> None:
        """Put a file of ours into ``dead``, with the reason beside.

        Raises:
            OSError: the disk refused; the file is tried again after a while.
        """
        lane = lane or held.lane
        marked = held
        try:
            if held.lane is not None:
                # Now the ticket stays, so that an answer which is already there is known as that of this file.
                marked = held.refused_as(code)
                if not self._files.remark(held, marked):
                    return
        except OSError:
            self._wait_with(held)
            raise
        shown = (name or held.name).encode("utf-8", "backslashreplace").decode()
        reason = {
            "file": shown,
            "lane": lane,
            "ticket": held.ticket,
            "taskId": held.task_id,
            "code": code,
            "message": sentence,
            "refusedAtMs": self._needs.now_ms(),
        }
        try:
            kept_as = self._files.put_away(marked, "dead", ".reason.json", _json(reason))
        except OSError:
            if marked.task_id is None:  # the others are watched, and so come again
                self._wait_with(marked)
            raise
        if kept_as is not None:
            log.warning("refused the file %s of the inbox (%s): %s", shown, code, sentence)
            self._needs.refused(Refused(shown, kept_as, lane, code, sentence))

    def _tell_once(self, sight: Sight, why: str) -> None:
        if (sight.lane, sight.name) in self._told:
            return
        if len(self._told) >= _LATER_MAX:
            self._told.clear()
        self._told.add((sight.lane, sight.name))
        log.info("left %r alone in inbox/%s: %s", sight.name, sight.lane, why)

    def _statuses(self, task_ids: Iterable[str]) -> Mapping[str, str]:
        asked = msgspec.json.encode(list(task_ids)).decode()
        with self._reads.reading():
            return dict(
                self._reads.conn.execute(
                    "SELECT t.task_id, t.status FROM json_each(?) v JOIN tasks t ON t.task_id=v.value", (asked,)
                )
            )


_AFTER_A_CRASH = "the file was refused for what its code says; the process ended before it could write more"
_SENTENCES = {
    "bad_name": (
        f"the name cannot be used: write letters, digits, _ - and . only, at most {inbox.NAME_BYTES_MAX}, a letter or"
        " digit first, and not the ending of an answer"
    ),
    "not_a_file": "this is no file, but a link, a FIFO, a socket or a device: hand in a file",
    "task_gone": "its task is not in the database any more, so nobody can say what became of it: look at the audit log",
}


def _priority_of(handed: HandedTask | HandedWorkflow, lane: Lane) -> Priority:
    """Return the priority of the lane, which the file may repeat."""
    asked = handed.priority
    if asked is not None and asked.strip() and normalize_priority(asked) != LANES[lane]:
        raise PriorityConflictError(lane, normalize_priority(asked).lower())
    return LANES[lane]


def _check_text(key: str) -> None:
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise BadTextError from error


def _json(answer: Mapping[str, object]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(answer), indent=2) + b"\n"
