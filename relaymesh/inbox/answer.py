"""What is written about a file: the answer beside it, and its row in the audit log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from relaymesh.core.inbox import NAME_BYTES_MAX, Held
from relaymesh.errors import InputError
from relaymesh.store import read
from relaymesh.store.database import Database
from relaymesh.wire.audit import Record

__all__ = ["ACTOR", "AFTER_A_CRASH", "REASONS", "Refused", "ended_answer", "refused_answer", "refused_record"]

ACTOR = "inbox"
"""Who hands in files, as the audit log calls it."""

REASONS = {
    "bad_name": (
        f"the name cannot be used: write letters, digits, _ - and . only, at most {NAME_BYTES_MAX}, a letter or digit"
        " first, and not the ending of an answer"
    ),
    "not_a_file": "this is no file, but a link, a FIFO, a socket or a device: hand in a file",
    "task_gone": "its task is not in the database any more, so nobody can say what became of it: look at the audit log",
}
"""Why a file is refused whose content was not looked at."""
AFTER_A_CRASH = "the file was refused for what its code says; the process ended before it could write more"


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that is refused. file_name: as it was handed in, as far as that is known."""

    file_name: str
    lane: str | None
    code: str
    sentence: str

    @classmethod
    def of(cls, held: Held, code: str, sentence: str, lane: str | None, name: str | None) -> Refused:
        shown = (name or held.name).encode("utf-8", "backslashreplace").decode()
        return cls(shown, lane or held.lane, code, sentence)


def ended_answer(reads: Database, held: Held) -> tuple[bytes, int]:
    """Return what is written beside a file whose task has ended, and when that was: the task as the CLI prints it."""
    assert held.task_id is not None
    duplicate = held.ticket != held.task_id
    beside: dict[str, object] = {"file": held.name, "ticket": held.ticket, "deduplicated": duplicate}
    with reads.reading():
        try:
            view = read.task_view(reads.conn, held.task_id, reads.payloads.text)
        except InputError as error:
            # The task has succeeded; its outputs together are more than an answer holds.
            row = reads.conn.execute("SELECT updated_at_ms FROM tasks WHERE task_id=?", (held.task_id,)).fetchone()
            beside |= {"taskId": held.task_id, "status": "SUCCESS", "code": error.code, "message": str(error)}
            return _json(beside), int(row[0])
    assert view is not None
    if view.result_payload is not None and reads.payloads.seal.on():
        # The answer is a file of the root as well: who may read the result asks for it.
        view = msgspec.structs.replace(view, result_payload=None)
        beside |= {"resultEncrypted": True}
    if view.status != "SUCCESS":
        sentence = view.last_error or f"the task ended as {view.status}"
        beside |= {"code": view.status.lower(), "message": sentence}
    return _json({**msgspec.to_builtins(view), **beside}), view.updated_at_ms


def refused_answer(held: Held, refused: Refused, now_ms: int) -> bytes:
    """Return what is written beside a file that is refused."""
    return _json(
        {
            "file": refused.file_name,
            "lane": refused.lane,
            "ticket": held.ticket,
            "taskId": held.task_id,
            "code": refused.code,
            "message": refused.sentence,
            "refusedAtMs": now_ms,
        }
    )


def _json(answer: Mapping[str, object]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(answer), indent=2) + b"\n"


def refused_record(refused: Refused, kept_as: str) -> Record:
    """Return the audit row of a file that was refused."""
    details = {"file": refused.file_name, "kept_as": kept_as, "lane": refused.lane}
    return Record("inbox.refuse", ACTOR, "runtime/inbox", refused.code, details)
