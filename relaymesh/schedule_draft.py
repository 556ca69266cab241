"""What is handed in for a new schedule, checked: its name, its calendar, its policies, and what each tick submits."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from relaymesh.argument import agent_id_of, budget_of, check_text, check_text_or_none, labels_of
from relaymesh.core.cron import normalize_cron
from relaymesh.core.label import LabelError, normalize_labels
from relaymesh.core.limit import INSTANT_MS_MAX
from relaymesh.core.nearest import quoted
from relaymesh.core.schedule import Missed, Overlap
from relaymesh.errors import InputError
from relaymesh.store.schedule_fire import LABELS

if TYPE_CHECKING:
    from relaymesh.door.submit import Submits
    from relaymesh.workflow import Workflow

__all__ = [
    "EVERY_MS_MIN",
    "INPUT_BYTES_MAX",
    "BadScheduleError",
    "amounts_of",
    "calendar_of",
    "check_name",
    "labels_text",
    "policy_of",
    "target_of",
]

INPUT_BYTES_MAX: Final = 1_048_576
"""Input or workflow file of a schedule: it is read whenever a tick is made."""
EVERY_MS_MIN: Final = 1_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)


class BadScheduleError(InputError):
    """Something about a schedule that cannot be stored. field: which of its parts is wrong."""

    code = "bad_schedule"

    def __init__(self, field: str, cause: str) -> None:
        super().__init__(field, cause)
        self.field, self.cause = field, cause

    def __str__(self) -> str:
        return f"{self.field} of the schedule {self.cause}; nothing was stored"


def check_name(name: str) -> None:
    """Raise BadScheduleError when this cannot be the name of a schedule."""
    check_text("name", name)
    if not _NAME.fullmatch(name):
        raise BadScheduleError(
            "the name", f"is {quoted(name)}: start with a letter or digit, go on with those or . _ -, 63 at most"
        )


def calendar_of(cron: str | None, every_ms: int | None, at_ms: int | None, now_ms: int) -> tuple[str, str, int]:
    """Return kind, expression and anchor of the one of the three that is given."""
    check_text_or_none("cron", cron)
    if sum(value is not None for value in (cron, every_ms, at_ms)) != 1:
        raise BadScheduleError("the time", "is a cron expression, an interval or an instant: give one of them")
    if cron is not None:
        return "cron", normalize_cron(cron), now_ms
    if every_ms is not None:
        if not EVERY_MS_MIN <= every_ms <= INSTANT_MS_MAX - now_ms:
            raise BadScheduleError("the interval", f"is {every_ms} ms: write {EVERY_MS_MIN:,} or more, such as 10s")
        return "interval", "", now_ms
    assert at_ms is not None
    if not now_ms < at_ms <= INSTANT_MS_MAX:
        raise BadScheduleError("the instant", "has passed, or lies behind the year 9999: name one that is to come")
    return "once", "", at_ms


def policy_of(field: str, text: str, kind: type[Missed] | type[Overlap]) -> str:
    """Return the word of a policy, in lower case."""
    check_text(field, text)
    words = [str(word) for word in kind]
    if text.strip().lower() not in words:
        raise BadScheduleError(
            f"the {field} policy", f"is {quoted(text)}: write {', '.join(words[:-1])} or {words[-1]}"
        )
    return text.strip().lower()


def labels_text(labels: Mapping[str, str] | None) -> str | None:
    """Return the labels that each task gets beside those of its tick, as the row holds them."""
    checked = normalize_labels(labels_of(labels) or {})
    for name in LABELS:
        if name in checked:
            raise LabelError(f"the label {name} says which tick a task is: choose another name", name=name)
    normalize_labels({**checked, **dict.fromkeys(LABELS, "")})
    return json.dumps(checked, ensure_ascii=False, sort_keys=True) if checked else None


def target_of(
    client: Submits,
    agent: str | None,
    input: str | object,
    workflow: Workflow | bytes | str | Mapping[str, object] | None,
    priority: str | None,
) -> tuple[str | None, str]:
    """Return agent and input, or None and the text of a workflow file; checked as at a submit."""
    from relaymesh.core.workflow import check_agents, parse
    from relaymesh.submission import payload_of, text_of, workflow_text_of
    from relaymesh.view import TaskRequest

    check_text_or_none("priority", priority)
    if (agent is None) == (workflow is None):
        raise BadScheduleError("the work", "is an agent or a workflow: name one of them")
    if workflow is None:
        assert agent is not None
        request = TaskRequest(agent=agent_id_of(agent), input=text_of(input))
        payload = payload_of(request)
        client._require_agent(request.agent)
        agent_id: str | None = request.agent
    else:
        if input != "":
            raise BadScheduleError("the input", "goes with an agent: a workflow has its inputs in its file")
        document = workflow_text_of(workflow)
        plan = parse(document, priority=priority)
        if not {step.agent for step in plan.steps} <= set(client._local_agents().specs):
            check_agents(plan, client.agents())
        if isinstance(document, Mapping):
            payload = json.dumps(document, ensure_ascii=False)
        else:
            payload = document if isinstance(document, str) else document.decode("utf-8-sig")
        agent_id = None
    size = len(payload.encode())
    if size > INPUT_BYTES_MAX:
        raise BadScheduleError(
            "the input",
            f"has {size:,} bytes, the limit is {INPUT_BYTES_MAX:,}: put the data into a file and name it",
        )
    return agent_id, payload


def amounts_of(amounts: Mapping[str, int | float | str] | None) -> tuple[tuple[str, int], ...]:
    """Return what each run may spend, ``(kind, micros)`` sorted."""
    if not amounts:
        return ()
    from relaymesh.core.budget_text import BudgetTextError, budgets_of
    from relaymesh.submission import BadBudgetError

    try:
        return budgets_of(budget_of(amounts))
    except BudgetTextError as error:
        raise BadBudgetError(str(error)) from None
