"""Taking in files: from the lanes to tasks in the database, and from ended tasks to answers beside the files.

    look ──▶ batch ──────────────▶ (the caller commits) ──▶ committed ──▶ deliver
             take, read, check     500 files at most         mark         answers for tasks that have ended
                  └── refused: dead, with the reason           │
                                                            uncertain: the caller does not know; looked up, tried again

What to do with which file is decided in ``relaymesh.core.inbox``, how it is done on disk stands in
``relaymesh.store.inbox_files``, and what is behind ``deliver`` in ``relaymesh.inbox.delivery``. A node does this in its
InboxActor and commits through its StoreActor; ``take_in`` is a round of it for commands, which commit themselves.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from relaymesh.audit import AuditTrail
from relaymesh.audit.event import submit_bodies
from relaymesh.core import inbox
from relaymesh.core.inbox import LANES, FolderWatch, Held, Lane, Look
from relaymesh.core.plural import counted
from relaymesh.errors import InputError, StoreError
from relaymesh.inbox.answer import (
    ACTOR,
    AFTER_A_CRASH,
    REASONS,
    Refused,
    refused_answer,
    refused_record,
)
from relaymesh.inbox.delivery import OPEN_MAX, TROUBLES_MAX, Delivery, statuses_of
from relaymesh.inbox.draft import Drafter, DraftNeeds
from relaymesh.store.database import Database
from relaymesh.store.inbox_files import Content, InboxFiles, Sight
from relaymesh.wire.handed import BadFileError
from relaymesh.wire.store import NewTask

__all__ = ["BATCH_BYTES_MAX", "BATCH_FILES_MAX", "Batch", "Gate", "Intake", "IntakeNeeds"]

log = logging.getLogger("relaymesh.inbox")

BATCH_FILES_MAX = 500
"""Files of one commit."""
BATCH_BYTES_MAX = 8 * 1024 * 1024
"""A batch also ends when its files reach this, so that memory stays bounded."""
_LATER_MAX = 1_000
"""Files that may still be being written and are looked at again; beyond it they are refused at once."""


class Gate(Protocol):
    """How many new steps may come in (``relaymesh.inbox_gate``); while it is none, files stay in their lanes."""

    def take(self, most: int, *, on_the_way: int) -> int: ...
    def settle(self, granted: int, used: int) -> None: ...


class IntakeNeeds(DraftNeeds, Protocol):
    """What taking in asks of the process around it."""

    def new_ticket(self) -> str:
        """Return a fresh task id."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that was read, and the task to store for it."""

    held: Held
    task: NewTask


@dataclass(frozen=True, slots=True)
class Batch:
    """Files to store in one commit. Each ticket is in one batch only."""

    entries: tuple[Entry, ...]

    @property
    def tasks(self) -> tuple[NewTask, ...]:
        return tuple(entry.task for entry in self.entries)

    @property
    def steps(self) -> int:
        return sum(len(entry.task.steps) for entry in self.entries)


