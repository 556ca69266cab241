"""The message files of ``busMode: files``: written from the database, moved as it changes, repaired when they differ.

    new steps (by row id) ────┐
    tasks that changed ───────┤
    steps that became ready ──┼──▶ messages of the step ──▶ the folder that the state says ──▶ rename, or write
    steps that run ───────────┤
    files that are live ──────┘

Each call does a piece of bounded size and goes on where the last one stopped; ``run/messages.json`` keeps that place
for the next process, so that history is not read again. Nothing is decided by a file: what is missing is written anew,
what lies in the wrong folder is moved, that of a claim that was given back is removed, for the step has its next
message by then, and that of a step which the database does not know goes to ``dead``. Several processes may do this on
one root; who comes second finds the work done.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import OrderedDict, deque
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from relaymesh.core import message_file
from relaymesh.core.message_file import META, Message
from relaymesh.store.claim import ready_groups
from relaymesh.store.database import Database
from relaymesh.store.schema import KEYED_READY, PLAIN_READY

__all__ = ["LIVE_MAX", "PIECE_MAX", "MessageFiles"]

PIECE_MAX = 500
"""Steps of one piece, from each of the three sources."""
LIVE_MAX = 200_000
"""Live files whose place is remembered; the place of another one is found when its step is looked at again."""
_OVERLAP_MS = 2_000
_SEP = os.sep
_MESSAGES = """
SELECT m.msg_id, m.task_id, m.step_id, m.from_agent, m.to_agent, m.priority, m.state, m.payload_path, m.created_at_ms,
    coalesce(a.attempt, s.attempt + (s.status IN ('PENDING', 'RETRYING'))), coalesce(a.worker_id, s.worker_id, ''),
    m.updated_at_ms
