"""The first stage of validation: every member of a workflow has a known name, the right type and readable templates.

What comes out are drafts: steps with their templates compiled, whose ids and dependencies nobody has looked at yet.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from relaymesh.core.limit import DEPTH_MAX, STEPS_MAX
from relaymesh.core.nearest import did_you_mean, quoted
from relaymesh.core.template import Template, compile_input, compile_map
from relaymesh.core.template_syntax import TemplateError
from relaymesh.core.workflow_error import (
    BadNumber,
    BadTemplate,
    BadType,
    MissingSteps,
    TooDeep,
    TooManySteps,
    UnknownMember,
)
from relaymesh.core.workflow_json import TooDeepError

__all__ = ["WHOLE_ITEM", "Draft", "StepDraft", "draft_workflow"]

_WORKFLOW_MEMBERS: Final = frozenset({"steps", "labels", "priority", "budget"})
_STEP_MEMBERS: Final = frozenset({"id", "agent", "input", "priority", "dependsOn", "map", "concurrencyKey"})
WHOLE_ITEM: Final[Mapping[str, object]] = {"$item": ""}
"""The input of a map step that has none."""


@dataclass(slots=True)
class StepDraft:
    """One step. Text members that are missing or null are "" here.

    number: its place in the file, from 0.
    depends_on: as in the file, in which an id may stand twice.
    raw: the whole step as in the file.
    input: the payload when nothing in it is a reference, else how to render it; None when there is no input.
    links: numbers of the steps it waits for; filled in when ids are known to be good.
    """

    number: int
    id: str
    agent: str
    priority: str
    depends_on: list[str]
    raw: Mapping[str, object]
    input: Template | str | None
    map: Template | None
    concurrency_key: str = ""
    links: tuple[int, ...] = ()

    @property
    def path(self) -> str:
        return f"steps[{self.number}]"

    @property
    def waits_for_data(self) -> bool:
        """True when dependencies may come from ``map`` or ``input`` too."""
        return self.map is not None or isinstance(self.input, Template)

    def waits_for(self) -> Iterator[tuple[str, str]]:
        """Yield the id of every step that this one waits for, with the path that says so; an id may come twice."""
        for number, name in enumerate(self.depends_on):
            yield name, f"{self.path}.dependsOn[{number}]"
        for member, template in (("map", self.map), ("input", self.input)):
            if isinstance(template, Template):
                for name, place in template.places.items():
                    yield name, f"{self.path}.{member}{place}"


@dataclass(slots=True)
class Draft:
    """A workflow. priority: "" when missing. budget: as in the file, which nobody has looked at; None when missing."""

    steps: list[StepDraft]
    labels: Mapping[str, str]
    priority: str
    budget: object = None


def draft_workflow(value: object) -> Draft:
    """Check types, members and templates of a workflow.

    Raises:
        WorkflowError: BadType, UnknownMember, BadTemplate, TooDeep, BadNumber; MissingSteps, TooManySteps.
    """
    if not isinstance(value, dict):
        raise BadType(f'a workflow is an object such as {{"steps": [...]}}, not {_kind(value)}')
    _refuse_unknown_members(value, _WORKFLOW_MEMBERS, "", None)
    priority = _priority(value.get("priority"))
    labels = _labels(value.get("labels"))
    steps = value.get("steps")
    if steps is not None and not isinstance(steps, list):
        raise BadType(f"must be an array of steps, not {_kind(steps)}", path="steps")
    if not steps:
        raise MissingSteps('the workflow has no steps; write {"steps": [{"id": ..., "agent": ..., "input": ...}]}')
    _check_count(len(steps), "steps", None)
    drafts: list[StepDraft] = []
    runs = len(steps)
    for number, step in enumerate(steps):
        drafts.append(draft := _step(step, number))
        if draft.map is not None:
            runs += _literal_items(draft.raw["map"])
            _check_count(runs, f"{draft.path}.map", draft.id or None)
    return Draft(drafts, labels, priority, value.get("budget"))


def _literal_items(value: object) -> int:
    """Return how many items a map member holds already now."""
    if isinstance(value, dict):
        value = value.get("$literal")
    return len(value) if isinstance(value, list) else 0


def _step(step: object, number: int) -> StepDraft:
    # Runs 100,000 times for the largest workflow: paths are put together only for errors.
    if not isinstance(step, dict):
        raise BadType(f"a step is an object, not {_kind(step)}", path=f"steps[{number}]")
    if not step.keys() <= _STEP_MEMBERS:
        _refuse_unknown_members(step, _STEP_MEMBERS, f"steps[{number}]", _named(step))
    raw_map = step.get("map")
    raw_input = step.get("input")
    depends_on = step.get("dependsOn")
    return StepDraft(
        number,
        _step_text(step, "id", number),
        _step_text(step, "agent", number),
        _step_text(step, "priority", number),
        [] if depends_on is None else _depends_on(step, depends_on, number),
        step,
        raw_input if type(raw_input) is str and "{{" not in raw_input else _input(step, raw_input, number),
        None if raw_map is None else _map(step, raw_map, number),
        _step_text(step, "concurrencyKey", number),
    )


def _named(step: Mapping[str, object]) -> str | None:
    """Return the id to name in an error, None when there is none."""
    found = step.get("id")
    return found if isinstance(found, str) and found.strip() else None


def _step_text(step: Mapping[str, object], member: str, number: int) -> str:
    text = step.get(member)
    if isinstance(text, str):
        return text
    if text is None:
        return ""
    raise BadType(f"must be text, not {_kind(text)}", step_id=_named(step), path=f"steps[{number}].{member}")


def _priority(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadType(f"must be text, not {_kind(value)}", path="priority")
    return value


def _labels(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadType(f"must be an object of texts, not {_kind(value)}", path="labels")
    for name, text in value.items():
        if not isinstance(text, str):
            raise BadType(f"the label {quoted(name)} must be text, not {_kind(text)}", path="labels")
    return value


def _depends_on(step: Mapping[str, object], value: object, number: int) -> list[str]:
    path = f"steps[{number}].dependsOn"
    if not isinstance(value, list):
        raise BadType(f"must be an array of step ids, not {_kind(value)}", step_id=_named(step), path=path)
    for place, name in enumerate(value):
        if not isinstance(name, str):
            raise BadType(f"must be the id of a step, not {_kind(name)}", step_id=_named(step), path=f"{path}[{place}]")
    return value


def _input(step: Mapping[str, object], value: object, number: int) -> Template | str | None:
    mapped = step.get("map") is not None
    if value is None:
        if not mapped:
            return None
        value = WHOLE_ITEM
    try:
        template = compile_input(value, mapped=mapped)
    except ValueError as error:
        raise _fault(error, f"steps[{number}].input", _named(step)) from None
    return template.static_text if template.is_static else template


def _map(step: Mapping[str, object], value: object, number: int) -> Template:
    path = f"steps[{number}].map"
    named = _named(step)
    gives_a_list = isinstance(value, list) or (
        isinstance(value, dict) and ("$from" in value or isinstance(value.get("$literal"), list))
    )
    if not gives_a_list:
        raise BadType(f'must be an array or {{"$from": "ID"}}, not {_kind(value)}', step_id=named, path=path)
    try:
        return compile_map(value)
    except ValueError as error:
        raise _fault(error, path, named) from None


def _fault(error: ValueError, path: str, named: str | None) -> BadTemplate | TooDeep | BadNumber:
    match error:
        case TemplateError():
            return BadTemplate(str(error), step_id=named, path=path + error.path)
        case TooDeepError():
            return TooDeep(f"nested deeper than {DEPTH_MAX} levels; flatten it", step_id=named, path=path)
        case _:
            return BadNumber("holds a number too large for a double; write it as text", step_id=named, path=path)


def _refuse_unknown_members(value: Mapping[str, object], known: Collection[str], path: str, named: str | None) -> None:
    for name in value:
        if name not in known:
            hint = did_you_mean(name, known) or f"; known are {', '.join(sorted(known))}"
            raise UnknownMember(f"unknown member {quoted(name)}{hint}", step_id=named, path=path)


def _check_count(count: int, path: str, named: str | None) -> None:
    if count > STEPS_MAX:
        raise TooManySteps(
            f"{count:,} steps, items of map included, but a workflow has at most {STEPS_MAX:,}; split it",
            step_id=named,
            path=path,
        )


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "an array"
        case _:
            return "an object"
