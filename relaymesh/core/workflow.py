"""A workflow: from the JSON that a user wrote to a checked plan that can be stored as it is.

    bytes ──▶ values ──▶ drafts ──▶ ids, dependencies, cycles ──▶ agents, inputs, sizes, priorities ──▶ WorkflowPlan
         workflow_file  workflow_draft           (here)                        (here)

Each stage runs over the whole workflow before the next, and the first failure is reported. docs/workflows.md describes
the file for its users.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from relaymesh.core.concurrency_key import KeyTextError, key_of
from relaymesh.core.label import LabelError, normalize_labels
from relaymesh.core.limit import DEPENDENCIES_MAX, PAYLOAD_BYTES_MAX, STEP_ID_CHARS_MAX
from relaymesh.core.nearest import did_you_mean, quoted
from relaymesh.core.priority import Priority, PriorityError, normalize_priority
from relaymesh.core.workflow_draft import WHOLE_ITEM, Draft, StepDraft, draft_workflow
from relaymesh.core.workflow_error import (
    BadConcurrencyKey,
    BadStepId,
    BadText,
    BadWorkflowBudget,
    BadWorkflowLabels,
    BadWorkflowPriority,
    Cycle,
    DuplicateStep,
    MissingAgent,
    MissingInput,
    PayloadTooLarge,
    SelfDependency,
    TooManyDependencies,
    UnknownAgent,
    UnknownDependency,
)
from relaymesh.core.workflow_file import read_workflow
from relaymesh.core.workflow_graph import find_cycle
from relaymesh.core.workflow_json import written

__all__ = ["PlanStep", "WorkflowPlan", "check_agents", "derived_key", "parse"]

_STEP_ID = re.compile(rf"[A-Za-z0-9_.-]{{1,{STEP_ID_CHARS_MAX}}}", re.ASCII)
_CYCLE_SHOWN_MAX: Final = 20
_AGENTS_SHOWN_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One step, ready to be stored.

    depends_on: the steps that must succeed first, each once: those of the file, then those that map and input name.
    payload: the payload text when it is known now, else None.
    template: JSON text of the input when it must be rendered at dispatch, else None. Exactly one of these two is None.
    map_template: JSON text of what the step runs over, once per item, or None.
    concurrency_key: what it shares a limit with, or None; the runs of a map step all have that of their step.
    """

    id: str
    agent: str
    priority: Priority
    depends_on: tuple[str, ...]
    payload: str | None
    template: str | None
    map_template: str | None = None
    concurrency_key: str | None = None

    @property
    def is_static(self) -> bool:
        """True when nothing is left to render or expand: the payload is final, and the step runs once."""
        return self.template is None and self.map_template is None


@dataclass(frozen=True, slots=True)
class WorkflowPlan:
    """A workflow in which all was checked but, perhaps, whether its agents exist. Steps are in file order."""

    steps: tuple[PlanStep, ...]
    labels: Mapping[str, str]
    source: Draft = field(repr=False, compare=False)
    """The file as it was written, for the derived idempotency key."""
    budget: tuple[tuple[str, int], ...] = ()
    """What the workflow may spend in all, ``(kind, micros)``."""


def parse(
    data: bytes | str | Mapping[str, object],
    *,
    agents: Collection[str] | None = None,
    priority: str | None = None,
) -> WorkflowPlan:
    """Check a workflow and return its plan.

    data: the bytes or the text of a workflow file, or the same as values.
    agents: the registered agent ids; None leaves that check to ``check_agents``.
    priority: for steps that have none, in place of the workflow's own ``priority``; None keeps that.

    Raises:
        WorkflowError: the subclass says what is wrong, ``step_id`` and ``path`` say where.
    """
    draft = draft_workflow(read_workflow(data))
    steps = draft.steps
    _check_ids(steps)
    _link(steps)
    _check_cycles(steps)
    if priority is not None:
        draft.priority = priority
    default = _priority(draft.priority, "priority", None)
    plan_steps = tuple(_plan_step(step, steps, default, agents) for step in steps)
    try:
        labels = normalize_labels(draft.labels)
    except LabelError as error:
        raise BadWorkflowLabels(str(error), path="labels") from None
    return WorkflowPlan(plan_steps, labels, draft, _budget(draft.budget) if draft.budget is not None else ())