FROM messages m JOIN steps s ON s.step_id=m.step_id
LEFT JOIN attempts a ON a.step_id=m.step_id AND m.msg_id='msg_' || a.step_id || '.' || a.lease_epoch
WHERE m.step_id=? ORDER BY m.msg_id
"""

_FIELDS = (
    "message_id",
    "task_id",
    "step_id",
    "from_agent",
    "to_agent",
    "priority",
    "state",
    "payload_path",
    "created_at_ms",
    "attempt",
    "worker_id",
)


class MessageFiles:
    """The message files of one root, as one process keeps them. Not thread-safe."""

    def __init__(self, reads: Database) -> None:
        self._reads = reads
        self._root = os.fspath(reads.root)
        self._live: OrderedDict[str, str] = OrderedDict()  # message id to path, longest unseen first
        self._last_row = 0
        self._since_ms = 0
        self._unseen = 0
        self._saved = (-1, -1)
        self._queued_ms: dict[tuple[str, str], int] = {}
        self._to_repair: deque[str] = deque()
        self._place_path = os.path.join(self._root, "run", "messages.json")
        self._made: set[str] = set()

    def find(self) -> None:
        """Learn where live files lie, and how far the process before us had come."""
        self._load_place()
        lanes = [os.path.join(self._root, "inbox", lane) for lane in ("high", "normal", "low")]
        processing = os.path.join(self._root, "processing")
        with contextlib.suppress(OSError), os.scandir(processing) as entries:
            lanes += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        for folder in lanes:
            with contextlib.suppress(OSError), os.scandir(folder) as files:
                for entry in files:
                    message_id = message_file.parse_name(entry.name)
                    if message_id is None:
                        continue
                    if message_id in self._live:
                        os.unlink(entry.path)  # a second one, which a process left that was overtaken
                    elif len(self._live) < LIVE_MAX:
                        self._live[message_id] = entry.path

    def changed(self) -> None:
        """Something was committed: every live file is to be looked at once more."""
        self._unseen = len(self._live)

    def repair(self) -> None:
        """Look at every message that waits or runs once more: its file may be missing."""
        self.changed()
        with self._reads.reading():
            self._to_repair.extend(
                step_id
                for (step_id,) in self._reads.conn.execute(
                    "SELECT step_id FROM steps WHERE status='RUNNING' UNION ALL"
                    f" SELECT * FROM (SELECT step_id FROM steps INDEXED BY steps_ready WHERE {PLAIN_READY} LIMIT ?)"
                    f" UNION ALL SELECT * FROM"
                    f" (SELECT step_id FROM steps INDEXED BY steps_keyed WHERE {KEYED_READY} LIMIT ?)",
                    (LIVE_MAX, LIVE_MAX),
                )
            )

    def piece(self) -> bool:
        """Bring some files up to date; return whether there is more to do now.

        Raises:
            StoreError: the database cannot be read.
            OSError: the disk refuses; the files concerned are looked at again when anything changes.
        """
        with self._reads.reading():
            new, more_new = self._new_steps()
            since_ms = self._since_ms
            ended, more_ended = self._changed_steps()
            ready, more_ready = self._ready_steps(since_ms)
            live = list(islice(self._live, min(self._unseen, PIECE_MAX)))
            self._unseen -= len(live)
            missed = [self._to_repair.popleft() for _ in range(min(len(self._to_repair), PIECE_MAX))]
            steps = dict.fromkeys([*new, *ended, *ready, *missed, *(_step_of(message_id) for message_id in live)])
            known: set[str] = set()
            for step_id in steps:
                for message in self._messages(step_id):
                    known.add(message.message_id)
                    self._place(message)
        for message_id in live:
            path = self._live.get(message_id)
            if path is None:
                continue
            if message_id in known:
                self._live.move_to_end(message_id)
            else:
                self._bury(message_id, path)
        more = more_new or more_ended or more_ready or self._unseen > 0 or bool(self._to_repair)
        if not more:
            self._save_place()
        return more

    def _load_place(self) -> None:
        """Go on where a process stopped; from the beginning when that cannot be read, or is from another database."""
        try:
            with open(self._place_path, "rb") as file:
                match json.loads(file.read(1_024)):
                    case {"row": int(row), "sinceMs": int(since_ms)}:
                        self._last_row, self._since_ms = row, since_ms
        except (OSError, ValueError):
            return
        with self._reads.reading():
            newest = self._reads.conn.execute(
                "SELECT (SELECT coalesce(max(id), 0) FROM steps), (SELECT coalesce(max(updated_at_ms), 0) FROM tasks)"
            ).fetchone()
        if self._last_row > newest[0] or self._since_ms > newest[1]:
            self._last_row = self._since_ms = 0

    def _save_place(self) -> None:
        place = (self._last_row, self._since_ms)
        if place != self._saved:
            self._write(self._place_path, json.dumps({"row": place[0], "sinceMs": place[1]}).encode())
            self._saved = place

    # -- what there is -----------------------------------------------------------------------------------------------

    def _new_steps(self) -> tuple[list[str], bool]:
        rows = self._reads.conn.execute(
            "SELECT id, step_id FROM steps WHERE id>? ORDER BY id LIMIT ?", (self._last_row, PIECE_MAX)
        ).fetchall()
        if rows:
            self._last_row = rows[-1][0]
        return [step_id for _, step_id in rows], len(rows) == PIECE_MAX

    def _changed_steps(self) -> tuple[list[str], bool]:
        """Return steps of tasks that changed since the last piece; the last moments again, for commits out of order."""
        tasks = self._reads.conn.execute(
            "SELECT task_id, updated_at_ms FROM tasks INDEXED BY tasks_updated WHERE updated_at_ms>=?"
            " ORDER BY updated_at_ms LIMIT ?",
            (self._since_ms, 4 * PIECE_MAX),
        ).fetchall()
        whole = len(tasks) < 4 * PIECE_MAX
        if tasks:
            newest = int(tasks[-1][1])
            # More than a piece in one and the same moment: go on behind it, live files bring what was left out.
            self._since_ms = max(self._since_ms, newest - _OVERLAP_MS) if whole else max(newest, self._since_ms + 1)
        steps = self._reads.conn.execute(
            "SELECT s.step_id FROM json_each(?) v JOIN steps s ON s.task_id=v.value",
            (json.dumps([task_id for task_id, _ in tasks]),),
        )
        return [step_id for (step_id,) in steps], not whole

    def _ready_steps(self, since_ms: int) -> tuple[list[str], bool]:
        """Return steps that run, and those that became ready since the last piece: a retry leaves its task as it is."""
        conn = self._reads.conn
        rows = conn.execute("SELECT step_id FROM steps WHERE status='RUNNING' LIMIT ?", (LIVE_MAX,)).fetchall()
        found = [step_id for (step_id,) in rows]
        more = False
        since = self._queued_ms
        self._queued_ms = {}
        for group in dict.fromkeys(ready_groups(conn)):
            from_ms = since.get(group, since_ms)
            rows = conn.execute(
                "SELECT * FROM (SELECT step_id, queued_at_ms FROM steps INDEXED BY steps_ready"
                f" WHERE {PLAIN_READY} AND agent_id=?1 AND priority=?2 AND queued_at_ms>=?3"
                " ORDER BY queued_at_ms LIMIT ?4) UNION ALL SELECT * FROM (SELECT step_id, queued_at_ms FROM steps"
                f" INDEXED BY steps_keyed WHERE {KEYED_READY} AND agent_id=?1 AND priority=?2 AND queued_at_ms>=?3"
                " ORDER BY queued_at_ms LIMIT ?4) ORDER BY queued_at_ms LIMIT ?4",
                (*group, from_ms, PIECE_MAX),
            ).fetchall()
            found += [step_id for step_id, _ in rows]
            if len(rows) == PIECE_MAX:
                more = True
                from_ms = max(from_ms + 1, rows[-1][1])
            elif rows:
                from_ms = max(from_ms, rows[-1][1] - _OVERLAP_MS)
            self._queued_ms[group] = from_ms
        return found, more

    def _messages(self, step_id: str) -> Iterable[Message]:
        for row in self._reads.conn.execute(_MESSAGES, (step_id,)).fetchall():
            day = time.strftime("%Y-%m-%d", time.localtime(row[-1] / 1000))
            yield Message(**dict(zip(_FIELDS, row[:-1], strict=True)), day=day)

    # -- files -------------------------------------------------------------------------------------------------------

    def _place(self, message: Message) -> None:
        """See that the file of a message lies where its state says, and that its copy is there."""
        folder = message_file.folder_of(message)
        if folder is None:
            return  # a row that somebody wrote by hand: nothing of it becomes a path
        target = f"{self._folder(folder)}{_SEP}{message_file.name_of(message)}"
        path = self._live.get(message.message_id)
        if path != target:
            if path is None and message.state == "DEAD":
                # A cancel makes messages of failed attempts dead.
                path = os.path.join(self._root, "retry", message_file.name_of(message))
            if path is not None:
                self._move(path, target)
            if not os.path.lexists(target):
                envelope = _envelope(message)
                self._write(target, envelope)
                copy = f"{self._folder(META)}{_SEP}{message_file.meta_name(message)}"
                if not os.path.lexists(copy):
                    self._write(copy, envelope)
        if message_file.is_live(message):
            if message.message_id in self._live or len(self._live) < LIVE_MAX:
                self._live[message.message_id] = target
        else:
            self._live.pop(message.message_id, None)

    def _bury(self, message_id: str, path: str) -> None:
        """Put away a file whose message the database does not have."""
        del self._live[message_id]
        with self._reads.reading():
            known = self._reads.conn.execute("SELECT 1 FROM steps WHERE step_id=?", (_step_of(message_id),)).fetchone()
        if known:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        self._move(path, f"{self._folder('dead')}{_SEP}{os.path.basename(path)}")

    def _move(self, path: str, target: str) -> None:
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            os.replace(path, target)

    def _write(self, path: str, data: bytes) -> None:
        aside = f"{os.path.dirname(path)}{_SEP}.{os.path.basename(path)}.{os.getpid()}.tmp"
        try:
            with open(aside, "wb") as file:
                file.write(data)
            os.replace(aside, path)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise

    def _folder(self, folder: str) -> str:
        path = os.path.join(self._root, *folder.split("/"))
        if path not in self._made:
            os.makedirs(path, exist_ok=True)
            self._made.add(path)
            if len(self._made) > PIECE_MAX:
                self._made.clear()
        return path


def _step_of(message_id: str) -> str:
    return message_id.removeprefix("msg_").rpartition(".")[0]


def _envelope(message: Message) -> bytes:
    """Return the content of a message's file; its members stand in this order."""
    return json.dumps(
        {
            "msgId": message.message_id,
            "taskId": message.task_id,
            "stepId": message.step_id,
            "fromAgent": message.from_agent,
            "toAgent": message.to_agent,
            "priority": message.priority,
            "createdAtMs": message.created_at_ms,
            "payloadPath": message.payload_path,
            "attempt": message.attempt,
        },
        ensure_ascii=False,
    ).encode("utf-8", "backslashreplace")
