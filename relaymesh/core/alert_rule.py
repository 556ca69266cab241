"""The alerts that a running node watches for, and how patient each is.

queue_lag, step_p95, step_p99, dead_growth_1h, replication_lag    the service levels (slo.py), targets by settings
disk_pressure   the room that should be free against the room that is
stalled         how long the root has stood still (stall.py), against the time after which it is unwell
"""

from __future__ import annotations

from typing import Final

from relaymesh.core.alert import Rule
from relaymesh.core.slo import Levels, Objective, objectives
from relaymesh.core.stall import STALL_MS

__all__ = ["RULES", "readings"]

_SUSTAIN_MS: Final = 30_000
_RECOVER_MS: Final = 60_000

RULES: Final = (
    Rule("queue_lag", _SUSTAIN_MS, _RECOVER_MS),
    Rule("step_p95", _SUSTAIN_MS, _RECOVER_MS),
    Rule("step_p99", _SUSTAIN_MS, _RECOVER_MS),
    Rule("dead_growth_1h", _SUSTAIN_MS, _RECOVER_MS),
    Rule("replication_lag", _SUSTAIN_MS, _RECOVER_MS),
    # A disk fills fast, and work that is refused is worse than an alert too many.
    Rule("disk_pressure", 10_000, _RECOVER_MS),
    # The reading is itself a time for which nothing moved.
    Rule("stalled", 0, 10_000),
)


def readings(
    observed: Levels, target: Levels, *, free_bytes: int, min_free_bytes: int, stalled_ms: int
) -> dict[str, Objective]:
    """Return one reading for each rule, by its name; none of a disk whose room is unknown.

    free_bytes: -1 when unknown. min_free_bytes: 0 when nobody cares.
    """
    seen = {objective.metric: objective for objective in objectives(observed, target)}
    if free_bytes >= 0:
        seen["disk_pressure"] = Objective("disk_pressure", min_free_bytes, free_bytes)
    seen["stalled"] = Objective("stalled", stalled_ms, STALL_MS - 1)
    return seen
