"""A validated submit, turned into the rows that will be stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Protocol

from relaymesh.core.ident import sole_step_id, trace_of, workflow_step_id
from relaymesh.core.workflow import PlanStep, WorkflowPlan
from relaymesh.store.payload import PayloadFiles
from relaymesh.wire.store import SHAPE_MAPS, SHAPE_SOLE, NewStep, NewTask, NewUnique

__all__ = ["TaskIds", "draft_task", "draft_workflow"]


class TaskIds(Protocol):
    """Where the id of a new task comes from: a generator, or what has chosen it before."""

    def task(self) -> str: ...


def draft_task(
    ids: TaskIds,
    files: PayloadFiles,
    agent_id: str,
    payload: str,
    *,
    priority: str,
    key: str,
    not_before_ms: int | None = None,
    expires_at_ms: int | None = None,
    labels: Mapping[str, str] | None = None,
    traceparent: str = "",
    concurrency_key: str | None = None,
    unique: NewUnique | None = None,
    budget: tuple[tuple[str, int], ...] = (),
) -> NewTask:
    """Return the rows of a single-step task. A payload that is too long for a row is written to its file here.

    key: "" for one that no other submit can have.
    """
    task_id = ids.task()
    step_id = sole_step_id(task_id)
    text, sealed, path = files.keep("payload", step_id, payload)
    step = NewStep(
        step_id=step_id,
        agent_id=agent_id,
        priority=priority,
        payload=text,
        sealed=sealed,
        payload_path=path or "",
        shape=SHAPE_SOLE,
        not_before_ms=not_before_ms,
        traceparent=traceparent or None,
        concurrency_key=concurrency_key,
    )
    return NewTask(
        task_id=task_id,
        idempotency_key=key or task_id,
        trace_id=trace_of(task_id, traceparent),
        steps=(step,),
        expires_at_ms=expires_at_ms,
        labels=_labels(labels),
        traceparent=traceparent or None,
        unique=unique,
        budget=budget,
    )


def draft_workflow(
    ids: TaskIds,
    files: PayloadFiles,
    plan: WorkflowPlan,
    *,
    key: str,
    not_before_ms: int | None = None,
    expires_at_ms: int | None = None,
    labels: Mapping[str, str] | None = None,
    traceparent: str = "",
    unique: NewUnique | None = None,
    budget: tuple[tuple[str, int], ...] | None = None,
) -> NewTask:
    """Return the rows of a workflow. key: as for a single step. A delay holds back the steps that wait for no other.

    budget: in the place of the plan's own.
    """
    task_id = ids.task()
    maps = any(step.map_template is not None for step in plan.steps)
    steps = tuple(
        _workflow_step(files, step, task_id, SHAPE_MAPS if maps else 0, not_before_ms, traceparent)
        for step in plan.steps
    )
    return NewTask(
        task_id=task_id,
        idempotency_key=key or task_id,
        trace_id=trace_of(task_id, traceparent),
        steps=steps,
        expires_at_ms=expires_at_ms,
        labels=_labels({**plan.labels, **(labels or {})}),
        traceparent=traceparent or None,
        unique=unique,
        budget=plan.budget if budget is None else budget,
    )


def _workflow_step(
    files: PayloadFiles, step: PlanStep, task_id: str, shape: int, not_before_ms: int | None, traceparent: str
) -> NewStep:
    step_id = workflow_step_id(task_id, step.id)
    given = step.payload if step.template is None else step.template
    text, sealed, path = files.keep("payload", step_id, given or "")
    mapped = step.map_template is not None
    over = None if step.map_template is None else files.in_row("map", step_id, step.map_template)
    delayed = not_before_ms if not step.depends_on else None
    return NewStep(
        step_id=step_id,
        agent_id=step.agent,
        priority=str(step.priority),
        payload=text,
        sealed=sealed,
        payload_path=path or "",
        template=step.template is not None,
        map_template="" if isinstance(over, bytes) else over,
        sealed_map=over if isinstance(over, bytes) else None,
        waiting_on=len(step.depends_on) + mapped,
        depends_on=tuple(workflow_step_id(task_id, other) for other in step.depends_on),
        shape=shape,
        not_before_ms=delayed,
        traceparent=traceparent or None,
        concurrency_key=step.concurrency_key,
    )


def _labels(labels: Mapping[str, str] | None) -> str | None:
    return json.dumps(dict(labels), ensure_ascii=False, sort_keys=True) if labels else None
