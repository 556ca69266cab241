"""Every bound on what a user may hand in, in one place. Sizes in bytes are of UTF-8."""

from __future__ import annotations

from typing import Final

__all__ = [
    "BUDGETS_MAX",
    "BUDGETS_PER_OWNER_MAX",
    "BUDGET_MICROS_MAX",
    "BUDGET_PERIOD_MS_MAX",
    "BUDGET_PERIOD_MS_MIN",
    "BURST_MAX",
    "CONCURRENCY_KEY_CHARS_MAX",
    "CONCURRENCY_MAX",
    "DEPENDENCIES_MAX",
    "DEPTH_MAX",
    "INSTANT_MS_MAX",
    "LABELS_MAX",
    "LABEL_NAME_CHARS_MAX",
    "LABEL_VALUE_CHARS_MAX",
    "LIMITS_MAX",
    "PAUSES_MAX",
    "PAYLOAD_BYTES_MAX",
    "RATE_COUNT_MAX",
    "RATE_PERIOD_MS_MAX",
    "SPEND_MICROS_MAX",
    "SPILL_BYTES",
    "STEPS_MAX",
    "STEP_ID_CHARS_MAX",
    "UNITS_PER_ATTEMPT_MAX",
    "UNIT_NAME_CHARS_MAX",
    "WORKFLOW_BYTES_MAX",
]

PAYLOAD_BYTES_MAX: Final = 10_485_760
"""One payload, and one output: 10 MiB."""

SPILL_BYTES: Final = 65_536
"""A payload or output above this is kept in a file beside the database."""

WORKFLOW_BYTES_MAX: Final = 67_108_864
"""One workflow file: 64 MiB, so that 100,000 steps with a few hundred bytes of input each fit."""

STEPS_MAX: Final = 100_000
"""Steps of one task, the children of its map steps included."""

DEPENDENCIES_MAX: Final = 1_000_000
"""Dependencies of one workflow, implied ones included: two layers of 1,000 steps, each on each, still fit."""

DEPTH_MAX: Final = 64
"""Levels of arrays and objects in an input, and in an output that is used as JSON. Well below the depth at which
any usual JSON reader gives up."""

STEP_ID_CHARS_MAX: Final = 128

LABELS_MAX: Final = 32
"""Labels of one task."""

LABEL_NAME_CHARS_MAX: Final = 63

LABEL_VALUE_CHARS_MAX: Final = 256

INSTANT_MS_MAX: Final = 253_402_300_799_999
"""The last instant that can be stored or shown: the end of the year 9999, UTC."""

CONCURRENCY_KEY_CHARS_MAX: Final = 256
"""A concurrency key, and a key that keeps tasks unique."""

CONCURRENCY_MAX: Final = 1_000_000
"""The largest limit on steps that run at a time; whoever wants more wants none."""

RATE_COUNT_MAX: Final = 1_000_000
"""Starts in a period of a rate."""

RATE_PERIOD_MS_MAX: Final = 2_678_400_000
"""The longest period of a rate: 31 days."""

BURST_MAX: Final = 1_000_000

LIMITS_MAX: Final = 10_000
"""Limits of one root: every process holds them all in memory."""

PAUSES_MAX: Final = 10_000
"""Pauses of one root, drained nodes included."""

BUDGETS_MAX: Final = 10_000
"""Budgets of the agents and keys of one root: every process holds their names in memory."""

BUDGETS_PER_OWNER_MAX: Final = 16
"""Budgets of one agent, of one key, or of one task."""

BUDGET_MICROS_MAX: Final = 1_000_000_000_000_000_000
"""The largest budget: a million millions, in micros. Whoever wants more wants none."""

BUDGET_PERIOD_MS_MIN: Final = 1_000

BUDGET_PERIOD_MS_MAX: Final = 31_622_400_000
"""The longest period of a budget: 366 days."""

SPEND_MICROS_MAX: Final = BUDGET_MICROS_MAX
"""What one attempt can have spent of one unit; it stays there."""

UNITS_PER_ATTEMPT_MAX: Final = 16
"""Units with different names that one attempt may report."""

UNIT_NAME_CHARS_MAX: Final = 32
