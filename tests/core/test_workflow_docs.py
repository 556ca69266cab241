"""Every example of docs/workflows.md does what the page says, and every code is in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from relaymesh.core import limit, workflow_error
from relaymesh.core.template import expand_map, join_outputs, render_stored
from relaymesh.core.workflow import parse
from relaymesh.core.workflow_error import StepInputError, WorkflowError
from relaymesh.core.workflow_json import elements

PAGE = (Path(__file__).parents[2] / "docs" / "workflows.md").read_text(encoding="utf-8")
WORKFLOWS = re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
EXAMPLES = re.findall(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
NAME_WIDTH = 9


@pytest.mark.parametrize("text", WORKFLOWS)
def test_a_workflow_of_the_page_is_accepted(text: str) -> None:
    assert parse(text, agents=["echo"]).steps


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_of_the_page_gives_what_it_says(example: str) -> None:
    lines = [(line[:NAME_WIDTH].strip(), line[NAME_WIDTH:]) for line in example.splitlines()]
    given = dict(lines)

    def result() -> tuple[str, object]:
        if "map" in given:
            return "items", expand_map(given["map"], given)
        if "outputs" in given:
            return "output", join_outputs(text for name, text in lines if name == "outputs")
        return "payload", render_stored(given["input"], given, given.get("item"), int(given.get("index", 0)))

    if "fails" in given:
        with pytest.raises(StepInputError) as caught:
            result()
        assert caught.value.code == given["fails"]
    else:
        name, found = result()
        assert found == (list(elements(given["items"])) if name == "items" else given[name])


def test_the_page_has_examples() -> None:
    assert len(WORKFLOWS) >= 2
    assert len(EXAMPLES) >= 15


def test_the_page_names_every_code() -> None:
    families = (WorkflowError, StepInputError)
    classes = [getattr(workflow_error, name) for name in workflow_error.__all__]

    missing = [found.code for found in classes if found not in families and f"`{found.code}`" not in PAGE]

    assert missing == []


@pytest.mark.parametrize(
    "name", ["WORKFLOW_BYTES_MAX", "STEPS_MAX", "DEPENDENCIES_MAX", "PAYLOAD_BYTES_MAX", "DEPTH_MAX"]
)
def test_the_page_states_the_limits(name: str) -> None:
    assert f"{getattr(limit, name):,}" in PAGE
