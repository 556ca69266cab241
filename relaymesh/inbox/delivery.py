"""Answers beside files of the inbox: which stored ones are watched for the end of their tasks, and what comes of it.

    watch ──(something was committed)──▶ looked up, longest unseen first ──▶ ended: done or dead, with its answer
                                                  └── has not: watched on

``Intake`` names the files; they lie in our folder of ``processing`` meanwhile.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from itertools import islice

import msgspec

from relaymesh.core import inbox
from relaymesh.core.inbox import Held
from relaymesh.inbox.answer import REASONS, ended_answer
from relaymesh.store.database import Database
from relaymesh.store.inbox_files import InboxFiles

__all__ = ["OPEN_MAX", "TROUBLES_MAX", "Delivery", "statuses_of"]

OPEN_MAX = 100_000
"""Stored files of this process whose tasks are watched for their end; the others are found when half have ended."""
_LOOKUPS_MAX = 500
TROUBLES_MAX = 10
"""Files that the disk may refuse before a round ends: it may be full, or there may be something wrong with one file."""


class Delivery:
    """The stored files of one process. refuse: puts a file into ``dead``, with a code and a sentence."""

    def __init__(
        self, files: InboxFiles, reads: Database, refuse: Callable[[Held, str, str], None], open_max: int
    ) -> None:
        self._files = files
        self._reads = reads
        self._refuse = refuse
        self._open_max = open_max
        # Longest unseen first.
        self._open: OrderedDict[str, Held] = OrderedDict()
        self._overflowed = False
        self._unseen = 0

    def begin(self) -> None:
        """All files of ours are about to be named anew."""
        self._overflowed = False

    def watch(self, held: Held) -> None:
        """Wait for the end of the task that a file of ours is stored as."""
        if len(self._open) >= self._open_max:
            self._overflowed = True
        else:
            self._open[held.file_name] = held
            self._unseen += 1

    @property
    def waits(self) -> bool:
        """Whether a task is watched for its end."""
        return bool(self._open)

    def changed(self) -> None:
        """Something was committed: every open file is to be looked at once more."""
        self._unseen = len(self._open)

    def deliver(self) -> tuple[bool, OSError | None]:
        """Look at some open files, longest unseen first, and put away those whose tasks have ended.

        Returns whether there are more to look at, and what the disk has refused meanwhile.

        Raises:
            StoreError: the database cannot be read.
        """
        some = list(islice(self._open.values(), min(self._unseen, _LOOKUPS_MAX)))
        known = statuses_of(self._reads, [held.task_id or "" for held in some]) if some else {}
        trouble: OSError | None = None
        troubles = 0
        for held in some:
            if troubles >= TROUBLES_MAX:
                break
            self._unseen -= 1
            try:
                ended = self._put_away(held, known.get(held.task_id or ""))
            except OSError as error:
                troubles += 1
                trouble = error
                ended = False
            if ended:
                del self._open[held.file_name]
            else:
                self._open.move_to_end(held.file_name)
        if self._overflowed and len(self._open) < self._open_max // 2:
            self._find_the_others()
        return self._unseen > 0 and not troubles, trouble

    def _put_away(self, held: Held, status: str | None) -> bool:
        """Return whether the file needs no more watching."""
        match inbox.next_step(held, status):
            case inbox.Deliver(succeeded):
                self._deliver(held, succeeded=succeeded)
                return True
            case inbox.Refuse(code):
                self._refuse(held, code, REASONS[code])
                return True
            case _:
                return False

    def _find_the_others(self) -> None:
        self._overflowed = False
        for file_name in self._files.held():
            held = inbox.parse_held(file_name)
            if held is not None and held.task_id is not None and file_name not in self._open:
                self.watch(held)

    def _deliver(self, held: Held, *, succeeded: bool) -> None:
        assert held.task_id is not None
        answer, ended_ms = ended_answer(self._reads, held)
        if self._reads.payloads.seal.on():
            self._files.empty(held)
        if succeeded:
            day = time.strftime("%Y-%m-%d", time.localtime(ended_ms / 1000))
            self._files.put_away(held, f"done/{day}", ".result.json", answer)
        else:
            self._files.put_away(held, "dead", ".reason.json", answer)


def statuses_of(reads: Database, task_ids: Iterable[str]) -> Mapping[str, str]:
    """Return the status of each of these tasks that there is."""
    asked = msgspec.json.encode(list(task_ids)).decode()
    with reads.reading():
        return dict(
            reads.conn.execute(
                "SELECT t.task_id, t.status FROM json_each(?) v JOIN tasks t ON t.task_id=v.value", (asked,)
            )
        )
