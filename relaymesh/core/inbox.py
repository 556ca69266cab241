"""What becomes of a file that a program hands in: its names, and what to do with one that is found.

    inbox/LANE/NAME
        │ take: a rename, so one process has it; the ticket is the id that its task will have
        ▼
    processing/NODE/TICKET~LANE~NAME ──── read, and found wrong: a rename ───┐
        │ commit: the task is in the database, or an earlier one of its key  ▼
        │ mark: a rename                              processing/NODE/TICKET~refused-CODE~NAME
        ▼                                                                    │
    processing/NODE/TICKET~TASK~NAME                                         │
        │ the task ends                                                      │
        ├── SUCCESS ──▶ done/DATE/NAME.result.json, then done/DATE/NAME      ▼
        └── else ─────▶ dead/NAME.reason.json, then dead/NAME  ◀─────────────┘

The name says how far a file has come, and nothing else is kept about it. A crash can fall between any two of these
steps, and ``next_step`` says from the name and the database alone how to go on:

    crash between           what is found                          next step
    take and commit         TICKET~LANE~NAME, no such task         submit, under a new ticket
    commit and mark         TICKET~LANE~NAME, the task is there    mark
    commit of a duplicate   TICKET~LANE~NAME, no such task         submit: its key answers with the earlier task
      and mark
    mark and delivery       TICKET~TASK~NAME                       deliver when the task has ended
    answer and last rename  TICKET~TASK~NAME or TICKET~refused-…,  go on: the answer is found and kept
                            and an answer whose ticket is ours

A ticket is shown to the store at most once. Whoever does not know what became of it looks it up, and takes another one
if it is not there: should the first still be on its way, the idempotency key lets only one of the two in.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from relaymesh.core.ident import is_task_id
from relaymesh.core.priority import Priority

__all__ = [
    "FILE_BYTES_MAX",
    "LANES",
    "NAME_BYTES_MAX",
    "SETTLE_MS",
    "Deliver",
    "FolderWatch",
    "Held",
    "Kind",
    "Lane",
    "LeaveAlone",
    "Look",
    "Mark",
    "Refuse",
    "Step",
    "Submit",
    "Take",
    "Wait",
    "is_being_written",
    "may_be_unfinished",
    "next_step",
    "on_sight",
    "parse_held",
    "safe_name",
]

Lane = Literal["high", "normal", "low"]

LANES: Final[dict[Lane, Priority]] = {"high": "HIGH", "normal": "NORMAL", "low": "LOW"}
"""The folders below ``inbox``, and the priority that each stands for."""

NAME_BYTES_MAX: Final = 150
"""A file name: with a ticket, the id of a task and the ending of an answer, every disk still takes it."""

FILE_BYTES_MAX: Final = 67_108_864
"""One file, as one line of a batch: the largest payload with every character escaped, or the largest workflow."""

SETTLE_MS: Final = 2_000
"""A file that makes no sense and was changed less than this ago may still be being written: it is looked at again."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)
_HIDDEN: Final = (".tmp", ".part", ".meta.json")
_ANSWERS: Final = (".result.json", ".reason.json")
_REFUSED: Final = "refused-"
_CODE = re.compile(r"[a-z0-9_]{1,40}", re.ASCII)
# Names of devices on Windows, with any ending.
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.ASCII | re.IGNORECASE)


class Kind(Enum):
    """What an entry of a folder is, without following it. OTHER: a link, FIFO, socket or device."""

    FILE = "file"
    FOLDER = "folder"
    OTHER = "other"


# A file in a lane ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Take:
    """Move it to ``processing``. refused: the code under which it goes on to ``dead`` unread, or ''."""

    refused: str = ""


@dataclass(frozen=True, slots=True)
class LeaveAlone:
    """Leave it where it is. why: for people."""

    why: str


def on_sight(name: str, kind: Kind) -> Take | LeaveAlone:
    """Say what to do with an entry of a lane.

    Left alone is what somebody may still be at work on: hidden and temporary names, and folders, of which nobody can
    say when they are complete. Names of the runtime's own messages (``.meta.json``) are not handed in.
    """
    if is_being_written(name):
        return LeaveAlone("such names are being written, or are the runtime's own")
    if kind is Kind.FOLDER:
        return LeaveAlone("folders are not handed in")
    if kind is Kind.OTHER:
        return Take("not_a_file")
    return Take() if _usable(name) else Take("bad_name")


def is_being_written(name: str) -> bool:
    """Say whether a name is that of a file which is not handed in, or not yet."""
    return name.startswith(".") or name.endswith(_HIDDEN)


def _usable(name: str) -> bool:
    """Whether a name can be used as it is, for files and as an idempotency key."""
    return (
        len(name) <= NAME_BYTES_MAX
        and _NAME.fullmatch(name) is not None
        and not name.endswith((*_ANSWERS, "."))
        and _DEVICE.fullmatch(name) is None
    )


