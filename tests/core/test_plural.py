"""Counts in sentences."""

from __future__ import annotations

import pytest

from relaymesh.admission import QueueFullError, SubmitRateError, TooManyRunningError
from relaymesh.core.plural import counted, verb


def test_one_is_one_and_all_else_is_many() -> None:
    assert [counted(number, "step") for number in (0, 1, 2, 1_000)] == ["0 steps", "1 step", "2 steps", "1,000 steps"]
    assert [counted(number, "process", "processes") for number in (1, 2)] == ["1 process", "2 processes"]
    assert [verb(number, "is", "are") for number in (0, 1, 2)] == ["are", "is", "are"]


@pytest.mark.parametrize("error", [QueueFullError(1), TooManyRunningError(1), SubmitRateError(1)])
def test_a_bound_of_one_step_is_told_in_the_singular(error: Exception) -> None:
    assert "1 step" in str(error)
    assert "1 steps" not in str(error) and "1 step are" not in str(error) and "1 step were" not in str(error)
