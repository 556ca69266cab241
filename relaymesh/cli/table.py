"""Answers for a person at a terminal: tables, colours by status, local time.

What comes from outside (errors, outputs, log lines) is shown with its control characters escaped, so that no payload
can steer the terminal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import click
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from relaymesh.view import (
    BatchLine,
    Event,
    Explanation,
    LeaseConflict,
    LogEntry,
    ReplayBatchOutcome,
    StatsOutcome,
    SubmitOutcome,
    TaskSummary,
    TaskView,
    View,
    WorkflowDetail,
    WorkflowStep,
)

__all__ = ["line", "printable", "show"]

_STATUS_STYLE = {
    "SUCCESS": "green",
    "RUNNING": "cyan",
    "PENDING": "yellow",
    "RETRYING": "yellow",
    "DEAD_LETTER": "red",
    "FAILED": "red",
    "CANCELLED": "magenta",
}
# What fits beside an id on a narrow terminal; JSON has the rest.
_COLUMNS: Mapping[type[View], tuple[str, ...]] = {
    TaskSummary: ("task_id", "status", "updated_at_ms", "last_error"),
    WorkflowStep: ("step_id", "agent_id", "status", "attempt", "depends_on"),
    LeaseConflict: ("step_id", "event_type", "expected_lease_epoch", "actual_lease_epoch", "occurred_at_ms"),
}
_SHORTENED = ("last_error", "message", "depends_on")
_TEXT_CHARS_MIN = 4
_PADDING = 3
_LEVEL_COLOUR = {"warning": "yellow", "error": "red", "critical": "red"}


def show(answer: View | Sequence[View] | Sequence[str], *, empty: str) -> None:
    """Print one answer; ``empty`` when it has no rows."""
    console = Console(highlight=False, soft_wrap=False)
    match answer:
        case SubmitOutcome():
            console.print(Text(f"{answer.task_id}  {printable(answer.message)}"))
        case TaskView():
            console.print(_task(answer))
        case WorkflowDetail():
            console.print(Group(_pairs(answer.task), _rows(answer.steps, console.width)))
        case ReplayBatchOutcome():
            console.print(Text(f"{answer.replayed} of {answer.total} replayed, {answer.failed} failed"))
            if answer.details:
                console.print(_rows(answer.details, console.width))
        case StatsOutcome():
            console.print(_stats(answer))
        case View():
            console.print(_pairs(answer))
        case []:
            console.print(Text(empty))
        case [Explanation(), *_]:
            console.print(Group(*(_explanation(why) for why in answer if isinstance(why, Explanation))))
        case [str(), *_]:
            console.print(Text("\n".join(printable(str(item)) for item in answer)))
        case _:
            console.print(_rows([row for row in answer if isinstance(row, View)], console.width))


def line(item: View) -> None:
    """Print one item of a stream on one line."""
    match item:
        case LogEntry():
            level = click.style(f"{item.level:<8}", fg=_LEVEL_COLOUR.get(item.level.lower()))
            head = f"{_clock(item.at_ms)} {item.step_id} #{item.attempt}"
            click.echo(f"{click.style(head, dim=True)} {level} {printable(item.text)}")
        case Event():
            parts = [_clock(item.at_ms), item.step_id or item.task_id, item.kind, item.status, item.detail]
            click.echo("  ".join(printable(part) for part in parts if part))
        case BatchLine():
            what = item.task_id or f"{item.code}: {item.message}"
            click.echo(f"line {item.line}: {item.result} {printable(what)}")
        case _:
            pairs = ((name.replace("_", " "), getattr(item, name)) for name in item.__struct_fields__)
            click.echo(", ".join(f"{name} {printable(str(value))}" for name, value in pairs))


def printable(text: str) -> str:
    """Return ``text`` on one line, with what a terminal would act on escaped."""
    return "".join(mark if mark.isprintable() else mark.encode("unicode_escape").decode("ascii") for mark in text)


def _task(task: TaskView) -> RenderableType:
    import json

    try:
        outputs = json.loads(task.result_payload or "null")
    except ValueError:
        outputs = task.result_payload
    parts: list[RenderableType] = [_pairs(task, leave_out=("result_payload",))]
    if isinstance(outputs, Mapping):
        for step_id, output in outputs.items():
            parts += [Text(f"output of {step_id}", style="bold"), Text(printable(str(output)))]
    elif outputs is not None:
        parts += [Text("result", style="bold"), Text(printable(str(outputs)))]
    return Group(*parts)


def _explanation(why: Explanation) -> RenderableType:
    lines = [f"{why.step_id}: {why.reason}, since {_instant(why.since_ms)}", f"  {printable(why.detail)}"]
    return Text("\n".join([*lines, f"  try: {why.command}"] if why.command else lines))


def _stats(stats: StatsOutcome) -> RenderableType:
    """Only what is not nought: most counters of a small root are."""
    nought = [name for name in stats.__struct_fields__ if getattr(stats, name) in (0, {})]
    return _pairs(stats, leave_out=nought)


def _pairs(view: View, *, leave_out: Sequence[str] = ()) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name in view.__struct_fields__:
        if name not in leave_out:
            grid.add_row(Text(_title(name), style="bold"), _cell(name, getattr(view, name)))
    return grid


def _rows(views: Sequence[View], columns_wide: int) -> Table:
    # Columns that are empty in every row only take room.
    columns = _COLUMNS.get(type(views[0]), views[0].__struct_fields__)
    names = [name for name in columns if any(getattr(view, name) not in (None, ()) for view in views)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    rows = [[_cell(name, getattr(view, name)) for name in names] for view in views]
    widths = [
        max(len(_title(name)), *map(len, cells)) for name, cells in zip(names, zip(*rows, strict=True), strict=True)
    ]
    # Ids are there to be copied whole: what gives way is the text beside them.
    taken = sum(width + _PADDING for name, width in zip(names, widths, strict=True) if name not in _SHORTENED)
    for name, width in zip(names, widths, strict=True):
        room = max(_TEXT_CHARS_MIN, columns_wide - taken - _PADDING) if name in _SHORTENED else width
        table.add_column(_title(name), overflow="ellipsis", no_wrap=True, max_width=min(width, room))
    for row in rows:
        table.add_row(*row)
    return table


def _title(name: str) -> str:
    is_instant = name.endswith("at_ms") or name == "since_ms"
    return (name.removesuffix("_ms") if is_instant else name).replace("_", " ")


def _cell(name: str, value: object) -> Text:
    match value:
        case None:
            return Text("-", style="dim")
        case bool():
            return Text("yes" if value else "no")
        case int() if name.endswith("at_ms") or name == "since_ms":
            return Text(_instant(value))
        case Mapping():
            return Text(", ".join(f"{printable(str(key))} {count}" for key, count in value.items()))
        case tuple() | list():
            return Text(", ".join(printable(str(item)) for item in value))
        case _:
            return Text(printable(str(value)), style=_STATUS_STYLE.get(str(value), ""))


def _instant(at_ms: int) -> str:
    """Local time; the day only when it is another one."""
    instant = datetime.fromtimestamp(at_ms / 1000)
    return instant.strftime("%H:%M:%S" if instant.date() == datetime.now().date() else "%Y-%m-%d %H:%M")


def _clock(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000).strftime("%H:%M:%S.%f")[:-3]
