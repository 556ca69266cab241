"""Changing what is stored: cancel, replay, discard, maintenance; and the exports of what died."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from relaymesh.argument import (
    check_note,
    check_task_id,
    check_text,
    check_text_or_none,
    check_time,
    check_whole_number,
    status_of,
)
from relaymesh.door.look import Looks
from relaymesh.errors import InputError
from relaymesh.view import (
    CancelResult,
    DeadLetterView,
    DiscardOutcome,
    ReplayBatchOutcome,
    ReplayOutcome,
    TaskRequest,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from relaymesh.errors import InputError
    from relaymesh.node_view import MaintenanceOutcome
    from relaymesh.store.admin import CancelMode
    from relaymesh.store.dead_letter import DeadFilter
    from relaymesh.store.tick import TickNotes
    from relaymesh.view import DeadExportOutcome, TaskExportOutcome

__all__ = ["Changes"]

_DEFAULT_REASON = "cancelled by request"


class Changes(Looks):
    """What can be done to tasks."""

    def cancel(self, task_id: str, *, reason: str = _DEFAULT_REASON) -> CancelResult:
        """Cancel a task and stop what runs of it."""
        from relaymesh.store.admin import CancelMode

        return self._cancel(task_id, CancelMode.HARD, reason)

    def cancel_soft(self, task_id: str, *, reason: str = _DEFAULT_REASON) -> CancelResult:
        """Cancel a task and let what runs of it end."""
        from relaymesh.store.admin import CancelMode

        return self._cancel(task_id, CancelMode.SOFT, reason)

    def _cancel(self, task_id: str, mode: CancelMode, reason: str) -> CancelResult:
        from relaymesh.operation import cancel

        check_task_id(task_id)
        check_note("reason", reason)
        outcome, epoch = cancel(self._writable(create=False), task_id, mode=mode, reason=reason, now_ms=self._now_ms)
        self._wake()
        details = {
            "mode": outcome.mode,
            "step_rows": outcome.step_rows,
            "message_rows": outcome.message_rows,
            "cluster_epoch": epoch,
        }
        self._record_of(task_id, "task.cancel", outcome.message, details)
        return outcome

    def replay(
        self,
        task_id: str,
        *,
        edit: str | Mapping[str, str] | None = None,
        from_step: str | None = None,
    ) -> ReplayOutcome:
        """Give the dead-lettered steps of a task a new start.

        edit: a new input for the dead step, or by name of the step where there are several; it is taken as it stands.
        from_step: the step of this name, and all that depends on it, run again too; what does not is kept.

        Raises:
            NoSuchDeadStepError, NotEditableError, PayloadTooLargeError, InputError: nothing was changed.
        """
        from relaymesh.operation import replay

        check_task_id(task_id)
        check_text_or_none("from_step", from_step)
        edits: dict[str | None, str] = {}
        if edit is not None:
            from relaymesh.submission import payload_of

            for name, text in ({None: edit} if isinstance(edit, str) else edit).items():
                check_text_or_none("the name of a step", name)
                check_text("edit", text)
                edits[name] = payload_of(TaskRequest(agent="", input=text))
        outcome, details = replay(
            self._writable(create=False), task_id, edits=edits, from_step=from_step, now_ms=self._now_ms
        )
        self._wake()
        self._record_of(task_id, "dead.replay", outcome.message, details)
        return outcome

    def replay_batch(
        self,
        status: str = "DEAD_LETTER",
        limit: int = 100,
        *,
        agent: str | None = None,
        error_class: str | None = None,
        text: str | None = None,
        older_than_ms: int | None = None,
        newer_than_ms: int | None = None,
    ) -> ReplayBatchOutcome:
        """Replay the tasks of a status that changed last; those that cannot be replayed count as failed.

        The filters, which are those of ``dead_letters``, narrow DEAD_LETTER to tasks that have such a step.

        Raises:
            UnknownStatusError: there is no such status.
            InputError: a filter with another status; nothing was changed.
        """
        wanted = self._dead_filter(agent, error_class, text, older_than_ms, newer_than_ms)
        status = status_of(status) or "DEAD_LETTER"
        check_whole_number("limit", limit)
        if wanted.narrows:
            from relaymesh.operation import dead_task_ids

            if status != "DEAD_LETTER":
                raise InputError("the filters are for dead letters: leave the status out; nothing was changed")
            task_ids = dead_task_ids(self._readable(), wanted, limit=limit)
        else:
            task_ids = [task.task_id for task in self.tasks(status=status, limit=limit)]
        details = tuple(self.replay(task_id) for task_id in task_ids)
        replayed = sum(outcome.replayed for outcome in details)
        filters = {
            name: value
            for name, value in (
                ("agent", agent),
                ("error_class", error_class),
                ("text", text),
                ("older_than_ms", older_than_ms),
                ("newer_than_ms", newer_than_ms),
            )
            if value is not None
        }
        self.audit.record(
            "dead.replay.batch",
            actor=self._actor,
            resource="runtime/dead-letter",
            result="ok" if replayed == len(details) else "partial",
            details={
                "status": status,
                "limit": limit,
                "candidates": len(details),
                "replayed": replayed,
                "failed": len(details) - replayed,
                **filters,
            },
        )
        return ReplayBatchOutcome(
            status=status, total=len(details), replayed=replayed, failed=len(details) - replayed, details=details
        )

    def dead_letters(
        self,
        *,
        agent: str | None = None,
        error_class: str | None = None,
        text: str | None = None,
        older_than_ms: int | None = None,
        newer_than_ms: int | None = None,
        limit: int = 100,
    ) -> list[DeadLetterView]:
        """Return dead-lettered steps, the latest death first.

        error_class: the code of the failure, or the exception with which its text begins. text: part of that text.
        older_than_ms, newer_than_ms: how long ago the step died, at least and at most.
        """
        from relaymesh.operation import dead_letters

        check_whole_number("limit", limit)
        wanted = self._dead_filter(agent, error_class, text, older_than_ms, newer_than_ms)
        return dead_letters(self._readable(), wanted, limit=limit)

    def _dead_filter(
        self,
        agent: str | None,
        error_class: str | None,
        text: str | None,
        older_than_ms: int | None,
        newer_than_ms: int | None,
    ) -> DeadFilter:
        from relaymesh.store.dead_letter import DeadFilter

        for name, value in (("agent", agent), ("error_class", error_class), ("text", text)):
            check_text_or_none(name, value)
        for name, age_ms in (("older_than_ms", older_than_ms), ("newer_than_ms", newer_than_ms)):
            check_time(name, age_ms)
        if older_than_ms is not None and newer_than_ms is not None and older_than_ms > newer_than_ms:
            # No dead letter would be found, which reads as if there were none.
            raise InputError("older than and newer than leave no time between them: exchange the two")
        now_ms = self._now_ms()
        return DeadFilter(
            agent=agent,
            error_class=error_class,
            text=text,
            before_ms=None if older_than_ms is None else now_ms - older_than_ms,
            after_ms=None if newer_than_ms is None else now_ms - newer_than_ms,
        )

    def discard(self, task_id: str, *, reason: str) -> DiscardOutcome:
        """Take a task off the dead letters for good: it is CANCELLED, and stays readable.

        Raises:
            InputError: the reason is blank, or too long; nothing was changed.
        """
        from relaymesh.operation import discard

        check_task_id(task_id)
        check_note("reason", reason)
        if not reason.strip():
            raise InputError("a discard needs a reason, which is kept with the task; nothing was changed")
        outcome, details = discard(
            self._writable(create=False), task_id, reason=reason.strip(), actor=self._actor, now_ms=self._now_ms
        )
        self._wake()
        self._record_of(task_id, "dead.discard", outcome.message, details)
        return outcome

    def maintenance(self, node_id: str = "node-local") -> MaintenanceOutcome:
        """Do one round of what a running node does by itself: take back lost steps, start what is due, take in files.

        Raises:
            BadNodeIdError: no node could have this id.
            AgentLoadError: the agents, whose retry policies count, cannot be read.
        """
        from relaymesh.inbox.by_hand import inbox_round
        from relaymesh.store.presence import check_node_id
        from relaymesh.store.tick import maintenance_tick

        check_text("node_id", node_id)
        check_node_id(node_id)
        notes: list[TickNotes] = []
        store, specs = self._writable(), self._local_agents().specs
        policies = {agent_id: spec.retry for agent_id, spec in specs.items() if spec.retry is not None}
        outcome = maintenance_tick(
            store,
            node_id,
            self._config(),
            now_ms=self._now_ms(),
            policies=policies,
            on_fired=self._record_fired,
            on_done=notes.append,
        )
        inbox_round(
            store,
            ids=self._ids,
            now_ms=self._now_ms,
            known_agents=self.agents,
            audit=self.audit,
            keeps_messages=self._config().bus_mode == "files",
        )
        self._wake()
        from relaymesh.audit.event import maintenance_records
        from relaymesh.ownership import with_hourly_report

        outcome = with_hourly_report(outcome, store, self.audit, actor=self._actor, now_ms=self._now_ms())
        dead_nodes = [node for note in notes for node in note.dead_nodes]
        records = [record for note in notes for record in note.records]
        self.audit.record_many([*records, *maintenance_records(outcome, actor=self._actor, dead_nodes=dead_nodes)])
        return outcome

    def dead_export(self, out: str | Path, limit: int = 1000) -> DeadExportOutcome:
        """Write the dead letters to a JSON file."""
        from relaymesh.store.export import export_dead

        check_whole_number("limit", limit)
        outcome = export_dead(self._readable(), Path(out), limit)
        details = {"exported": outcome.exported, "output": outcome.output_path}
        self.audit.record("dead.export", actor=self._actor, resource="runtime/dead", result="ok", details=details)
        return outcome

    def task_export(self, task_id: str, out: str | Path) -> TaskExportOutcome:
        """Write one task with its steps and its audit rows to a JSON file."""
        from relaymesh.evidence import rows_of_task
        from relaymesh.store.export import export_task

        check_task_id(task_id)
        outcome = export_task(
            self._readable(),
            task_id,
            Path(out),
            audit_rows=lambda: rows_of_task(self.audit, task_id),
            now_ms=self._now_ms(),
        )
        if outcome.exported:
            details = {"output": outcome.output, "audit_rows": outcome.audit_events}
            self._record_of(task_id, "task.export", "ok", details)
        return outcome

    def _record_of(self, task_id: str, action: str, result: str, details: Mapping[str, object]) -> None:
        self.audit.record(
            action,
            actor=self._actor,
            resource=f"task/{task_id}",
            result=result,
            details=details,
            task_id=task_id,
        )