def safe_name(name: str) -> str:
    """Return a name that every disk takes: the name itself when it is usable, else one made of it and of its hash."""
    if _usable(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name, flags=re.ASCII)[:60].strip("_-")
    return f"{plain or 'file'}-{digest}"


# A file in processing ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Held:
    """A file in ``processing``, as its name tells it.

    ticket: the id that its task gets. mark: the lane that it came from, the id of its task once that is stored, or
    ``refused-`` and a code.
    """

    ticket: str
    mark: str
    name: str

    @property
    def file_name(self) -> str:
        """Its name in ``processing``."""
        return f"{self.ticket}~{self.mark}~{self.name}"

    @property
    def lane(self) -> Lane | None:
        """The lane of a file that is not known to be stored."""
        return self.mark if self.mark in LANES else None

    @property
    def task_id(self) -> str | None:
        """The task of a file that is known to be stored."""
        return self.mark if is_task_id(self.mark) else None

    @property
    def refused(self) -> str | None:
        """The code under which the file is refused, when its name or kind has already decided that."""
        return self.mark[len(_REFUSED) :] if self.mark.startswith(_REFUSED) else None

    def refused_as(self, code: str) -> Held:
        """The same file, once it is decided that it is refused."""
        return Held(self.ticket, f"{_REFUSED}{code}", self.name)

    @classmethod
    def taken(cls, ticket: str, lane: Lane, name: str, take: Take) -> Held:
        """A file of a lane, as it is renamed to take it."""
        return cls(ticket, f"{_REFUSED}{take.refused}" if take.refused else lane, safe_name(name))


def parse_held(file_name: str) -> Held | None:
    """Return what a name in ``processing`` says, or None when it is not one of ours."""
    ticket, _, rest = file_name.partition("~")
    mark, _, name = rest.partition("~")
    if not is_task_id(ticket) or not _usable(name):
        return None
    held = Held(ticket, mark, name)
    code = held.refused
    known = held.lane is not None or held.task_id is not None or (code is not None and _CODE.fullmatch(code))
    return held if known else None


@dataclass(frozen=True, slots=True)
class Submit:
    """Take a new ticket, read the file, and submit it."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Its task is stored: rename it so that it says so."""

    task_id: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Its task has not ended."""


@dataclass(frozen=True, slots=True)
class Deliver:
    """Its task has ended. succeeded: to ``done`` with the result, else to ``dead`` with the reason."""

    succeeded: bool


@dataclass(frozen=True, slots=True)
class Refuse:
    """To ``dead``, with this code as the reason."""

    code: str


Step = Submit | Mark | Wait | Deliver | Refuse

_OPEN: Final = ("PENDING", "RUNNING", "RETRYING")


def next_step(held: Held, status: str | None) -> Step:
    """Say how to go on with a file that lies in ``processing``.

    status: that of the task under the id in the mark, else under the ticket; None: the database has no such task.
    """
    if held.refused is not None:
        return Refuse(held.refused)
    if held.task_id is None:
        return Submit() if status is None else Mark(held.ticket)
    if status is None:
        # Kept too long after its end, or the database was put back to an earlier state. Again might be twice.
        return Refuse("task_gone")
    return Wait() if status in _OPEN else Deliver(status == "SUCCESS")


def may_be_unfinished(changed_ms: int, now_ms: int) -> bool:
    """Say whether a file that makes no sense should be looked at again. changed_ms: its last change, wall time.

    A change in the future (another machine's clock) counts as long ago, or it would be waited for.
    """
    return 0 <= now_ms - changed_ms < SETTLE_MS


# When to list a folder -----------------------------------------------------------------------------------------------

_COARSE_NS: Final = 2_000_000_000
LOOK_ANYWAY_NS: Final = 30_000_000_000
"""How long a change may stay unseen whose instant the disk did not note: clocks of a network disk, say."""


@dataclass(frozen=True, slots=True)
class Look:
    """When a folder was looked at: wall time for what the disk notes, monotonic time for waiting."""

    wall_ns: int
    mono_ns: int


class FolderWatch:
    """Whether a folder has to be listed again, from the instant of its last change.

    Disks note that instant coarsely (a tick of the kernel, 2 s on FAT): a listing that came so soon after the change
    may have missed another one with the same instant, so it is repeated until the instant lies far enough back.
    """

    def __init__(self) -> None:
        self._changed_ns: int | None = None
        self._settled = False
        self._listed_ns = 0

    def due(self, changed_ns: int, look: Look) -> bool:
        """Whether to list it. changed_ns: the instant of its last change, as the disk says it."""
        return changed_ns != self._changed_ns or not self._settled or look.mono_ns - self._listed_ns >= LOOK_ANYWAY_NS

    def listed(self, changed_ns: int, look: Look, *, whole: bool) -> None:
        """It was listed, to its end if ``whole``. changed_ns, look: from before the listing."""
        self._changed_ns = changed_ns
        self._settled = whole and look.wall_ns - changed_ns >= _COARSE_NS
        self._listed_ns = look.mono_ns