def check_agents(plan: WorkflowPlan, known: Collection[str]) -> None:
    """Check that the agent of every step is one of ``known``.

    Raises:
        UnknownAgent: for the first step whose agent is not; names the nearest one that is.
    """
    for number, step in enumerate(plan.steps):
        if step.agent not in known:
            raise _unknown_agent(step.agent, known, step.id, f"steps[{number}].agent")


def derived_key(plan: WorkflowPlan) -> str:
    """Return the idempotency key of a workflow that was submitted without one: SHA-256 in lower-case hex.

    It covers the compact JSON (UTF-8) of the steps in file order, each with ``id``, ``agent``, ``input``, ``priority``
    and ``dependsOn`` as written; a priority that is absent or blank is that of the workflow, else ``NORMAL``; an absent
    ``dependsOn`` is ``[]``. Only a step with ``map`` adds it, last. Neither labels nor budget count.
    """
    draft = plan.source
    default = draft.priority if draft.priority.strip() else "NORMAL"
    return hashlib.sha256(written([_normalized(step, default) for step in draft.steps]).encode()).hexdigest()


def _normalized(step: StepDraft, default_priority: str) -> dict[str, object]:
    members: dict[str, object] = {
        "id": step.id,
        "agent": step.agent,
        "input": step.raw.get("input"),
        "priority": step.priority if step.priority.strip() else default_priority,
        "dependsOn": step.depends_on,
    }
    if step.map is not None:
        members["map"] = step.raw["map"]
    return members


# Ids, dependencies, cycles --------------------------------------------------------------------------------------------


def _check_ids(steps: Sequence[StepDraft]) -> None:
    for step in steps:
        if not step.id.strip():
            raise BadStepId('the step has no id; give it one, such as "s1"', path=f"{step.path}.id")
        if not _STEP_ID.fullmatch(step.id):
            raise BadStepId(
                f"the id is not usable; write letters, digits, _ - and . only, at most {STEP_ID_CHARS_MAX} characters",
                step_id=step.id,
                path=f"{step.path}.id",
            )
    first_number: dict[str, int] = {}
    for step in steps:
        first = first_number.setdefault(step.id, step.number)
        if first != step.number:
            raise DuplicateStep(
                f"steps[{first}] has the same id; rename one of them", step_id=step.id, path=f"{step.path}.id"
            )


def _link(steps: Sequence[StepDraft]) -> None:
    numbers = {step.id: number for number, step in enumerate(steps)}
    count = 0
    for step in steps:
        names = step.depends_on if not step.waits_for_data else [name for name, _ in step.waits_for()]
        if not names:
            continue
        try:
            step.links = tuple(dict.fromkeys([numbers[name] for name in names]))
        except KeyError as error:
            unknown: str = error.args[0]
            raise UnknownDependency(
                f"no step has the id {quoted(unknown)}{did_you_mean(unknown, numbers)}",
                step_id=step.id,
                path=_path_of_wait(step, unknown),
            ) from None
        count += len(step.links)
        if count > DEPENDENCIES_MAX:
            raise TooManyDependencies(
                f"the workflow has more than {DEPENDENCIES_MAX:,} dependencies; put a joining step between the layers",
                step_id=step.id,
                path=step.path,
            )


def _check_cycles(steps: Sequence[StepDraft]) -> None:
    for number, step in enumerate(steps):
        if number in step.links:
            raise SelfDependency(
                "the step waits for itself; take that dependency out",
                step_id=step.id,
                path=_path_of_wait(step, step.id),
            )
    cycle = find_cycle([step.links for step in steps])
    if cycle:
        ids = tuple(steps[number].id for number in cycle)
        raise Cycle(
            f"these steps wait for each other: {_shown_cycle(ids)}; take one of the dependencies out",
            step_id=ids[0],
            path=_path_of_wait(steps[cycle[0]], ids[1]),
            steps=ids,
        )


