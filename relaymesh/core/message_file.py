"""Where the file of a message lies when the bus keeps files: a projection of the database, never read as truth.

QUEUED ─▶ inbox/<lane>    PROCESSING ─▶ processing/<worker>    DONE ─▶ done/<date>    FAILED ─▶ retry    DEAD ─▶ dead
and one copy of each in meta
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["META", "Message", "folder_of", "is_live", "meta_name", "name_of", "parse_name"]

META: Final = "meta"
_ENDING: Final = ".meta.json"
_MESSAGE_ID = re.compile(r"msg_[A-Za-z0-9_.\[\]-]{1,200}", re.ASCII)
_NAME = re.compile(r"(-?[0-9]{1,16})_(msg_[A-Za-z0-9_.\[\]-]{1,200})\.meta\.json", re.ASCII)
_WORKER = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}", re.ASCII)
_LANES: Final = {"HIGH": "inbox/high", "NORMAL": "inbox/normal", "LOW": "inbox/low"}


@dataclass(frozen=True, slots=True)
class Message:
    """One message, as the database has it. day: the local date of its last change. attempt: counts from 1."""

    message_id: str
    task_id: str
    step_id: str
    from_agent: str
    to_agent: str
    priority: str
    state: str
    payload_path: str
    created_at_ms: int
    attempt: int
    worker_id: str
    day: str


def folder_of(message: Message) -> str | None:
    """Return the folder of a message below the root; None when its row has words that cannot become a path."""
    if _MESSAGE_ID.fullmatch(message.message_id) is None:
        return None
    match message.state:
        case "QUEUED":
            return _LANES.get(message.priority)
        case "PROCESSING":
            return f"processing/{message.worker_id}" if _WORKER.fullmatch(message.worker_id) else None
        case "DONE":
            return f"done/{message.day}"
        case "FAILED":
            return "retry"
        case _:
            return "dead"


def is_live(message: Message) -> bool:
    """Say whether the file of a message will have to move again."""
    return message.state in ("QUEUED", "PROCESSING")


def name_of(message: Message) -> str:
    """Return the name of a message's file, the same in each folder; lexical order is that of creation."""
    return f"{message.created_at_ms:013}_{message.message_id}{_ENDING}"


def meta_name(message: Message) -> str:
    """Return the name of its copy in ``meta``."""
    return f"{message.message_id}{_ENDING}"


def parse_name(name: str) -> str | None:
    """Return the id of the message that a file's name says, None when it is not such a name."""
    match = _NAME.fullmatch(name)
    return match[2] if match else None
