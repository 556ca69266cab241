"""What a query brought, as rows that can be selected, filtered and opened. All of it is printable from here on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import wrap
from typing import TYPE_CHECKING, TypeVar

from relaymesh.console.words import age
from relaymesh.core.console_event import Row
from relaymesh.core.console_history import Sample
from relaymesh.core.console_layout import Pane
from relaymesh.core.console_news import Item, Standing
from relaymesh.core.console_tone import member_word
from relaymesh.core.printable import printable

if TYPE_CHECKING:
    from relaymesh.status_view import StatusMember, StatusOutcome
    from relaymesh.view import Explanation, TaskView, View, WorkflowDetail

__all__ = ["Board", "board_of", "paused_of", "rows_of", "sample_of", "standings_of", "task_lines"]

V = TypeVar("V", bound="View")
_OUTPUT_CHARS_MAX = 4_000
_STEPS_SHOWN_MAX = 200
_STOPPING = "it was told to end: it takes nothing new, and waits for what runs"
_DETAIL_WIDTH = 76
"""Sentences of details are broken for the smallest usual terminal."""


@dataclass(frozen=True, slots=True)
class Board:
    """The answer, and what each row stands for, by its key."""

    status: StatusOutcome
    items: Mapping[Pane, Mapping[str, View | Item]] = field(default_factory=dict)


def board_of(status: StatusOutcome, news: Sequence[Item] = ()) -> Board:
    """Return the answer with its rows in reach."""
    return Board(
        status,
        {
            Pane.MEMBERS: {member.node_id: member for member in status.members},
            Pane.QUEUE: {lane.priority: lane for lane in status.lanes},
            Pane.RUNNING: {step.step_id: step for step in status.running},
            Pane.TROUBLE: {step.step_id: step for step in status.trouble},
            Pane.ALERTS: {alert.rule: alert for alert in status.alerts},
            Pane.NEWS: {str(item.number): item for item in news},
        },
    )


def rows_of(status: StatusOutcome, news: Sequence[Item] = ()) -> dict[Pane, tuple[Row, ...]]:
    """Return the rows of each pane."""
    running = status.running
    return {
        Pane.MEMBERS: _rows(
            status.members,
            lambda one: Row(
                one.node_id,
                _words(one.node_id, one.status, one.host or ""),
                lines=_member_lines(status, one),
            ),
        ),
        Pane.QUEUE: _rows(
            status.lanes,
            lambda one: Row(one.priority, one.priority, pauses=one.priority, lines=tuple(_pause_lines(status))),
        ),
        Pane.RUNNING: _rows(
            running,
            lambda one: Row(
                one.step_id, _words(one.step_id, one.agent, one.owner, one.priority), task_id=one.task_id, cancels=True
            ),
        ),
        Pane.TROUBLE: _rows(
            status.trouble,
            lambda one: Row(
                one.step_id,
                _words(one.step_id, one.agent, one.status, one.last_error),
                task_id=one.task_id,
                cancels=one.status == "RETRYING",
                replays=one.status == "DEAD_LETTER",
            ),
        ),
        Pane.ALERTS: _rows(
            status.alerts,
            lambda one: Row(
                one.rule,
                _words(one.rule, one.severity, one.phase),
                lines=(
                    f"{printable(one.rule)}: {printable(one.phase)}, {one.severity}",
                    f"since {age(status.checked_at_ms - one.since_ms)} ago",
                    "",
                    "`relaymesh alerts` shows what became of alerts lately.",
                ),
            ),
        ),
        Pane.NEWS: tuple(
            Row(str(item.number), _words(item.node_id, item.sentence), lines=_news_lines(status, item)) for item in news
        ),
    }


def standings_of(status: StatusOutcome) -> dict[str, Standing]:
    """Return how each node stands, for the news."""
    found = {}
    for one in status.members:
        word = member_word(one.status, process_alive=one.process_alive, drained=one.drained, stopping=one.stopping)
        # That its process has ended is no state of the table: the last heartbeat is the last that was heard of it.
        since_ms = one.heartbeat_age_ms if word == "ENDED" else one.status_age_ms
        found[one.node_id] = Standing(word, status.checked_at_ms - since_ms, one.generation, one.running)
    return found


def sample_of(status: StatusOutcome, at_ns: int) -> Sample:
    """Return what the history keeps of an answer."""
    return Sample(
        at_ns=at_ns,
        waiting=tuple(lane.waiting for lane in status.lanes),
        latency_ms=tuple(lane.latency_p95_ms for lane in status.lanes),
        per_s=status.throughput_per_s,
    )


def paused_of(status: StatusOutcome) -> frozenset[str]:
    """Return what P would resume: the name of a priority, and "" when the whole queue is paused."""
    return frozenset(pause.name for pause in status.pauses if pause.scope in ("overall", "priority"))


def task_lines(task: TaskView, workflow: WorkflowDetail, why: Sequence[Explanation]) -> tuple[str, ...]:
    """Return all that there is to say about one task; long outputs are cut."""
    lines = [
        f"task      {printable(task.task_id)}",
        f"status    {printable(task.status)}",
        f"key       {printable(task.idempotency_key)}",
        f"made      {age(max(0, task.updated_at_ms - task.created_at_ms))} before its last change",
    ]
    if task.last_error:
        lines += ["", "last error", *_lines(task.last_error)]
    for one in why:
        lines += ["", f"{printable(one.step_id)} waits: {printable(one.reason)}", f"  {printable(one.detail)}"]
        lines += [f"  try: {printable(one.command)}"] if one.command else []
    lines += ["", f"steps ({len(workflow.steps)})"]
    for step in workflow.steps[:_STEPS_SHOWN_MAX]:
        lines.append(
            f"  {printable(step.status):<11}  {printable(step.agent_id)}  attempt {step.attempt}"
            f"  {printable(step.step_id)}"
        )
    if len(workflow.steps) > _STEPS_SHOWN_MAX:
        lines.append(f"  and {len(workflow.steps) - _STEPS_SHOWN_MAX} more: `relaymesh workflow` lists all")
    if task.result_payload:
        lines += ["", "result", *_lines(task.result_payload)]
    return tuple(lines)


def _rows(items: Iterable[V], row: Callable[[V], Row]) -> tuple[Row, ...]:
    return tuple(row(item) for item in items)


def _words(*words: str) -> str:
    return " ".join(words)


def _lines(text: str) -> list[str]:
    cut = text[:_OUTPUT_CHARS_MAX]
    more = ["(cut: `relaymesh task` shows all of it)"] if len(text) > len(cut) else []
    return [f"  {printable(line)}" for line in cut.splitlines()] + more


def _member_lines(status: StatusOutcome, member: StatusMember) -> tuple[str, ...]:
    process = {True: "it lives", False: "it has ended", None: "cannot be told from this machine"}
    owned = [step for step in status.running if step.owner == member.node_id]
    return (
        f"node        {printable(member.node_id)}",
        f"state       {printable(member.status)}, since {age(member.status_age_ms)}",
        f"process     {process[member.process_alive]}",
        f"heartbeat   {age(member.heartbeat_age_ms)} ago",
        f"generation  {member.generation}",
        f"machine     {printable(member.host or '-')}, process {member.pid or '-'}",
        f"drained     {'yes: it takes nothing new' if member.drained else 'no'}",
        *([f"stopping    {_STOPPING}"] if member.stopping else []),
        "",
        f"steps that it owns ({member.running})",
        *(
            f"  {printable(step.agent)}  {printable(step.step_id)}  renewed {age(step.lease_age_ms)} ago"
            for step in owned
        ),
        *_said_of(status, member.node_id),
    )


def _said_of(status: StatusOutcome, node_id: str) -> Iterable[str]:
    """Yield what the line of own health says of one node, where there is room for all of it."""
    heads = (f"the worker of {node_id} is paused: ", f"node {node_id}: ")
    for sentence in (*status.health.problems, *status.health.notes):
        if sentence.startswith(heads):
            yield ""
            yield from wrap(printable(sentence), _DETAIL_WIDTH)


def _news_lines(status: StatusOutcome, item: Item) -> tuple[str, ...]:
    return (
        f"{printable(item.node_id)} {item.sentence}",
        f"{age(max(0, status.checked_at_ms - item.at_ms))} ago",
        "",
        "`relaymesh audit-query --action membership.state` shows what was seen of nodes, and by whom.",
    )


def _pause_lines(status: StatusOutcome) -> Iterable[str]:
    if not status.pauses:
        yield "nothing is paused"
    for pause in status.pauses:
        what = f"{pause.scope} {pause.name}".strip()
        reason = f": {pause.reason}" if pause.reason else ""
        yield printable(f"{what} paused {age(max(0, status.checked_at_ms - pause.since_ms))} ago{reason}")
    yield ""
    yield "Of the last minute, by priority:"
    for lane in status.lanes:
        yield f"  {lane.priority:<8} {lane.ended} ended, {lane.waiting} wait"
