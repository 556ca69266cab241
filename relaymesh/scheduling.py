"""What can be asked of the schedules of a root; ``Client.schedules`` is one of these.

    create ──▶ checked (relaymesh.schedule_draft) ──▶ one row
    list, show, next                    look
    pause, resume, delete, trigger      one transaction each
    backfill                            ticks of a past span, each at most once, in groups

Whatever changes something is recorded in the audit log. When ticks are made is decided in ``relaymesh.core.schedule``,
made they are by a running node, or by ``maintenance``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Final

from relaymesh.argument import (
    check_text,
    check_text_or_none,
    check_time,
    check_whole_number,
)
from relaymesh.core.limit import INSTANT_MS_MAX
from relaymesh.core.nearest import quoted
from relaymesh.core.priority import normalize_priority
from relaymesh.core.schedule import JITTER_MS_MAX, MISSED_MAX, Missed, Overlap, ticks_between
from relaymesh.errors import InputError
from relaymesh.schedule_draft import (
    BadScheduleError,
    amounts_of,
    calendar_of,
    check_name,
    labels_text,
    policy_of,
    target_of,
)
from relaymesh.schedule_view import BackfillOutcome, NextTick, ScheduleChange, ScheduleDetail, ScheduleRun, ScheduleView
from relaymesh.store import schedule as rows
from relaymesh.store.schedule import ScheduleRow
from relaymesh.store.schedule_budget import schedule_budget, schedule_budgets, store_schedule_budget
from relaymesh.store.schedule_fire import make_ticks, tick_text, trigger
from relaymesh.store.zone import zone_of

if TYPE_CHECKING:
    from relaymesh.door.submit import Submits
    from relaymesh.store.payload import ReadText
    from relaymesh.workflow import Workflow

__all__ = [
    "BACKFILL_MAX",
    "BackfillSpanError",
    "Schedules",
]

BACKFILL_MAX: Final = 1_000
"""Ticks of one backfill."""
_BACKFILL_GROUP: Final = 100


class BackfillSpanError(InputError):
    """The span of a backfill cannot be made."""

    code = "bad_backfill"

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)


class Schedules:
    """The schedules of one root, by the client that opened it."""

    def __init__(self, client: Submits) -> None:
        self._client = client

    # -- change ------------------------------------------------------------------------------------------------------

    def create(
        self,
        name: str,
        *,
        cron: str | None = None,
        every_ms: int | None = None,
        at_ms: int | None = None,
        timezone: str = "UTC",
        agent: str | None = None,
        input: str | object = "",
        workflow: Workflow | bytes | str | Mapping[str, object] | None = None,
        priority: str | None = None,
        labels: Mapping[str, str] | None = None,
        missed: str = "latest",
        missed_max: int = 10,
        jitter_ms: int = 0,
        overlap: str = "allow",
        budget: Mapping[str, int | float | str] | None = None,
    ) -> ScheduleView:
        """Store a schedule; its first tick is the first one after now.

        cron: five fields, or ``@daily`` and the like, in the time of ``timezone``. every_ms: 1,000 and more. at_ms: one
            tick only. One of the three.
        agent, input: what each tick submits; or workflow.
        missed: ``skip``, ``latest`` or ``all`` (at most ``missed_max``, 1 to 100). overlap: ``allow``, ``skip`` or
            ``queue``. jitter_ms: a run starts up to this much after its tick, by default at once; 24 hours at most.
        budget: what each run may spend in all; beats that of a workflow file, kind by kind.

        Raises:
            BadCronError, UnknownZoneError, BadScheduleError, ScheduleExistsError, UnknownAgentError, WorkflowError,
            BadBudgetError, InputError: nothing was stored.
        """
        client = self._client
        check_name(name)
        for key, value in (("every_ms", every_ms), ("at_ms", at_ms), ("jitter_ms", jitter_ms)):
            check_time(key, value)
        check_whole_number("missed_max", missed_max)
        check_text("timezone", timezone)
        now_ms = client._now_ms()
        kind, expression, anchor_ms = calendar_of(cron, every_ms, at_ms, now_ms)
        zone_of(timezone)
        missed_policy = policy_of("missed", missed, Missed)
        overlap_policy = policy_of("overlap", overlap, Overlap)
        if not 1 <= missed_max <= MISSED_MAX:
            raise BadScheduleError("the number of missed ticks", f"is {missed_max}: write 1 to {MISSED_MAX}")
        if not 0 <= jitter_ms <= JITTER_MS_MAX:
            raise BadScheduleError("the jitter", f"is {jitter_ms} ms: write 0 to {JITTER_MS_MAX:,}, which is a day")
        amounts = amounts_of(budget)
        agent_id, payload = target_of(client, agent, input, workflow, priority)
        row = ScheduleRow(
            schedule_id="sch_" + client._ids.task()[4:],
            name=name,
            namespace=client.namespace,
            state="ACTIVE",
            kind=kind,
            expression=expression,
            zone=timezone,
            every_ms=every_ms,
            anchor_ms=anchor_ms,
            missed=missed_policy,
            missed_max=missed_max,
            jitter_ms=jitter_ms,
            overlap=overlap_policy,
            agent_id=agent_id,
            payload=payload,
            priority=normalize_priority(priority) if agent_id is not None or priority is not None else None,
            labels=labels_text(labels),
            cursor_ms=now_ms,
            next_tick_ms=None,
            queued_tick_ms=None,
            last_tick_ms=None,
            last_task_id=None,
            last_error=None,
            known_from_ms=0,
            made=0,
            passed_over=0,
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
        )
        from dataclasses import replace

        store = client._writable()
        kept, trace = store.payloads.in_row("schedule", row.schedule_id, payload), store.payloads.seal.trace(payload)
        row = replace(row, payload=kept, next_tick_ms=row.calendar().after(now_ms))
        with store.write():
            rows.insert_schedule(store.conn, row)
            store_schedule_budget(store.conn, row.schedule_id, amounts, now_ms=now_ms)
        client._wake()
        self._record(
            "create",
            name,
            "created",
            kind=kind,
            cron=expression or None,
            every_ms=every_ms,
            at_ms=at_ms,
            timezone=timezone,
            agent=agent_id,
            missed=row.missed,
            missed_max=missed_max,
            jitter_ms=jitter_ms,
            overlap=row.overlap,
            budget=_amounts(amounts),
            input_bytes=trace["bytes"],
            input_sha256=trace.get("sha256"),
            input_keyed_hash=trace.get("keyed_hash"),
        )
        return _view(row, store.payloads.text, amounts)

    def pause(self, name: str) -> ScheduleChange:
        """Make no more ticks until ``resume``; what runs goes on.

        Raises:
            ScheduleNotFoundError
        """
        store = self._client._writable(create=False)
        with store.write():
            state = rows.read_schedule(store.conn, name).state
            changed = rows.pause_schedule(store.conn, name, now_ms=self._client._now_ms())
        return self._changed("pause", name, changed, "paused", "PAUSED" if changed else state)

    def resume(self, name: str) -> ScheduleChange:
        """Go on from now; the ticks of the pause are not made (``backfill`` makes them).

        Raises:
            ScheduleNotFoundError, UnknownZoneError
        """
        store = self._client._writable(create=False)
        with store.write():
            changed = rows.resume_schedule(
                store.conn, rows.read_schedule(store.conn, name), now_ms=self._client._now_ms()
            )
            state = rows.read_schedule(store.conn, name).state
        self._client._wake()
        return self._changed("resume", name, changed, "resumed", state)

    def delete(self, name: str) -> ScheduleChange:
        """Take the schedule away; its tasks stay and go on.

        Raises:
            ScheduleNotFoundError
        """
        store = self._client._writable(create=False)
        with store.write():
            changed = rows.delete_schedule(store.conn, rows.read_schedule(store.conn, name))
        return self._changed("delete", name, changed, "deleted", None)

    def trigger(self, name: str) -> ScheduleChange:
        """Start one run now, whatever the state and the policies say; the ticks of the calendar stay as they are.

        Raises:
            ScheduleNotFoundError, WorkflowError
        """
        client = self._client
        store = client._writable(create=False)
        with store.write():
            row = rows.read_schedule(store.conn, name)
            fired = trigger(store.press(now_ms=client._now_ms()), row)
        client._wake()
        assert fired.task is not None and fired.stored is not None
        client._desk.stored([fired.task], [fired.stored])
        return self._changed("trigger", name, True, "submitted", row.state, task_id=fired.stored[0])

    def backfill(self, name: str, *, from_ms: int, to_ms: int | None = None) -> BackfillOutcome:
        """Make the ticks of a past span, both ends inclusive, that were not made; at once, whatever the policies say.

        to_ms: now, when it is left out. Each tick is made at most once, so after a crash the same call makes the rest.

        Raises:
            BackfillSpanError: it ends before it begins, lies ahead, has more than 1,000 ticks, or reaches back to
                where ticks are no longer remembered; nothing was changed.
            ScheduleNotFoundError, UnknownZoneError, WorkflowError
        """
        client = self._client
        check_time("from_ms", from_ms)
        check_time("to_ms", to_ms)
        store = client._writable(create=False)
        with store.reading():
            row = rows.read_schedule(store.conn, name)
        now_ms = client._now_ms()
        until_ms = now_ms if to_ms is None else to_ms
        _check_span(row, from_ms, until_ms, now_ms)
        ticks = ticks_between(row.calendar(), from_ms, until_ms, BACKFILL_MAX + 1)
        if len(ticks) > BACKFILL_MAX:
            raise BackfillSpanError(
                f"the span has more than {BACKFILL_MAX:,} ticks: end it at {tick_text(ticks[BACKFILL_MAX - 1])}, and"
                " go on from there"
            )
        task_ids: list[str] = []
        left = iter(ticks)
        while group := tuple(islice(left, _BACKFILL_GROUP)):
            with store.write():
                # Again in each transaction: it may have been deleted meanwhile.
                row = rows.read_schedule(store.conn, name)
                made = make_ticks(store.press(now_ms=client._now_ms()), row, group)
            client._wake()
            stored = [(tick.task, tick.stored) for tick in made if tick.task is not None and tick.stored is not None]
            client._desk.stored([task for task, _ in stored], [answer for _, answer in stored])
            task_ids += [fired.stored[0] for fired in made if fired.stored is not None]
        self._record(
            "backfill",
            name,
            "ok",
            from_ms=from_ms,
            to_ms=until_ms,
            ticks=len(ticks),
            submitted=len(task_ids),
        )
        return BackfillOutcome(
            name=name,
            from_ms=from_ms,
            to_ms=until_ms,
            ticks=len(ticks),
            submitted=len(task_ids),
            already_made=len(ticks) - len(task_ids),
            task_ids=tuple(task_ids),
        )

    # -- look --------------------------------------------------------------------------------------------------------

    def list(self, *, state: str | None = None, limit: int = 1000, after: str = "") -> Sequence[ScheduleView]:
        """Return schedules by name, from behind the name ``after`` on."""
        check_text_or_none("state", state)
        if state is not None and state not in rows.STATES:
            raise InputError(f"there is no state {quoted(state)} of a schedule: use {', '.join(rows.STATES)}")
        check_whole_number("limit", limit)
        check_text("after", after)
        store = self._client._readable()
        with store.reading():
            found = rows.list_schedules(store.conn, state=state, limit=limit, after=after)
            budgets = schedule_budgets(store.conn, [row.schedule_id for row in found])
        return [_view(row, store.payloads.text, budgets.get(row.schedule_id, ())) for row in found]

    def show(self, name: str, *, runs: int = 10) -> ScheduleDetail:
        """Return one schedule with the ticks that were made last.

        Raises:
            ScheduleNotFoundError
        """
        check_whole_number("runs", runs)
        store = self._client._readable()
        with store.snapshot():
            row = rows.read_schedule(store.conn, name)
            ticks = rows.recent_ticks(store.conn, row.schedule_id, runs)
            budget = schedule_budget(store.conn, row.schedule_id)
            status = dict(
                store.conn.execute(
                    "SELECT task_id, status FROM tasks WHERE task_id IN (SELECT value FROM json_each(?))",
                    (json.dumps([task_id for _, _, task_id, _ in ticks]),),
                ).fetchall()
            )
        return ScheduleDetail(
            schedule=_view(row, store.payloads.text, budget),
            runs=tuple(
                ScheduleRun(
                    tick=tick_text(tick_ms),
                    tick_ms=tick_ms,
                    kind=kind,
                    task_id=task_id,
                    status=status.get(task_id),
                    made_at_ms=made_at_ms,
                )
                for kind, tick_ms, task_id, made_at_ms in ticks
            ),
        )

    def next(self, name: str, *, count: int = 5) -> Sequence[NextTick]:
        """Return the next ticks after now, at most 1,000; of a paused schedule those that it would have.

        Raises:
            ScheduleNotFoundError, UnknownZoneError
        """
        check_whole_number("count", count)
        store = self._client._readable()
        with store.reading():
            row = rows.read_schedule(store.conn, name)
        zone = zone_of(row.zone)
        ticks = ticks_between(row.calendar(), self._client._now_ms() + 1, INSTANT_MS_MAX, min(count, 1000))
        return [
            NextTick(
                tick_ms=tick_ms,
                tick=tick_text(tick_ms),
                local=datetime.fromtimestamp(tick_ms // 1000, UTC).astimezone(zone).isoformat(),
            )
            for tick_ms in ticks
        ]

    # -- inside ------------------------------------------------------------------------------------------------------

    def _changed(
        self, what: str, name: str, changed: bool, message: str, state: str | None, *, task_id: str | None = None
    ) -> ScheduleChange:
        if not changed:
            message = f"invalid_state:{state}"
        self._record(what, name, message, task_id=task_id)
        return ScheduleChange(name=name, changed=changed, message=message, state=state, task_id=task_id)

    def _record(self, what: str, name: str, result: str, *, task_id: str | None = None, **details: object) -> None:
        client = self._client
        client.audit.record(
            f"schedule.{what}",
            actor=client._actor,
            resource=f"schedule/{name}",
            result=result,
            details=details,
            task_id=task_id,
        )


def _check_span(row: ScheduleRow, from_ms: int, to_ms: int, now_ms: int) -> None:
    if to_ms < from_ms:
        raise BackfillSpanError("the span ends before it begins: exchange its ends")
    if to_ms > now_ms:
        raise BackfillSpanError("the span ends in the future: its ticks are made when their time has come")
    if from_ms < row.known_from_ms:
        raise BackfillSpanError(
            f"ticks before {tick_text(row.known_from_ms)} are no longer remembered, so they might be made twice: begin"
            " there"
        )


def _amounts(budget: Sequence[tuple[str, int]]) -> dict[str, str]:
    if not budget:
        return {}
    from relaymesh.core.budget_text import amount_text

    return {kind: amount_text(micros) for kind, micros in budget}


def _view(row: ScheduleRow, read_text: ReadText, budget: Sequence[tuple[str, int]]) -> ScheduleView:
    payload = (read_text("schedule", row.schedule_id, row.payload, None) or "").encode()
    next_ms = row.next_tick_ms if row.state == "ACTIVE" else None
    return ScheduleView(
        name=row.name,
        state=row.state,
        kind=row.kind,
        cron=row.expression or None,
        timezone=row.zone,
        every_ms=row.every_ms,
        next_tick_ms=next_ms,
        next_tick=tick_text(next_ms) if next_ms is not None else None,
        last_tick_ms=row.last_tick_ms,
        last_task_id=row.last_task_id,
        queued_tick_ms=row.queued_tick_ms,
        missed=row.missed,
        missed_max=row.missed_max,
        jitter_ms=row.jitter_ms,
        overlap=row.overlap,
        agent=row.agent_id,
        workflow=row.agent_id is None,
        priority=row.priority,
        labels=dict(row.own_labels()),
        budget=_amounts(budget),
        input_bytes=len(payload),
        input_sha256=hashlib.sha256(payload).hexdigest(),
        made=row.made,
        passed_over=row.passed_over,
        last_error=row.last_error,
        created_at_ms=row.created_at_ms,
        updated_at_ms=row.updated_at_ms,
        schedule_id=row.schedule_id,
    )
