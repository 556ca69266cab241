"""The console as lines of text: title, panes, footer. Every line is exactly as wide as the terminal, or shorter.

Nothing is decided here but looks: which panes, which rows and what is stale come from ``relaymesh.core``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from textwrap import wrap
from typing import TYPE_CHECKING, Final

from rich.cells import cell_len
from rich.text import Text

from relaymesh.console.board import Board, standings_of
from relaymesh.console.pane import Pens, heading, pane_title, queue_lines, row_line
from relaymesh.console.words import age
from relaymesh.core.console import Console, Mode
from relaymesh.core.console_history import History
from relaymesh.core.console_layout import FRAME_LINES, Pane, Placed, plan, scroll, width_of
from relaymesh.core.console_news import News
from relaymesh.core.console_tone import Tone
from relaymesh.core.plural import counted
from relaymesh.core.printable import printable

if TYPE_CHECKING:
    from relaymesh.status_view import StatusHealth, StatusOutcome

__all__ = ["HELP", "Look", "once", "screen"]

HELP: Final = (  # it fits on 80 columns and 24 lines, and does not scroll
    "Keys",
    "  Tab, Shift-Tab   next pane, previous pane",
    "  arrows, j, k     move the selection; g, G: first, last",
    "  Enter            details: a task and why it waits, a member, what is paused",
    "  /                filter the rows by a word; Enter keeps it, Escape shows all",
    "  Space            hold the display still, and let it go on",
    "  C                cancel the task of the selected step (asks)",
    "  R                replay the selected dead letter (asks)",
    "  P                pause or resume the selected priority, or the queue (asks)",
    "  ?, q             this page; quit",
    "States of a member",
    "  ALIVE            its heartbeats come in time",
    "  DRAINED          it lives, and takes nothing new until it is resumed",
    "  STOPPING         it was told to end, and waits for what runs",
    "  SUSPECT          it does not answer; others ask it as well",
    "  DEAD             nobody hears from it: its steps are taken over",
    "  ENDED            its process on this machine ended; nobody has noticed yet",
    "  LEFT             it ended in order",
)

_OLD_CHECKS_MS: Final = 1_000
"""What was found within the last second is of this moment; anything older says so."""


@dataclass(frozen=True, slots=True)
class Look:
    """How it may look. plain: ASCII only. clock: the wall time as text."""

    plain: bool = False
    clock: str = ""
    pens: Pens = field(default_factory=Pens)


def screen(console: Console, now_ns: int, look: Look) -> list[Text]:
    """Return the lines of the screen as the console stands, ``console.height`` at most."""
    width, height = console.width, console.height
    pens = look.pens.faded() if console.stale(now_ns) else look.pens
    board = console.shown.body if console.shown is not None else None
    assert board is None or isinstance(board, Board)
    lines = [_title(board, width, look, pens), _second(console, board, now_ns, look)]
    room = max(1, height - FRAME_LINES)
    match console.mode:
        case Mode.HELP:
            body = [Text(line, style="bold" if not line.startswith(" ") else "") for line in HELP[:room]]
        case Mode.DETAIL:
            told = console.detail or ("reading ...",)
            body = [Text(line) for line in told[console.detail_top : console.detail_top + room]]
        case _ if board is None:
            body = [Text("reading ...", style=pens.of(Tone.FAINT))]
        case _:
            body = _panes(console, board, look, pens)
    lines += body[:room]
    lines += [Text("")] * (max(0, height - 2 - len(lines)))
    lines += [_prompt(console, now_ns, look), _keys(console)]
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="crop" if look.plain else "ellipsis")
    return lines[: max(1, height)] if height >= FRAME_LINES else [*lines[: height - 1], lines[-2]][:height]


def once(status: StatusOutcome, width: int, look: Look, *, rows_max: int = 12) -> list[Text]:
    """Return one screen for somebody who only looks once; rows_max: of each table."""
    board = Board(status)
    lines = [_title(board, width, look, look.pens), *_wrapped(_health(board, look), width)]
    wide = width_of(width)
    for pane in Pane:
        lines.append(pane_title(pane, board.status, look.pens, focused=False, filtered=""))
        if pane is Pane.QUEUE:
            lines += queue_lines(status, History(), width, look.pens, plain=look.plain, selected=None)
            continue
        found: Sequence[object] = {
            Pane.MEMBERS: status.members,
            Pane.RUNNING: status.running,
            Pane.TROUBLE: status.trouble,
            Pane.ALERTS: status.alerts,
            Pane.NEWS: News().take(status.checked_at_ms, standings_of(status)),
        }[pane]
        if found and pane is not Pane.NEWS:
            lines.append(heading(pane, wide, width, look.pens))
        lines += [row_line(status, pane, item, wide, width, look.pens, plain=look.plain) for item in found[:rows_max]]
        if len(found) > rows_max:
            lines.append(Text(f"  and {len(found) - rows_max} more", style=look.pens.of(Tone.FAINT)))
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="crop" if look.plain else "ellipsis")
        line.rstrip()
    return lines


def _wrapped(sentence: Text, width: int) -> list[Text]:
    """Return all of a sentence, on as many lines as it takes."""
    if sentence.cell_len <= width:
        return [sentence]
    return [Text(line, style=sentence.style) for line in wrap(sentence.plain, max(20, width))]


def _panes(console: Console, board: Board, look: Look, pens: Pens) -> list[Text]:
    width, status = console.width, board.status
    wanted = {pane: 2 + len(console.rows(pane)) for pane in Pane}
    wanted |= {Pane.QUEUE: 5, Pane.NEWS: 1 + len(console.rows(Pane.NEWS))}
    lines: list[Text] = []
    for placed in plan(console.height, wanted, console.focus):
        pane, focused = placed.pane, placed.pane is console.focus
        lines.append(pane_title(pane, status, pens, focused=focused, filtered=console.filter))
        if pane is Pane.QUEUE:
            selected = console.selected(pane) if focused else None
            below = queue_lines(status, console.history, width, pens, plain=look.plain, selected=selected)
            lines += below[: placed.lines - 1]
        else:
            lines += _rows(console, board, placed, look, pens)
    return lines


def _rows(console: Console, board: Board, placed: Placed, look: Look, pens: Pens) -> list[Text]:
    pane, wide, width = placed.pane, width_of(console.width), console.width
    rows, selected, room = console.rows(pane), console.selected(pane), placed.lines - 1
    lines: list[Text] = []
    if rows and room >= 2 and pane is not Pane.NEWS:  # sentences need no headings
        lines.append(heading(pane, wide, width, pens))
        room -= 1
    # Elsewhere the first rows are the ones that matter: the worst off, the latest.
    first = scroll(selected, len(rows), room) if pane is console.focus else 0
    for at, row in enumerate(rows[first : first + room], start=first):
        line = row_line(board.status, pane, board.items[pane][row.key], wide, width, pens, plain=look.plain)
        if pane is console.focus and at == selected:
            line.plain = ">" + line.plain[1:]
            line.stylize("reverse")
        lines.append(line)
    if not rows:
        said = "  none that fit the filter" if console.filter else f"  {_NONE[pane]}"
        lines.append(Text(said, style=pens.of(Tone.FAINT)))
    return lines


_NONE: Final = {
    Pane.MEMBERS: "no node has run here yet: `relaymesh up` starts one",
    Pane.RUNNING: "nothing runs",
    Pane.TROUBLE: "no step waits for a retry, none is dead",
    Pane.ALERTS: "no alert fires",
    Pane.QUEUE: "",
    Pane.NEWS: "nothing within the last ten minutes",
}


def _title(board: Board | None, width: int, look: Look, pens: Pens) -> Text:
    line = Text("RelayMesh", style="bold")
    right = look.clock
    if board is not None:
        status = board.status
        alive = status.nodes_alive
        nodes = counted(alive, "node")
        if not alive:
            nodes = "no node is ALIVE" if _held(status) else "no node runs"
        line.append(f"  {nodes}", pens.of(Tone.GOOD if alive else Tone.BAD))
        if status.paused:
            line.append("  PAUSED", pens.of(Tone.WARN))
        where = printable(status.root) + ("" if status.namespace == "default" else f" ({printable(status.namespace)})")
        room = width - line.cell_len - cell_len(right) - 4
        if room >= 12:
            shown = where if len(where) <= room else ("..." if look.plain else "…") + where[-(room - 3) :]
            line.append(f"  {shown}", pens.of(Tone.FAINT))
    gap = width - line.cell_len - cell_len(right)
    if right and gap >= 1:
        line.append(" " * gap + right, pens.of(Tone.FAINT))
    return line


def _held(status: StatusOutcome) -> bool:
    """Return whether a node runs here that the member table calls SUSPECT or DEAD: in its dwell time, mostly."""
    return any(one.process_alive and one.status in ("SUSPECT", "DEAD") for one in status.members)


def _health(board: Board, look: Look) -> Text:
    status, pens = board.status, look.pens
    health = status.health
    nobody = "" if status.nodes_alive or _held(status) else "no node runs on this root"
    if not health.ok:
        said = "; ".join(map(printable, health.problems))
        return Text("; ".join(filter(None, (nobody, _counted(health, said)))), style=pens.of(Tone.BAD))
    if nobody:
        return Text(f"{nobody}: this is what the store holds", style=pens.of(Tone.WARN))
    if health.notes:
        return Text(_counted(health, "; ".join(map(printable, health.notes))), style=pens.of(Tone.WARN))
    line = Text("well", style=pens.of(Tone.GOOD))
    free = f"{health.disk_free_bytes / 2**30:.1f} GiB free, " if health.disk_free_bytes >= 0 else ""
    line.append(f": the store answers, {free}epoch {status.cluster_epoch}", pens.of(Tone.FAINT))
    if health.lease_conflicts_1h:
        late = counted(health.lease_conflicts_1h, "late result")
        line.append(f", {late} refused in the last hour", pens.of(Tone.WARN))
    return line


def _counted(health: StatusHealth, said: str) -> str:
    """Return the sentences behind their number and their age: the line may end before them."""
    many = len(health.problems) or len(health.notes)
    facts = [f"{many} things"] if many > 1 else []
    if health.checks_age_ms is not None and health.checks_age_ms >= _OLD_CHECKS_MS:
        facts.append(f"looked at {age(health.checks_age_ms)} ago")
    return f"({', '.join(facts)}) {said}" if facts else said


def _second(console: Console, board: Board | None, now_ns: int, look: Look) -> Text:
    old = age(console.age_ns(now_ns) // 1_000_000)
    warn = look.pens.of(Tone.WARN)
    if board is None:
        return Text(console.problem or ("the store takes its time" if console.slow(now_ns) else ""), style=warn)
    if console.problem:
        return Text(f"as it was {old} ago: {console.problem}", style=look.pens.of(Tone.BAD))
    if console.frozen:
        return Text(f"held still, as it was {old} ago: Space goes on", style=warn)
    if console.slow(now_ns) or console.stale(now_ns):
        return Text(f"as it was {old} ago: the store takes its time", style=warn)
    return _health(board, look)


def _prompt(console: Console, now_ns: int, look: Look) -> Text:
    pens = look.pens
    if console.mode is Mode.CONFIRM and console.confirming is not None:
        action = console.confirming
        what = printable(action.target) or "the whole queue"
        return Text(f"{action.verb.value} {what}? y does it, any other key does not", style="bold reverse")
    if console.mode is Mode.FILTER:
        return Text(f"/{console.filter}_", style="bold")
    if console.message:
        return Text(printable(console.message), style="bold")
    if console.acting is not None:
        return Text(f"{console.acting.verb.value} {printable(console.acting.target)} ...", style=pens.of(Tone.FAINT))
    if console.mode is Mode.DETAIL:
        return Text(printable(console.detail_of), style="bold")
    if console.filter:
        return Text(f"only rows with {console.filter!r}: Escape shows all", style=pens.of(Tone.WARN))
    return Text("")


def _keys(console: Console) -> Text:
    match console.mode:
        case Mode.DETAIL:
            said = "q back  j/k scroll"
        case Mode.HELP:
            said = "any key goes back"
        case Mode.FILTER:
            said = "Enter keep  Esc clear"
        case _:
            acts = () if console.read_only else ("C cancel", "R replay", "P pause")
            said = "? help"
            for key in ("q quit", "Tab pane", "Enter details", "/ filter", *acts, "Space hold"):
                if cell_len(said) + 2 + len(key) <= console.width:
                    said += f"  {key}"
    return Text(said, style="dim")
