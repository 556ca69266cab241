"""Work comes in: tasks, workflows, schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relaymesh.argument import check_text_or_none
from relaymesh.door.base import Door
from relaymesh.errors import InputError
from relaymesh.view import BatchLine, SubmitOutcome, TaskRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from relaymesh.errors import InputError
    from relaymesh.handing import SubmitDesk
    from relaymesh.scheduling import Schedules
    from relaymesh.wire.store import NewTask
    from relaymesh.workflow import Workflow

__all__ = ["Submits"]


class Submits(Door):
    """How work is handed in."""

    def submit(
        self,
        agent: str,
        input: str | object = "",
        *,
        priority: str = "normal",
        idempotency_key: str | None = None,
        delay_ms: int = 0,
        at_ms: int | None = None,
        expires_in_ms: int | None = None,
        labels: Mapping[str, str] | None = None,
        traceparent: str | None = None,
        concurrency_key: str | None = None,
        unique: str | None = None,
        on_duplicate: str | None = None,
        unique_key: str | None = None,
        budget: Mapping[str, int | float | str] | None = None,
    ) -> SubmitOutcome:
        """Store one task; returns when it is on disk.

        input: text, or any value that JSON can hold, dataclasses included, which is stored as its JSON text.
        idempotency_key: a second submit with a key that is still held returns the first task. Default: a hash of agent
            and input.
        concurrency_key: steps with the same key share its limits, by default one at a time; a text that begins with a
            slash is a JSON pointer to the key in the input.
        unique: ``waiting``, ``running`` or ``period=MS``: as long as another task with the same unique_key (by default
            a hash of agent and input) waits, has not ended, or is younger, this one is a duplicate.
        on_duplicate: ``return`` the other (the default), ``refuse``, ``replace`` it if it has not started, or
            ``debounce``: replace it and wait ``delay_ms`` again.
        budget: what it may spend in all, such as ``{"units:tokens": 50_000, "wall_seconds": 600}``.

        Raises:
            UnknownAgentError, PayloadTooLargeError, InputError: nothing was stored.
            DuplicateTaskError: another task stands in the way, and on_duplicate says so.
            AdmissionError: the root carries too much already; nothing was stored.
            StoreError, RootError: nothing was stored.
        """
        from relaymesh.argument import agent_id_of, budget_of, labels_of
        from relaymesh.submission import outcome_of, text_of

        request = TaskRequest(
            agent=agent_id_of(agent),
            input=text_of(input),
            priority=priority,
            idempotency_key=idempotency_key,
            delay_ms=delay_ms,
            at_ms=at_ms,
            expires_in_ms=expires_in_ms,
            labels=labels_of(labels),
            traceparent=traceparent,
            concurrency_key=concurrency_key,
            unique=unique,
            on_duplicate=on_duplicate,
            unique_key=unique_key,
            budget=budget_of(budget),
        )
        (result,) = self._commit([self._draft(request)])
        return outcome_of(result)

    def submit_many(self, requests: Iterable[TaskRequest]) -> Iterator[BatchLine]:
        """Store many tasks in groups; yields one line per request, in order, after its group is on disk.

        A request that is wrong is told as rejected and does not keep the others from being stored. An error of the
        store ends the iteration; all lines yielded before it stand.
        """
        from relaymesh.submission import store_in_groups

        return store_in_groups(requests, self._draft, self._commit)

    def submit_workflow(
        self,
        workflow: Workflow | bytes | str | Mapping[str, object],
        *,
        idempotency_key: str | None = None,
        labels: Mapping[str, str] | None = None,
        priority: str | None = None,
        delay_ms: int = 0,
        at_ms: int | None = None,
        expires_in_ms: int | None = None,
        traceparent: str | None = None,
        unique: str | None = None,
        on_duplicate: str | None = None,
        unique_key: str | None = None,
        budget: Mapping[str, int | float | str] | None = None,
    ) -> SubmitOutcome:
        """Store a workflow: bytes or text of a workflow file, the same as values, or a ``Workflow``.

        unique, on_duplicate, unique_key, budget: as for ``submit``; the key is by default that of the steps, and a kind
            of budget that is given here beats the one in the file.

        Raises:
            WorkflowError: what is wrong, and where; nothing was stored.
            DuplicateTaskError: another task stands in the way, and on_duplicate says so.
            AdmissionError: the root carries too much already; nothing was stored.
            StoreError, RootError: nothing was stored.
        """
        from relaymesh.argument import budget_of
        from relaymesh.core.workflow import check_agents, parse
        from relaymesh.submission import new_workflow, outcome_of, workflow_text_of

        check_text_or_none("priority", priority)
        document = workflow_text_of(workflow)
        plan = parse(document, priority=priority)
        names = {step.agent for step in plan.steps}
        if not names <= set(self._local_agents().specs):
            check_agents(plan, self.agents())
        task = new_workflow(
            plan,
            now_ms=self._now_ms(),
            ids=self._ids,
            files=self._writable().payloads,
            idempotency_key=idempotency_key,
            delay_ms=delay_ms,
            at_ms=at_ms,
            expires_in_ms=expires_in_ms,
            labels=labels,
            traceparent=traceparent,
            unique=unique,
            on_duplicate=on_duplicate,
            unique_key=unique_key,
            budget=budget_of(budget),
        )
        (result,) = self._commit([task])
        return outcome_of(result)

    def _draft(self, request: TaskRequest) -> NewTask:
        from relaymesh.submission import check_request, new_task, payload_of

        check_request(request)
        self._require_agent(request.agent)
        payload = payload_of(request)
        return new_task(request, payload, now_ms=self._now_ms(), ids=self._ids, files=self._writable().payloads)

    def _commit(self, tasks: Sequence[NewTask]) -> Sequence[tuple[str, bool] | InputError]:
        """Store tasks; return ``(task id, deduplicated)`` of each, or why it was not stored, once that is recorded."""
        return self._desk.store(tasks)

    @property
    def _desk(self) -> SubmitDesk:
        if self._submit_desk is None:
            from relaymesh.handing import SubmitDesk

            self._submit_desk = SubmitDesk(self, self._submitter, self._gate)
        return self._submit_desk

    @property
    def schedules(self) -> Schedules:
        """The schedules of the root: ``client.schedules.create("nightly", cron="30 2 * * *", agent="backup")``."""
        if self._schedules is None:
            from relaymesh.scheduling import Schedules

            self._schedules = Schedules(self)
        return self._schedules
