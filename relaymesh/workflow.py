"""Workflow: build a workflow in Python instead of writing its JSON.

flow = Workflow(labels={"team": "blue"})
words = flow.step("words", "count_words", literal(text_from_outside))
flow.step("report", "render", {"title": "words", "count": words.output})
client.submit_workflow(flow)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from relaymesh.core.limit import DEPTH_MAX
from relaymesh.errors import InputError

__all__ = ["ITEM", "Step", "Workflow", "literal"]

ITEM: Mapping[str, object] = {"$item": ""}
"""Stands for the item of a step that runs once per item (``map``)."""


def literal(value: object) -> dict[str, object]:
    """Return an input, or a piece of one, in which nothing is looked at: for text and data from outside.

    Anywhere else ``{{`` in a text and an object with ``$from``, ``$item`` or ``$literal`` mean something.
    """
    return {"$literal": value}


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a workflow that is being built. ``output`` stands for its output inside another step's input."""

    id: str

    @property
    def output(self) -> dict[str, object]:
        """Return the reference to the whole output."""
        return {"$from": self.id}

    def at(self, pointer: str) -> dict[str, object]:
        """Return the reference to a piece of the output, named by a JSON pointer such as ``/items/0``."""
        return {"$from": self.id, "path": pointer}


@dataclass(slots=True)
class Workflow:
    """Steps in the order in which they were added. Checked when it is submitted.

    budget: what it may spend in all, such as ``{"units:tokens": 50_000, "wall_seconds": 600}``.
    """

    labels: dict[str, str] = field(default_factory=dict)
    priority: str | None = None
    budget: dict[str, int | float | str] = field(default_factory=dict)
    _steps: list[dict[str, object]] = field(default_factory=list)

    def step(
        self,
        id: str,
        agent: str,
        input: object = "",
        *,
        after: Iterable[Step | str] | Step = (),
        over: object = None,
        priority: str | None = None,
    ) -> Step:
        """Add a step and return it.

        after: steps that must succeed first, or one; those whose output the input names need not be listed.
        over: a list, or the output of a step that is one: run once per item (``ITEM`` in the input stands for it).

        Raises:
            InputError: a step stands in the input or in ``over`` where its output was meant.
        """
        _refuse_steps(id, input)
        _refuse_steps(id, over)
        entry: dict[str, object] = {"id": id, "agent": agent, "input": input}
        if over is not None:
            entry["map"] = over
        if priority is not None:
            entry["priority"] = priority
        several = (after,) if isinstance(after, Step | str) else after
        depends = [step.id if isinstance(step, Step) else step for step in several]
        if depends:
            entry["dependsOn"] = depends
        self._steps.append(entry)
        return Step(id)

    def to_dict(self) -> dict[str, object]:
        """Return what the workflow file would hold."""
        document: dict[str, object] = {"steps": self._steps}
        if self.labels:
            document["labels"] = self.labels
        if self.priority is not None:
            document["priority"] = self.priority
        if self.budget:
            document["budget"] = self.budget
        return document

    def to_json(self) -> bytes:
        """Return the workflow file."""
        return msgspec.json.encode(self.to_dict())


def _refuse_steps(id: str, value: object, depth: int = 0) -> None:
    """Refuse a step inside an input: it would be written as an object with its id, which nobody means."""
    if depth > DEPTH_MAX:
        return  # refused when it is submitted
    match value:
        case Step():
            raise InputError(f"the input of step {id} holds the step {value.id} itself: write its .output")
        case dict():
            for item in value.values():
                _refuse_steps(id, item, depth + 1)
        case list() | tuple():
            for item in value:
                _refuse_steps(id, item, depth + 1)
