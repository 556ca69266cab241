"""The examples in docs/agents.md do what they say."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from relaymesh.agents.agent_file import load_retry_file
from relaymesh.agents.context import Attempt
from relaymesh.agents.execute import run_attempt
from relaymesh.agents.python import CoroutineLoop
from relaymesh.agents.registry import Registry, load_registry
from relaymesh.agents.script import script_environment
from relaymesh.core.outcome import Failed, Outcome, Snoozed, Succeeded
from relaymesh.core.retry import RetryPolicy
from relaymesh.wire.work import StepOrder

PAGE = (Path(__file__).parents[2] / "docs" / "agents.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def run(registry: Registry, order: StepOrder) -> Outcome:
    loop = CoroutineLoop()
    try:
        return run_attempt(registry.specs[order.agent_id], Attempt(order), loop)
    finally:
        loop.close()


def test_the_python_agents_run(tmp_path: Path, order: Callable[..., StepOrder]) -> None:
    (example,) = blocks("python")
    (tmp_path / "docs_example.py").write_text(example)
    registry = load_registry(tmp_path, [str(tmp_path / "docs_example.py")])

    assert run(registry, order("shout", "a")) == Succeeded("A")
    assert run(registry, order("ship-order", '{"customer":"c","items":["x","y"]}')) == Succeeded('{"shipped":2}')
    failed = run(registry, order("ship-order", '{"customer":"c","items":[""]}'))
    assert failed == Failed("bad_item", "an item has no name", retryable=False)
    letter = tmp_path / "letter.txt"
    assert run(registry, order("later", str(letter))) == Snoozed(2_500)
    letter.write_text("here")
    # A snooze counts no attempt, so an agent must not wait for the second one.
    assert run(registry, order("later", str(letter))) == Succeeded("here")
    assert registry.specs["ship-order"].no_retry_on == ("LookupError",)


def test_the_files_are_read(tmp_path: Path) -> None:
    scripts, retries = blocks("json")
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "scripts.json").write_text(scripts)
    (tmp_path / "agents" / "retry-policies.json").write_text(retries)

    registry = load_registry(tmp_path, ())

    assert {entry["id"] for entry in json.loads(scripts)["agents"]} <= set(registry.specs)
    assert registry.skipped == ()
    assert load_retry_file(tmp_path).entries == {"ship-order": RetryPolicy(5, 500, 30_000)}


def test_every_variable_of_a_script_is_on_the_page(order: Callable[..., StepOrder]) -> None:
    for name in script_environment(order("any"), 0):
        assert f"`{name}`" in PAGE
