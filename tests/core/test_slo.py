"""Objectives that are missed."""

from __future__ import annotations

import pytest

from relaymesh.core.slo import Miss, Objective, misses


@pytest.mark.parametrize(
    ("observed", "target", "expected"),
    [
        (5, 5, []),
        (6, 5, [Miss("queue_lag", 6, 5, 1.2, "warning")]),
        (10, 5, [Miss("queue_lag", 10, 5, 2.0, "critical")]),
        (1, 0, []),
        (2, 0, [Miss("queue_lag", 2, 1, 2.0, "critical")]),
    ],
)
def test_what_is_above_its_target_is_missed_and_critical_from_twice_on(
    observed: int, target: int, expected: list[Miss]
) -> None:
    assert misses([Objective("queue_lag", observed, target)]) == expected
