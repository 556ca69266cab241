"""How a workflow goes, live: a table that redraws itself on a terminal, a line per event anywhere else."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from relaymesh.cli.table import printable
from relaymesh.core.ident import workflow_step_id
from relaymesh.view import Event

__all__ = ["LinesProgress", "SilentProgress", "Steps", "TableProgress"]

_STYLE: Final = {
    "PENDING": "dim",
    "RUNNING": "cyan",
    "RETRYING": "yellow",
    "SUCCESS": "green",
    "DEAD_LETTER": "red",
    "CANCELLED": "magenta",
}
_ENDED: Final = ("SUCCESS", "DEAD_LETTER", "CANCELLED")
# Under the table there is room for a title, its heading, the sums, and the prompt.
_LINES_BESIDE_ROWS: Final = 8
_REDRAWS_PER_S: Final = 10
_DRAW_EVERY_S: Final = 0.03
_STATE_WIDTH: Final = len("DEAD_LETTER")


@dataclass(slots=True)
class Row:
    """One step as it was last seen. Instants are wall ms; started_at_ms is None before the first attempt."""

    name: str
    agent_id: str
    status: str = "PENDING"
    attempt: int = 0
    started_at_ms: int | None = None
    ended_at_ms: int | None = None
    note: str = ""

    def took_ms(self, now_ms: int) -> int | None:
        """How long the last attempt took, or has been taking."""
        if self.started_at_ms is None or self.status == "PENDING":
            return None
        return max(0, (self.ended_at_ms or now_ms) - self.started_at_ms)


@dataclass(slots=True)
class Steps:
    """All steps of a task, in the order of the workflow; ``take`` follows its events."""

    rows: dict[str, Row] = field(default_factory=dict)

    @classmethod
    def of(cls, task_id: str, agents: Mapping[str, str]) -> Steps:
        """Return the steps of a task. agents: those of its steps, by their ids in the workflow."""
        return cls({workflow_step_id(task_id, name): Row(name, agent) for name, agent in agents.items()})

    def take(self, event: Event, started_at_ms: int | None) -> Row | None:
        """Note what happened; return the row of the step, None for an event of the task."""
        row = self.rows.get(event.step_id or "")
        if row is None:
            return None
        row.status, row.attempt = event.status or row.status, event.attempt or row.attempt
        row.started_at_ms = started_at_ms
        row.ended_at_ms = None if row.status == "RUNNING" else event.at_ms
        if event.detail:
            row.note = printable(event.detail)
        elif row.status == "SUCCESS":
            row.note = "failed before" if row.attempt > 1 else ""
        return row

    def counts(self) -> str:
        """Say how many steps are done, run, and wait."""
        states = [row.status for row in self.rows.values()]
        done, running = states.count("SUCCESS"), states.count("RUNNING")
        retrying, failed = states.count("RETRYING"), states.count("DEAD_LETTER")
        parts = [f"{done} of {len(states)} steps done"]
        parts += [f"{count} {word}" for count, word in ((running, "running"), (retrying, "retrying")) if count]
        parts += [f"{failed} failed"] if failed else []
        return ", ".join(parts)


class TableProgress:
    """A context manager that keeps a table of the steps at the bottom of a terminal."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._console = Console(highlight=False)
        self._began = time.monotonic()
        self._drawn = 0.0
        self._live = Live(
            console=self._console,
            get_renderable=self._draw,
            refresh_per_second=_REDRAWS_PER_S,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> TableProgress:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def changed(self, row: Row) -> None:
        """Draw at once, unless that was done just now: a step may be over before the next redraw."""
        now = time.monotonic()
        if row.status != "PENDING" and now - self._drawn > _DRAW_EVERY_S:
            self._drawn = now
            self._live.refresh()

    def _draw(self) -> RenderableType:
        now_ms = time.time_ns() // 1_000_000
        shown, hidden = _window(list(self._steps.rows.values()), self._console.height - _LINES_BESIDE_ROWS)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
        for title, texts, widest in (
            ("step", [printable(row.name) for row in shown], 24),
            ("agent", [row.agent_id for row in shown], 18),
        ):
            # Without a least width they would shrink for the sake of a long note.
            width = min(widest, max(len(title), *map(len, texts)))
            table.add_column(title, min_width=width, max_width=width, no_wrap=True, overflow="ellipsis")
        table.add_column("state", min_width=_STATE_WIDTH, no_wrap=True)
        table.add_column("attempt", justify="right", min_width=len("attempt"), no_wrap=True)
        table.add_column("time", justify="right", min_width=len("1000 ms"), no_wrap=True)
        table.add_column("", no_wrap=True, overflow="ellipsis")
        for row in shown:
            table.add_row(
                Text(printable(row.name)),
                Text(printable(row.agent_id), style="dim"),
                Text(row.status, style=_STYLE.get(row.status, "")),
                Text(str(row.attempt) if row.attempt else ""),
                Text(_duration(row.took_ms(now_ms))),
                Text(row.note, style="dim"),
            )
        more = f" ({hidden} not shown)" if hidden else ""
        sums = Text(f"{self._steps.counts()} in {time.monotonic() - self._began:.1f} s{more}", style="bold")
        return Group(table, sums)


class LinesProgress:
    """The same interface, one line per thing that happened; ``write`` takes a line without its end."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._began = time.monotonic()
        names = [printable(row.name) for row in steps.rows.values()]
        agents = [row.agent_id for row in steps.rows.values()]
        self._widths = (max(map(len, names)), max(map(len, agents)))

    def __enter__(self) -> LinesProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        print(f"{self._steps.counts()} in {time.monotonic() - self._began:.1f} s", flush=True)

    def changed(self, row: Row) -> None:
        """Print what happened, but not what is only about to happen."""
        if row.status not in (*_ENDED, "RETRYING"):
            return
        name, agent = (text.ljust(width) for text, width in zip((row.name, row.agent_id), self._widths, strict=True))
        took = _duration(row.took_ms(row.ended_at_ms or 0))
        note = f"  {row.note}" if row.note else ""
        at = f"{time.monotonic() - self._began:5.2f} s"
        print(f"{at}  {printable(name)}  {agent}  {row.status:<8} attempt {row.attempt} {took:>8}{note}", flush=True)


class SilentProgress(contextlib.nullcontext[None]):
    """The same interface for programs, which get one document at the end."""

    def changed(self, row: Row) -> None:
        """Say nothing."""


def _window(rows: list[Row], room: int) -> tuple[list[Row], int]:
    """Return the rows that fit, in their order, and how many do not: what runs or failed before what is over."""
    room = max(3, room)
    if len(rows) <= room:
        return rows, 0
    urgency = {"RUNNING": 0, "DEAD_LETTER": 1, "RETRYING": 1, "SUCCESS": 2, "CANCELLED": 2, "PENDING": 3}
    order = sorted(
        range(len(rows)), key=lambda number: (urgency.get(rows[number].status, 2), -(rows[number].ended_at_ms or 0))
    )
    kept = sorted(order[:room])
    return [rows[number] for number in kept], len(rows) - room


def _duration(took_ms: int | None) -> str:
    if took_ms is None:
        return ""
    return f"{took_ms} ms" if took_ms < 1000 else f"{took_ms / 1000:.1f} s"
