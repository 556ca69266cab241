"""What a failed step says about an input that does not fit its agent: what is wrong and where, never the input."""

from __future__ import annotations

import enum
from typing import Any, Literal

import msgspec
import pytest

from relaymesh.agents.context import Attempt
from relaymesh.agents.python import CoroutineLoop, run_python
from relaymesh.agents.spec import PythonTarget
from relaymesh.core.outcome import Failed
from tests.agents.conftest import make_order


class Colour(enum.Enum):
    RED = "red"


class Paint(msgspec.Struct, forbid_unknown_fields=True):
    colour: Colour = Colour.RED
    finish: Literal["matt"] = "matt"
    coats: dict[Colour, int] = {}


class Box(msgspec.Struct, tag="box"):
    pass


class Bag(msgspec.Struct, tag="bag"):
    pass


class Even(msgspec.Struct):
    number: int

    def __post_init__(self) -> None:
        if self.number % 2:
            raise ValueError("the number must be even")


def complaint(kind: Any, payload: str) -> str:
    target = PythonTarget(lambda _: None, takes_context=False, is_coroutine=False, input_type=kind)
    outcome = run_python(target, Attempt(make_order("takes", payload)), CoroutineLoop())
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retryable) == ("bad_input", False)
    return outcome.error.removeprefix("the input does not fit the agent: ")


@pytest.mark.parametrize(
    ("kind", "payload", "said"),
    [
        (Paint, '{"colour":"secret"}', "Invalid enum value - at `$.colour`"),
        (Paint, '{"colour":"secret\' - at `$.secret`"}', "Invalid enum value - at `$.colour`"),
        (Paint, '{"colour":"sec\\nret"}', "Invalid enum value - at `$.colour`"),
        (Paint, '{"finish":"secret"}', "Invalid enum value - at `$.finish`"),
        (Paint, '{"coats":{"secret":1}}', "Invalid enum value - at `key` in `$.coats`"),
        (Paint, '{"secret":1}', "Object contains an unknown field"),
        (Colour, '"secret"', "Invalid enum value"),
        (list[Box | Bag], '[{"type":"secret"}]', "Invalid value - at `$[0].type`"),
        (Paint, '{"colour":"\udc80"}', "it is not valid Unicode"),
    ],
)
def test_no_text_of_the_input_gets_into_the_error(kind: Any, payload: str, said: str) -> None:
    assert complaint(kind, payload) == said


def test_what_says_nothing_about_the_input_is_passed_on() -> None:
    assert complaint(list[int], '["x"]') == "Expected `int`, got `str` - at `$[0]`"
    assert complaint(Even, '{"number":3}') == "the number must be even"
