"""The decorator and what it makes of a function."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from relaymesh.agents.context import Context
from relaymesh.agents.decorate import SPEC_ATTRIBUTE, agent
from relaymesh.agents.spec import AgentSpec, Isolation, Kind, PythonTarget
from relaymesh.core.retry import RetryPolicy


def spec_of(function: Any) -> AgentSpec:
    spec = getattr(function, SPEC_ATTRIBUTE)
    assert isinstance(spec, AgentSpec)
    return spec


def target_of(function: Any) -> PythonTarget:
    target = spec_of(function).target
    assert isinstance(target, PythonTarget)
    return target


def test_a_decorated_function_can_be_called_as_before() -> None:
    @agent
    def shout(text: str) -> str:
        return text.upper()

    assert shout("a") == "A"
    assert (spec_of(shout).agent_id, spec_of(shout).kind) == ("shout", Kind.PYTHON)
    assert spec_of(shout).isolation is Isolation.PROCESS


def test_every_option_arrives_in_the_spec() -> None:
    @agent(
        id="other-name",
        timeout_ms=5,
        grace_ms=0,
        max_attempts=9,
        max_concurrency=2,
        isolation="thread",
        retry_on=(OSError,),
        no_retry_on=(ValueError, KeyError),
        recycle_after_steps=None,
        recycle_above_mib=7,
    )
    def function(text: str) -> str:
        return text

    spec = spec_of(function)
    assert (spec.agent_id, spec.timeout_ms, spec.grace_ms, spec.max_concurrency) == ("other-name", 5, 0, 2)
    assert (spec.retry, spec.pool) == (RetryPolicy(max_attempts=9), "thread")
    assert (spec.retry_on, spec.no_retry_on) == (("OSError",), ("ValueError", "KeyError"))
    assert (spec.recycle_after_steps, spec.recycle_above_mib) == (None, 7)


def test_the_id_may_come_first_without_a_name() -> None:
    @agent("other-name", timeout_ms=5)
    def function(text: str) -> str:
        return text

    assert (spec_of(function).agent_id, spec_of(function).timeout_ms) == ("other-name", 5)


@pytest.mark.parametrize(
    ("wrong", "error", "sentence"),
    [
        (lambda: agent("a", id="b"), TypeError, "give the id once: @agent('a') or @agent(id='b')"),  # type: ignore[call-overload]
        (lambda: agent(5), TypeError, "@agent takes a function or an id, and 5 is neither"),  # type: ignore[type-var]
        (lambda: agent(id=5)(str.upper), TypeError, "an agent id is text, and 5 is not"),  # type: ignore[arg-type]
        (lambda: agent(timeout_ms="5s"), TypeError, "timeout_ms takes a whole number, not '5s'"),  # type: ignore[arg-type]
        (lambda: agent(max_attempts=True), TypeError, "max_attempts takes a whole number, not True"),
        (
            lambda: agent(isolation="procces"),  # type: ignore[arg-type]
            ValueError,
            "there is no isolation 'procces': use one of 'inline', 'thread', 'process'",
        ),
        (
            lambda: agent(lambda text: text),
            ValueError,
            "<lambda> has no name to be called by: give it an id, agent(id=...)(function)",
        ),
        (lambda: agent(""), ValueError, "'' is no agent id: it takes 1 to 128 printable characters"),
    ],
)
def test_a_wrong_option_is_named_with_what_it_takes(wrong: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error) as caught:
        made = wrong()
        made(lambda text: text)  # an id is looked at when the function is known

    assert str(caught.value) == sentence


def test_the_input_is_text_unless_its_annotation_says_otherwise() -> None:
    @agent
    def plain(text) -> None: ...  # type: ignore[no-untyped-def]

    @agent
    def text(text: str) -> None: ...

    @agent
    def listed(numbers: list[int], ctx: Context | None = None) -> None: ...

    assert target_of(plain).input_type is str
    assert target_of(text).input_type is str
    assert target_of(listed).input_type == list[int]


@pytest.mark.parametrize(
    ("function", "takes_context"),
    [
        (lambda text: "", False),
        (lambda text, ctx: "", True),
        (lambda text, anything: "", True),
        (lambda text, ctx=None: "", True),
        (lambda text, context=None: "", True),
        (lambda text, times=3: "", False),
        (lambda *, text: "", None),
        (lambda: "", None),
        (lambda a, b, c: "", None),
        (lambda a, *, key: "", None),
        (lambda ctx, text: "", None),
        (lambda context, text=None: "", None),
        (lambda context: "", False),
    ],
)
def test_a_function_takes_its_input_and_perhaps_a_context(function: Any, takes_context: bool | None) -> None:
    if takes_context is None:
        with pytest.raises(TypeError, match="\\(input, ctx\\)"):
            agent(id="it")(function)
    else:
        assert target_of(agent(id="it")(function)).takes_context is takes_context


def test_what_is_no_usable_function_is_refused_with_a_sentence() -> None:
    def generator(text: str) -> Any:
        yield text

    async def async_generator(text: str) -> Any:
        yield text

    def swapped(ctx: Context, text: str) -> str:
        return text

    for wrong in (generator, async_generator, swapped, type("Klass", (), {})):
        with pytest.raises(TypeError):
            agent(wrong)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout_ms": 0},
        {"grace_ms": -1},
        {"max_concurrency": 0},
        {"max_attempts": 0},
        {"base_backoff_ms": 90_000},
        {"isolation": "moon"},
        {"id": " "},
        {"id": "two\nlines"},
        {"id": "x" * 129},
    ],
)
def test_a_number_or_name_out_of_range_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        agent(**options)(lambda text: "")


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(TypeError, match="not both"):
        agent(retry=RetryPolicy(), max_attempts=2)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="retry_on takes"):
        agent(retry_on=("OSError",))  # type: ignore[arg-type]


def test_a_spec_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec_of(agent(id="it")(lambda text: "")).timeout_ms = 1  # type: ignore[misc]