def _path_of_wait(step: StepDraft, other_id: str) -> str:
    return next(path for name, path in step.waits_for() if name == other_id)


def _shown_cycle(ids: Sequence[str]) -> str:
    shown = list(ids)
    if len(ids) > _CYCLE_SHOWN_MAX:
        shown[_CYCLE_SHOWN_MAX - 1 : -1] = [f"({len(ids) - _CYCLE_SHOWN_MAX:,} more)"]
    return " -> ".join([*shown, ids[0]])


# What each step asks for ----------------------------------------------------------------------------------------------


def _plan_step(
    step: StepDraft, steps: Sequence[StepDraft], default: Priority, agents: Collection[str] | None
) -> PlanStep:
    if not step.agent.strip():
        raise MissingAgent(
            'the step names no agent; "relaymesh agents" lists them', step_id=step.id, path=f"{step.path}.agent"
        )
    if not step.agent.isascii():
        _check_size(step.agent, step, "agent")
    if agents is not None and step.agent not in agents:
        raise _unknown_agent(step.agent, agents, step.id, f"{step.path}.agent")
    input_ = step.input
    if input_ is None:
        raise MissingInput(
            'the step has no input; write "input": "" for an empty one', step_id=step.id, path=f"{step.path}.input"
        )
    payload: str | None = None
    template: str | None = None
    if isinstance(input_, str):
        payload = input_
    else:
        raw_input = step.raw.get("input")
        template = written(WHOLE_ITEM if raw_input is None else raw_input)
    _check_size(payload or template or "", step, "input")
    map_template = None
    if step.map is not None:
        map_template = written(step.raw["map"])
        _check_size(map_template, step, "map")
    return PlanStep(
        step.id,
        step.agent,
        _priority(step.priority, f"{step.path}.priority", step.id) if step.priority.strip() else default,
        tuple([steps[number].id for number in step.links]),
        payload,
        template,
        map_template,
        _concurrency_key(step, payload) if step.concurrency_key else None,
    )


def _budget(value: object) -> tuple[tuple[str, int], ...]:
    from relaymesh.core.budget_text import BudgetTextError, budgets_of  # most workflows have none

    try:
        return budgets_of(value)
    except BudgetTextError as error:
        raise BadWorkflowBudget(str(error), path="budget") from None


def _concurrency_key(step: StepDraft, payload: str | None) -> str | None:
    try:
        return key_of(step.concurrency_key, payload)
    except KeyTextError as error:
        raise BadConcurrencyKey(str(error), step_id=step.id, path=f"{step.path}.concurrencyKey") from None


def _check_size(text: str, step: StepDraft, member: str) -> None:
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        raise BadText(
            "holds half of a surrogate pair, which is no text; write the whole character",
            step_id=step.id,
            path=f"{step.path}.{member}",
        ) from None
    if size > PAYLOAD_BYTES_MAX:
        raise PayloadTooLarge(
            f"{size:,} bytes, but a payload has at most {PAYLOAD_BYTES_MAX:,}; hand in the name of a file instead",
            step_id=step.id,
            path=f"{step.path}.{member}",
        )


def _priority(word: str, path: str, step_id: str | None) -> Priority:
    try:
        return normalize_priority(word)
    except PriorityError as error:
        raise BadWorkflowPriority(str(error), step_id=step_id, path=path) from None


def _unknown_agent(agent: str, known: Collection[str], step_id: str, path: str) -> UnknownAgent:
    hint = did_you_mean(agent, known)
    if not hint and 0 < len(known) <= _AGENTS_SHOWN_MAX:
        hint = f"; known are {', '.join(map(quoted, sorted(known)))}"
    return UnknownAgent(
        f"no agent is called {quoted(agent)}{hint or '; see relaymesh agents'}", step_id=step_id, path=path, agent=agent
    )
