"""What happened in a run, event by event: recorded by the simulator or by real processes, read by the checker.

A file is JSONL. ``t`` is in ms, of one clock for all; the order of lines is the order of events.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from relaymesh.errors import InputError

__all__ = ["EVENTS_MAX", "BadHistoryError", "Event", "read", "write"]

EVENTS_MAX: Final = 5_000_000
_LINE_BYTES_MAX: Final = 1024 * 1024


class BadHistoryError(InputError):
    """A history file that cannot be read."""

    code = "bad_history"

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(line, reason)
        self.line, self.reason = line, reason

    def __str__(self) -> str:
        return f"line {self.line} of the history is no event ({self.reason}): docs/simulator.md describes the file"


class NoHistoryError(InputError):
    """A history file that is not there, or cannot be opened."""

    code = "no_history"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"the history {self.path} cannot be read ({self.reason}): name a file that `chaos sim --history` wrote"


class Event(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One event. node: where; f: what; value: its details by name.

    start, crash, leave: generation. member: about, generation, version, state, shown. fault, heal: nodes.
    claim, heartbeat, release: step, ce, le, owner (and until for claims and heartbeats: when the lease ends).
    commit: step, ce, le, owner, outcome. reject: step, ce, le, owner. epoch: ce. end: nodes that are up.
    bounds: what to check by, as ``chaos.finding.Bounds``, where that is not what holds in the simulator.
    """

    t: int
    node: str
    f: str
    value: dict[str, Any] = msgspec.field(default_factory=dict)


def writable(path: Path) -> None:
    """Make sure that a history can be written there, before the run that it is of; raises OSError when it cannot."""
    with path.open("ab"):
        pass


def write(path: Path, events: Iterable[Event]) -> None:
    encoder = msgspec.json.Encoder(order="sorted")
    with path.open("wb") as file:
        for event in events:
            file.write(encoder.encode(event) + b"\n")


def read(path: Path) -> list[Event]:
    """Return the events of a file.

    Raises:
        BadHistoryError: a line is no event, or there are more than EVENTS_MAX.
        NoHistoryError: there is no such file.
    """
    decoder = msgspec.json.Decoder(Event)
    events: list[Event] = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if number > EVENTS_MAX or len(line) > _LINE_BYTES_MAX:
                    raise BadHistoryError(number, "too many or too long")
                if line.strip():
                    events.append(decoder.decode(line))
    except msgspec.MsgspecError as error:
        raise BadHistoryError(len(events) + 1, str(error)) from error
    except OSError as error:
        raise NoHistoryError(path, error.strerror or type(error).__name__) from error
    return events
