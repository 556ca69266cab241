"""What the console is told and what it orders; the rules between the two are in ``relaymesh.core.console``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from relaymesh.core.console_history import Sample
from relaymesh.core.console_layout import Pane

__all__ = [
    "Act",
    "Acted",
    "Action",
    "Effect",
    "Event",
    "Failed",
    "Interrupt",
    "Key",
    "Look",
    "Query",
    "Quit",
    "Redraw",
    "Resize",
    "Row",
    "Seen",
    "Tick",
    "Told",
    "Verb",
]


class Verb(Enum):
    """What can be done from the console; all of it must be confirmed."""

    CANCEL = "cancel"
    REPLAY = "replay"
    PAUSE = "pause"
    RESUME = "resume"


@dataclass(frozen=True, slots=True)
class Action:
    """target: the id of a task; of a pause, a priority, or "" for the whole queue."""

    verb: Verb
    target: str


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a pane.

    key: by which the selection finds it again. words: what a filter looks in. task_id: of the task it belongs to.
    cancels, replays: whether that can be done to the task. pauses: the priority that P is about, "" for the queue.
    lines: what Enter shows when no query is needed.
    """

    key: str
    words: str = ""
    task_id: str | None = None
    cancels: bool = False
    replays: bool = False
    pauses: str = ""
    lines: tuple[str, ...] = ()


# -- events ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Key:
    """A key was pressed; its name as in ``relaymesh.core.console_key``."""

    name: str


@dataclass(frozen=True, slots=True)
class Seen:
    """The answer to a query. body: what is drawn; the rules do not look into it. paused: targets that are paused."""

    version: int
    body: object
    rows: Mapping[Pane, tuple[Row, ...]]
    sample: Sample
    paused: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Failed:
    """A query brought nothing. hopeless: of the root itself, so that at the start there is no use in trying again."""

    version: int
    sentence: str
    hopeless: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """The answer to a look at one task, ready to be shown; or the sentence why there is none."""

    version: int
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Acted:
    """An action has been done, or refused: the sentence says which."""

    sentence: str
    done: bool


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Resize:
    """The terminal has so many columns and lines."""

    width: int
    height: int


# -- effects ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Query:
    """Ask how the root stands; answered by Seen or Failed with this version."""

    version: int


@dataclass(frozen=True, slots=True)
class Interrupt:
    """The query takes too long: break it off. It is answered all the same."""

    version: int


@dataclass(frozen=True, slots=True)
class Look:
    """Ask about one task; answered by Told."""

    version: int
    task_id: str


@dataclass(frozen=True, slots=True)
class Act:
    """Do it; answered by Acted."""

    action: Action


@dataclass(frozen=True, slots=True)
class Redraw:
    """Something that is on the screen has changed."""


@dataclass(frozen=True, slots=True)
class Quit:
    """Leave. because: None when the user wanted it, else the version of the query that leaves nothing to show."""

    because: int | None = None


Event = Key | Seen | Failed | Told | Acted | Tick | Resize
Effect = Query | Interrupt | Look | Act | Redraw | Quit