class Intake:
    """The files of one root, for one process. Not thread-safe. Keep it as long as the process works under its owner id.

    reads: a connection of its own to look things up with. gate: None lets everything in. open_max: stored files that
    are watched.
    """

    def __init__(
        self,
        files: InboxFiles,
        reads: Database,
        needs: IntakeNeeds,
        audit: AuditTrail,
        *,
        gate: Gate | None = None,
        open_max: int = OPEN_MAX,
    ) -> None:
        self._gate = gate
        self._shut = False
        self._on_the_way = 0  # steps of batches whose commit is not known yet
        self._files = files
        self._reads = reads
        self._needs = needs
        self._audit = audit
        self._drafter = Drafter(reads.payloads, needs)
        self.stored = 0
        self._watches = {lane: FolderWatch() for lane in LANES}
        self._seen: dict[Lane, deque[Sight]] = {lane: deque() for lane in LANES}
        self._turn: deque[Lane] = deque(LANES)
        # Files of ours that are to be looked up: now, and from an instant of the monotonic clock on.
        self._uncertain: deque[Held] = deque()
        self._later: deque[tuple[int, Held]] = deque()
        self._trouble: OSError | None = None
        self._delivery = Delivery(files, reads, self._refuse, open_max)
        self._told: set[tuple[Lane, str]] = set()

    # -- what there is -----------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """Find the files that lie in our folder from before this start."""
        self._delivery.begin()
        for file_name in self._files.held():
            self._hold(inbox.parse_held(file_name))

    def adopt(self, is_dead: Callable[[str], bool]) -> int:
        """Take over files of owners that have ended, at most a batch of each; return how many."""
        count = 0
        for owner in self._files.other_owners():
            if not is_dead(owner):
                continue
            found = (inbox.parse_held(file_name) for file_name in self._files.held(owner))
            for held in list(islice(filter(None, found), BATCH_FILES_MAX)):
                if self._files.adopt(owner, held):
                    count += 1
                    self._hold(held)
            self._files.drop_owner(owner)
        return count

    def _hold(self, held: Held | None) -> None:
        """Go on with a file that lies in our folder; None: a message of the runtime, or somebody's own."""
        if held is not None and held.task_id is None:
            self._uncertain.append(held)
        elif held is not None:
            self._delivery.watch(held)

    def look(self) -> bool:
        """Look for new files, at the cost of one stat a lane when nothing has changed; return whether there are any."""
        self._shut = False  # asked again with the next batch
        look = Look(self._needs.now_ms() * 1_000_000, self._needs.mono_ns())
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
        if self._uncertain or (not self._shut and any(self._seen.values())):
            return True
        return bool(self._later) and self._later[0][0] <= (self._needs.mono_ns() if mono_ns is None else mono_ns)

    @property
    def shut(self) -> bool:
        """Whether the gate let nothing in when it was last asked, although there are files."""
        return self._shut

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
        size = tried = troubles = steps = 0
        try:
            granted = self._admitted()
        except BaseException:
            self._uncertain.extend(again)
            raise
        try:
            while tried < BATCH_FILES_MAX and size < BATCH_BYTES_MAX and troubles < TROUBLES_MAX:
                tried += 1
                taken = None
                try:
                    known = len(entries)
                    if again:
                        taken = again.popleft()
                        let_in = True  # when it was taken
                    elif steps >= granted:
                        break
                    elif (sight := self._next_sight()) is not None:
                        taken = self._take(sight)
                        let_in = False
                    else:
                        break
                    if taken is not None:
                        size += self._read(taken, entries)
                        steps += 0 if let_in else sum(len(entry.task.steps) for entry in entries[known:])
                except OSError as error:
                    troubles += 1
                    self._trouble = error
        except BaseException:
            self._uncertain.extend([*(entry.held for entry in entries), *again, *([taken] if taken else ())])
            raise
        self._uncertain.extendleft(reversed(again))
        batch = Batch(tuple(entries))
        self._on_the_way += batch.steps
        if self._gate is not None and granted != steps:
            try:
                self._gate.settle(granted, steps)
            except StoreError as error:
                log.warning("the count of this minute is too high by %s: %s", counted(granted - steps, "step"), error)
        return batch

    def _admitted(self) -> int:
        """Return how many steps of files in the lanes may come in with this batch."""
        waiting = sum(map(len, self._seen.values()))
        if self._gate is None or not waiting:
            return BATCH_FILES_MAX
        granted = self._gate.take(min(waiting, BATCH_FILES_MAX), on_the_way=self._on_the_way)
        self._shut = not granted
        return granted

    def _again(self) -> deque[Held]:
        """Return files of ours that are to be read, under new tickets; go on with those that need not be."""
        now_ns = self._needs.mono_ns()
        while self._later and self._later[0][0] <= now_ns:
            self._uncertain.append(self._later.popleft()[1])
        some = [self._uncertain.popleft() for _ in range(min(len(self._uncertain), BATCH_FILES_MAX))]
        to_read: deque[Held] = deque()
        try:
            known = statuses_of(self._reads, [held.task_id or held.ticket for held in some]) if some else {}
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
                        self._refuse(held, code, REASONS.get(code, AFTER_A_CRASH))
                    case inbox.Wait() | inbox.Deliver():
                        self._delivery.watch(held)
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
        self._refuse(held, held.refused, REASONS[held.refused], lane=sight.lane, name=sight.name)
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
            entries.append(Entry(held, self._drafter.draft(held, content.data)))
        except InputError as error:
            if isinstance(error, BadFileError) and content.unfinished and len(self._later) < _LATER_MAX:
                self._wait_with(held)
            else:
                self._refuse(held, error.code, str(error))
        return len(content.data)

    def _wait_with(self, held: Held) -> None:
        self._later.append((self._needs.mono_ns() + inbox.SETTLE_MS * 1_000_000, held))

    # -- after the commit --------------------------------------------------------------------------------------------

    def committed(self, batch: Batch, results: Sequence[tuple[str, bool]]) -> None:
        """The batch is on disk; results: ``(task id, deduplicated)`` of each of its tasks."""
        self._on_the_way -= batch.steps
        # First of all: who sees an answer beside a file finds its record.
        bodies = submit_bodies(
            batch.tasks, results, namespace=self._reads.namespace, actor=ACTOR, now_ms=self._needs.now_ms()
        )
        self._audit.append(bodies)
        for entry, (task_id, _) in zip(batch.entries, results, strict=True):
            self._mark(entry.held, task_id)
        self.stored += len(results)

    def uncertain(self, batch: Batch) -> None:
        """The batch may be on disk or not: its files are looked up before anything else is done with them."""
        self._on_the_way -= batch.steps
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
            self._delivery.watch(marked)
            if self._reads.payloads.seal.on():
                with contextlib.suppress(OSError):  # tried again before it is put away
                    self._files.empty(marked)

    # -- from ended tasks to answers, see Delivery -------------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Whether a task is watched for its end."""
        return self._delivery.waits

    def changed(self) -> None:
        """Something was committed: every open file is to be looked at once more."""
        self._delivery.changed()

    def deliver(self) -> bool:
        """Put away some files whose tasks have ended; return whether there are more to look at.

        Raises:
            StoreError: the database cannot be read.
        """
        more, trouble = self._delivery.deliver()
        self._trouble = trouble or self._trouble
        return more

    # -- refusing ----------------------------------------------------------------------------------------------------

    def _refuse(
        self, held: Held, code: str, sentence: str, *, lane: str | None = None, name: str | None = None
    ) -> None:
        """Put a file of ours into ``dead``, with the reason beside.

        Raises:
            OSError: the disk refused; the file is tried again after a while.
        """
        refused = Refused.of(held, code, sentence, lane, name)
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
        answer = refused_answer(held, refused, self._needs.now_ms())
        try:
            kept_as = self._files.put_away(marked, "dead", ".reason.json", answer)
        except OSError:
            if marked.task_id is None:  # the others are watched, and so come again
                self._wait_with(marked)
            raise
        if kept_as is not None:
            log.info("refused the file %s of the inbox (%s): %s", refused.file_name, code, sentence)
            self._audit.record_many([refused_record(refused, kept_as)])

    def _tell_once(self, sight: Sight, why: str) -> None:
        if (sight.lane, sight.name) in self._told:
            return
        if len(self._told) >= _LATER_MAX:
            self._told.clear()
        self._told.add((sight.lane, sight.name))
        log.info("left %r alone in inbox/%s: %s", sight.name, sight.lane, why)
