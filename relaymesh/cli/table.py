"""Answers for a person at a terminal: tables, colours by status, local time.

What comes from outside (errors, outputs, log lines) is shown with its control characters escaped, so that no payload
can steer the terminal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime

import click
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from relaymesh.console.words import age
from relaymesh.core.printable import printable
from relaymesh.gossip_view import GossipKey, GossipTickOutcome
from relaymesh.node_view import AlertsOutcome, MeshNode, OwnershipEvent, SloAlertOutcome, StatsOutcome
from relaymesh.outcome import SnapshotDiffOutcome
from relaymesh.rule_view import QueueStatus, SettingsHistoryEntry, SettingView
from relaymesh.schedule_view import ScheduleDetail, ScheduleRun, ScheduleView
from relaymesh.view import (
    BatchLine,
    CancelResult,
    DeadLetterView,
    DiscardOutcome,
    Event,
    Explanation,
    LeaseConflict,
    LogEntry,
    ReplayBatchOutcome,
    ReplayOutcome,
    SubmitOutcome,
    TaskExportOutcome,
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
    SettingsHistoryEntry: ("timestamp", "result", "changed_fields"),
    SettingView: ("key", "value", "source", "raised_to"),
    DeadLetterView: ("task_id", "step_id", "error_class", "updated_at_ms", "last_error"),
    ScheduleView: ("name", "state", "next_tick", "last_task_id"),
    ScheduleRun: ("tick", "kind", "task_id", "status"),
    MeshNode: ("node_id", "status", "note", "age_ms", "rtt_ms", "address"),
    GossipTickOutcome: ("sent", "relayed", "received", "accepted", "deduplicated", "invalid"),
    GossipKey: ("key_id", "primary", "confirmed", "users", "lacking", "not_heard_yet"),
    OwnershipEvent: ("action", "node_id", "step_id", "result", "occurred_at_ms"),
    LeaseConflict: ("step_id", "event_type", "expected_lease_epoch", "actual_lease_epoch", "occurred_at_ms"),
}
# What gives way when a table is too wide, in this order, and the characters that it keeps. Ids of tasks are not among
# them: they are there to be copied whole.
_GIVES_WAY = {"last_error": 4, "message": 4, "address": 15, "depends_on": 10, "step_id": 16, "agent_id": 12}
_PADDING = 3
# The id of a step of a workflow begins with that of its task, which leaves no room for anything else on a line.
_STEP_OF_WORKFLOW = re.compile(r"stp_tsk_[0-9a-f-]{36}_(.+)", re.DOTALL)
_LEVEL_COLOUR = {"warning": "yellow", "error": "red", "critical": "red"}


def show(answer: View | Sequence[View] | Sequence[str], *, empty: str) -> None:
    """Print one answer; ``empty`` when it has no rows."""
    console = Console(highlight=False, soft_wrap=False)
    match answer:
        case SubmitOutcome(deduplicated=True):
            _say(console, f"{answer.task_id}  stored before, nothing new was made")
            _say(console, "To run the same once more, give it a key of its own: --idempotency-key KEY")
        case SubmitOutcome():
            _say(console, f"{answer.task_id}  {printable(answer.message)}")
        case TaskView():
            _task(console, answer)
        case WorkflowDetail():
            console.print(Group(_pairs(answer.task), _rows(answer.steps, console.width)))
        case ScheduleDetail():
            schedule = _pairs(answer.schedule, leave_out=("next_tick_ms", "last_tick_ms", "input_sha256"))
            console.print(Group(schedule, *([_rows(answer.runs, console.width)] if answer.runs else [])))
        case CancelResult(cancelled=False):
            _say(console, f"{printable(answer.task_id)}  not cancelled: {_why_not(answer.message)}")
        case DiscardOutcome(discarded=False):
            _say(console, f"{printable(answer.task_id)}  not discarded: {_why_not(answer.message)}")
        case ReplayOutcome(replayed=False):
            _say(console, f"{printable(answer.task_id)}  not replayed: {_why_not(answer.message)}")
        case TaskExportOutcome(exported=False):
            _say(console, f"{printable(answer.task_id)}  not exported: {printable(answer.output)}")
        case ReplayBatchOutcome():
            _say(console, f"{answer.replayed} of {answer.total} replayed, {answer.failed} failed")
            if answer.details:
                console.print(_rows(answer.details, console.width))
        case StatsOutcome():
            console.print(_stats(answer))
        case QueueStatus():
            console.print(_pairs(answer, leave_out=("pauses",)))
            if answer.pauses:
                console.print(_rows(answer.pauses, console.width))
        case SnapshotDiffOutcome():
            console.print(_pairs(answer, leave_out=("changes",)))
            if answer.changes:
                console.print(_rows(answer.changes, console.width))
        case SloAlertOutcome():
            console.print(_pairs(answer, leave_out=["alerts"]))
            if answer.alerts:
                console.print(_rows(answer.alerts, console.width))
        case AlertsOutcome():
            _alerts(console, answer)
        case View():
            # What is itself a whole answer has a command of its own: the counts of a benchmark are in `stats`.
            inner = [name for name in answer.__struct_fields__ if isinstance(getattr(answer, name), View)]
            lists = [name for name in answer.__struct_fields__ if _of_views(getattr(answer, name))]
            console.print(_pairs(answer, leave_out=[*inner, *lists]))
            for name in lists:
                console.print(_rows(getattr(answer, name), console.width))
        case []:
            _say(console, empty)
        case [Explanation(), *_]:
            for why in answer:
                if isinstance(why, Explanation):
                    _explain(console, why)
        case [str(), *_]:
            _say(console, "\n".join(printable(str(item)) for item in answer))
        case _:
            console.print(_rows([row for row in answer if isinstance(row, View)], console.width))


def line(item: View) -> None:
    """Print one item of a stream on one line."""
    match item:
        case LogEntry():
            level = click.style(f"{item.level:<8}", fg=_LEVEL_COLOUR.get(item.level.lower()))
            head = f"{_clock(item.at_ms)} {printable(_step(item.step_id))} #{item.attempt}"
            click.echo(f"{click.style(head, dim=True)} {level} {printable(item.text)}")
        case Event():
            parts = [_clock(item.at_ms), _step(item.step_id or item.task_id), item.kind, item.status, item.detail]
            click.echo("  ".join(printable(part) for part in parts if part))
        case BatchLine():
            what = item.task_id or f"{item.code}: {item.message}"
            click.echo(f"line {item.line}: {item.result} {printable(what)}")
        case _:
            pairs = ((name.replace("_", " "), getattr(item, name)) for name in item.__struct_fields__)
            click.echo(", ".join(f"{name} {printable(str(value))}" for name, value in pairs))


def _say(console: Console, text: str, style: str = "") -> None:
    """Print text that the terminal may wrap but we do not, so that it is whole when it is copied."""
    console.print(Text(text, style=style), soft_wrap=True)


def _why_not(message: str) -> str:
    """The sentence for what a program reads as one word."""
    match message.partition(":"):
        case "not_found", _, _:
            return "there is no such task here, `relaymesh tasks` lists what there is"
        case "terminal_state", _, status:
            return f"it has already ended as {printable(status)}"
        case "invalid_state", _, _:
            return "only a task in DEAD_LETTER can be"
        case "stale", _, _:
            return "the cluster epoch has changed meanwhile, try again"
    return printable(message)


def _step(step_id: str) -> str:
    """What the workflow calls its step; a step that is a task of its own has only its id."""
    found = _STEP_OF_WORKFLOW.fullmatch(step_id)
    return found[1] if found is not None else step_id


def _task(console: Console, task: TaskView) -> None:
    import json

    try:
        outputs = json.loads(task.result_payload or "null")
    except ValueError:
        outputs = task.result_payload
    console.print(_pairs(task, leave_out=("result_payload",)))
    if isinstance(outputs, Mapping):
        for step_id, output in outputs.items():
            _say(console, f"output of {printable(_step(step_id))}", "bold")
            _say(console, _printable_lines(str(output)))
    elif outputs is not None:
        _say(console, "result", "bold")
        _say(console, _printable_lines(str(outputs)))


def _printable_lines(text: str) -> str:
    return "\n".join(printable(line.removesuffix("\r")) for line in text.removesuffix("\n").split("\n"))


def _alerts(console: Console, alerts: AlertsOutcome) -> None:
    """What fires or may soon, then what became of alerts lately, each on a line."""
    standing = [rule for rule in alerts.rules if rule.phase != "ok"]
    if standing:
        console.print(_rows(standing, console.width))
    else:
        _say(console, "no alert fires")
    for change in alerts.recent:
        said = " ".join(str(change.get(name, "")) for name in ("timestamp", "rule", "event", "severity", "node_id"))
        _say(console, printable(f"{said}: {change.get('observed')}, target {change.get('target')}"))


def _explain(console: Console, why: Explanation) -> None:
    _say(console, f"{printable(_step(why.step_id))}: {why.reason}, since {_instant(why.since_ms)}")
    _say(console, f"  {printable(why.detail)}")
    if why.command:
        _say(console, f"  try: {why.command}")


def _stats(stats: StatsOutcome) -> RenderableType:
    """Only what is not nought: most counters of a small root are."""
    nought = [name for name in stats.__struct_fields__ if getattr(stats, name) in (0, {})]
    return _pairs(stats, leave_out=nought)


def _pairs(view: View, *, leave_out: Sequence[str] = (), only: Sequence[str] = ()) -> Table:
    grid = Table.grid(padding=(0, 1))  # so that a derived idempotency key fits into 80 columns
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name in view.__struct_fields__:
        if name not in leave_out and (not only or name in only):
            grid.add_row(Text(_title(name), style="bold"), _cell(name, getattr(view, name)))
    return grid


def _rows(views: Sequence[View], columns_wide: int) -> RenderableType:
    """A line for each; or, where the lines cannot be made to fit, a line for each value."""
    # Columns that are empty in every row only take room.
    columns = _COLUMNS.get(type(views[0]), views[0].__struct_fields__)
    names = [name for name in columns if any(getattr(view, name) not in (None, (), "") for view in views)]
    rows = [[_cell(name, getattr(view, name)) for name in names] for view in views]
    widths = {name: max(len(_title(name)), *(row[at].cell_len for row in rows)) for at, name in enumerate(names)}
    missing = sum(widths.values()) + _PADDING * len(names) - columns_wide
    for name, chars_min in _GIVES_WAY.items():
        if name in widths:
            less = max(0, min(missing, widths[name] - chars_min))
            widths[name] -= less
            missing -= less
    if missing > 0:
        return Group(*(part for view in views for part in (_pairs(view, only=names), Text(""))))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, width in widths.items():
        table.add_column(_title(name), overflow="ellipsis", no_wrap=True, width=width)
    for row in rows:
        table.add_row(*row)
    return table


def _of_views(value: object) -> bool:
    return isinstance(value, tuple) and bool(value) and isinstance(value[0], View)


def _title(name: str) -> str:
    is_instant = name.endswith(("at_ms", "age_ms")) or name == "since_ms"
    return (name.removesuffix("_ms") if is_instant else name).replace("_", " ")


def _cell(name: str, value: object) -> Text:
    match value:
        case None:
            return Text("-", style="dim")
        case float():
            return Text(f"{value:,.1f}")
        case bool() if name in ("value", "default"):  # of a setting, where true is what one writes
            return Text("true" if value else "false")
        case bool():
            return Text("yes" if value else "no")
        case int() if name.endswith("at_ms") or name == "since_ms":
            return Text(_instant(value))
        case int() if name.endswith("age_ms"):
            return Text(age(value))
        case Mapping():
            return Text(", ".join(f"{printable(str(key))} {count}" for key, count in value.items()))
        case tuple() | list() if name == "depends_on":
            return Text(", ".join(printable(_step(str(item))) for item in value))
        case tuple() | list():
            return Text(", ".join(printable(str(item)) for item in value))
        case str() if name == "step_id":
            return Text(printable(_step(value)))
        case _:
            return Text(printable(str(value)), style=_STATUS_STYLE.get(str(value), ""))


def _instant(at_ms: int) -> str:
    """Local time; the day only when it is another one."""
    instant = datetime.fromtimestamp(at_ms / 1000)
    return instant.strftime("%H:%M:%S" if instant.date() == datetime.now().date() else "%Y-%m-%d %H:%M")


def _clock(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000).strftime("%H:%M:%S.%f")[:-3]
