"""The panes: a title with the sums, the headings, and a line for each row, in columns that fit the width."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple, assert_never

from rich.text import Text

from relaymesh.console.words import age, count, duration, short_step
from relaymesh.core.console_history import BARS, BARS_ASCII, History, Sample, bars
from relaymesh.core.console_layout import Pane, Width
from relaymesh.core.console_news import Item
from relaymesh.core.console_tone import (
    LATE_HEARTBEAT_MS,
    LATE_LEASE_MS,
    Tone,
    member_word,
    tone_of_age,
    tone_of_state,
)
from relaymesh.core.printable import printable
from relaymesh.node_view import AlertState
from relaymesh.status_view import StatusMember, StatusOutcome, StatusRunning, StatusTrouble

__all__ = ["Pens", "heading", "pane_title", "queue_lines", "row_line"]

_STYLES: Final = {
    Tone.PLAIN: "",
    Tone.FAINT: "dim",
    Tone.GOOD: "green",
    Tone.BUSY: "cyan",
    Tone.WARN: "yellow",
    Tone.BAD: "bold red",
}


@dataclass(frozen=True, slots=True)
class Pens:
    """The style of each tone."""

    styles: dict[Tone, str] = field(default_factory=lambda: dict(_STYLES))

    def of(self, tone: Tone) -> str:
        """Return the style."""
        return self.styles[tone]

    def faded(self) -> Pens:
        """Return the pens for what is stale: all of them grey."""
        return Pens(dict.fromkeys(Tone, "bright_black"))


class _Column(NamedTuple):
    """width: in cells, 0 for what is left, which such columns share. right: aligned to the right. least: shown from."""

    title: str
    width: int
    least: Width = Width.NARROW
    right: bool = False


_COLUMNS: Final = {
    Pane.MEMBERS: (
        _Column("node", 0),
        _Column("state", 8),
        _Column("heard", 5, right=True),
        _Column("rtt", 6, right=True),
        _Column("runs", 5, right=True),
        _Column("in state", 8, Width.NORMAL, right=True),
        _Column("gen", 4, Width.NORMAL, right=True),
        _Column("process", 8, Width.WIDE, right=True),
        _Column("machine", 0, Width.WIDE),
    ),
    Pane.RUNNING: (
        _Column("step", 0),
        _Column("agent", 10, Width.NORMAL),
        _Column("owner", 12),
        _Column("lease", 5, right=True),
        _Column("for", 5, right=True),
        _Column("try", 3, Width.NORMAL, right=True),
        _Column("lane", 6, Width.NORMAL),
        _Column("task", 40, Width.WIDE),
    ),
    Pane.TROUBLE: (
        _Column("step", 17),
        _Column("state", 11),
        _Column("when", 7, right=True),
        _Column("try", 3, Width.NORMAL, right=True),
        _Column("agent", 10, Width.NORMAL),
        _Column("task", 40, Width.WIDE),
        _Column("error", 0, Width.NORMAL),
    ),
    Pane.ALERTS: (
        _Column("alert", 0),
        _Column("phase", 10),
        _Column("severity", 8),
        _Column("since", 6, right=True),
    ),
    Pane.NEWS: (_Column("", 4, right=True), _Column("", 0)),
}
_GAP: Final = 1
_QUEUE_WORDS: Final = 47
_PAUSED_WORD: Final = 7
_INDENT: Final = 2


def pane_title(pane: Pane, status: StatusOutcome, pens: Pens, *, focused: bool, filtered: str) -> Text:
    """Return the line above a pane: its name, and how many of what."""
    line = Text(pane.value.upper(), style="bold reverse" if focused else "bold")
    line.append(" ")
    parts: list[tuple[str, Tone]] = []
    match pane:
        case Pane.MEMBERS:
            words = [_word(member) for member in status.members]
            parts = [(f"{words.count(word)} {word}", tone_of_state(word)) for word in dict.fromkeys(words)]
            if status.members_total > len(words):
                parts.append((f"{status.members_total} in all", Tone.PLAIN))
        case Pane.QUEUE:
            waits = sum(lane.waiting for lane in status.lanes)
            parts = [(f"{count(waits)} waiting", Tone.PLAIN)]
            slots = ", ".join(f"{printable(pool.pool)} {pool.used}/{pool.slots}" for pool in status.pools)
            parts.append((f"slots {slots}" if slots else "no slots", Tone.PLAIN if slots else Tone.WARN))
            parts += [
                (printable(f"{one.scope} {one.name} paused").replace("  ", " "), Tone.WARN) for one in status.pauses
            ]
        case Pane.RUNNING:
            parts = [(f"{count(status.running_total)} running", Tone.BUSY if status.running_total else Tone.PLAIN)]
        case Pane.TROUBLE:
            parts = [
                (f"{count(status.retrying_total)} retried", Tone.WARN if status.retrying_total else Tone.PLAIN),
                (f"{count(status.dead_letter_total)} dead", Tone.BAD if status.dead_letter_total else Tone.PLAIN),
            ]
        case Pane.ALERTS:
            parts = [(str(len(status.alerts)), Tone.BAD if status.alerts else Tone.PLAIN)]
        case Pane.NEWS:
            parts = [("to nodes, the latest first", Tone.FAINT)]
        case _:
            assert_never(pane)
    for at, (said, tone) in enumerate(parts):
        line.append(", " if at else " ")
        line.append(said, pens.of(tone))
    if filtered and pane is not Pane.QUEUE:
        line.append(f"  /{printable(filtered)}", pens.of(Tone.WARN))
    return line


def heading(pane: Pane, wide: Width, width: int, pens: Pens) -> Text:
    """Return the line with the names of the columns."""
    cells = [Text(column.title) for column in _COLUMNS[pane]]
    line = _line(pane, cells, wide, width)
    line.stylize(pens.of(Tone.FAINT))
    return line


def row_line(
    status: StatusOutcome, pane: Pane, item: object, wide: Width, width: int, pens: Pens, *, plain: bool
) -> Text:
    """Return the line of one row."""
    cut = "..." if plain else "…"

    def toned(text: str, tone: Tone = Tone.PLAIN) -> Text:
        return Text(printable(text), style=pens.of(tone))

    match item:
        case StatusMember():
            word = _word(item)
            late = tone_of_age(item.heartbeat_age_ms, LATE_HEARTBEAT_MS) if word != "LEFT" else Tone.FAINT
            cells = [
                toned(item.node_id),
                toned(word, tone_of_state(word)),
                toned(age(item.heartbeat_age_ms), late),
                toned(duration(item.rtt_ms), Tone.PLAIN if item.rtt_ms is not None else Tone.FAINT),
                toned(str(item.running)),
                toned(age(item.status_age_ms)),
                toned(str(item.generation)),
                toned(str(item.pid or "-")),
                toned(item.host or item.address or "-"),
            ]
        case StatusRunning():
            owner = tone_of_state(item.owner_status)
            cells = [
                toned(short_step(item.step_id, cut)),
                toned(item.agent),
                toned(item.owner or "-", Tone.PLAIN if owner is Tone.GOOD else owner),
                toned(age(item.lease_age_ms), tone_of_age(item.lease_age_ms, LATE_LEASE_MS)),
                toned(age(item.running_ms)),
                toned(str(item.attempt)),
                toned(item.priority),
                toned(item.task_id),
            ]
        case StatusTrouble():
            due = item.next_retry_in_ms
            cells = [
                toned(short_step(item.step_id, cut)),
                toned(item.status, tone_of_state(item.status)),
                toned(f"in {age(due)}" if due is not None else age(item.age_ms)),
                toned(str(item.attempt)),
                toned(item.agent),
                toned(item.task_id),
                toned(item.last_error, Tone.FAINT),
            ]
        case AlertState():
            cells = [
                toned(item.rule),
                toned(item.phase, Tone.BAD if item.phase == "firing" else Tone.WARN),
                toned(item.severity, tone_of_state(item.severity)),
                toned(age(max(0, status.checked_at_ms - item.since_ms))),
            ]
        case Item():
            happened = toned(f"{item.node_id} {item.sentence}", tone_of_state(item.word))
            cells = [toned(age(max(0, status.checked_at_ms - item.at_ms)), Tone.FAINT), happened]
        case _:
            raise AssertionError(f"no row of the console: {type(item).__name__}")
    return _line(pane, cells, wide, width, cut)


def queue_lines(
    status: StatusOutcome, history: History, width: int, pens: Pens, *, plain: bool, selected: int | None
) -> list[Text]:
    """Return a line for each priority, with bars over the last minutes, and one for the throughput."""
    marks = BARS_ASCII if plain else BARS
    # What is left of the line beside the words, for two lines of bars.
    words = _QUEUE_WORDS + (_PAUSED_WORD if any(lane.paused for lane in status.lanes) else 0)
    room = (width - words) // 2 if len(history) > 1 else 0
    room = room if room >= 5 else 0
    lines = []
    for at, lane in enumerate(status.lanes):
        line = Text("> " if selected == at else "  ")
        line.append(f"{lane.priority:<7}")
        line.append(f"{count(lane.waiting):>6}", pens.of(Tone.BUSY if lane.waiting else Tone.PLAIN))
        line.append(" waiting")
        if room:
            waited = history.columns(lambda sample, at=at: _at(sample.waiting, at), room)  # type: ignore[misc]
            line.append(f" {bars(waited, marks)}", pens.of(Tone.BUSY))
        line.append(f" p50{duration(lane.latency_p50_ms):>7}")
        if width >= 50:
            line.append(f" p95{duration(lane.latency_p95_ms):>7}")
        if room:
            took = history.columns(lambda sample, at=at: _at(sample.latency_ms, at), room)  # type: ignore[misc]
            line.append(f" {bars(took, marks)}", pens.of(Tone.WARN))
        if lane.paused:
            line.append(" paused", pens.of(Tone.WARN))
        if selected == at:
            line.stylize("reverse")
        lines.append(line)
    ended = Text(f"  {status.throughput_per_s:g} steps a second ended")
    left = width - ended.cell_len - 2
    if len(history) > 1 and left >= 5:
        shown = history.columns(_per_s, min(60, left))
        ended.append(f" {bars(shown, marks)}", pens.of(Tone.GOOD))
    lines.append(ended)
    return lines


def _per_s(sample: Sample) -> float | None:
    return sample.per_s


def _at(values: tuple[int | None, ...], at: int) -> float | None:
    return values[at] if at < len(values) else None


def _word(member: StatusMember) -> str:
    return member_word(
        member.status, process_alive=member.process_alive, drained=member.drained, stopping=member.stopping
    )


def _line(pane: Pane, cells: list[Text], wide: Width, width: int, cut: str = "…") -> Text:
    """Put cells into the columns of a pane; the ones without a width share what is left."""
    shown = [
        (column, cell) for column, cell in zip(_COLUMNS[pane], cells, strict=True) if column.least.value <= wide.value
    ]
    fixed = sum(column.width for column, _ in shown) + _GAP * (len(shown) - 1) + _INDENT
    open_columns = sum(not column.width for column, _ in shown)
    share = max(4, (width - fixed) // open_columns) if open_columns else 0
    line = Text(" " * _INDENT)
    for at, (column, cell) in enumerate(shown):
        room = column.width or share
        if cell.cell_len > room:
            cell.truncate(room, overflow="ellipsis" if cut == "…" else "crop")
        pad = " " * (room - cell.cell_len)
        if column.right:
            line.append(pad)
        line.append_text(cell)
        if not column.right:
            line.append(pad)
        if at < len(shown) - 1:
            line.append(" " * _GAP)
    return line
