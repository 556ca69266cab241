"""The admission gate as a client meets it: which bounds hold for it, the errors, and the audit record of a refusal.

The rule is ``relaymesh.core.admission``, the counting ``relaymesh.store.admission``. docs/decisions/admission-gate.md
says for whom the defaults hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from relaymesh.core.admission import Bounds, RefusalCode
from relaymesh.core.setting import Source
from relaymesh.errors import InputError

if TYPE_CHECKING:
    from relaymesh.audit import Record
    from relaymesh.settings import Loaded
    from relaymesh.store.admission import Refusal
    from relaymesh.wire.store import NewTask

__all__ = [
    "AdmissionError",
    "Gate",
    "QueueFullError",
    "SubmitRateError",
    "TooManyRunningError",
    "bounds_of",
    "error_of",
    "record_of",
]

Gate = Literal["set", "always"]
"""``always``: the bounds of the settings hold, defaults included. ``set``: only those that somebody set do."""

_KEYS = {
    "queue_depth": "maxIngressQueueDepth",
    "running_steps": "maxRunningSteps",
    "per_minute": "submitRateLimitPerMin",
}


class AdmissionError(InputError):
    """The admission gate refused new work; nothing was stored. ``bound`` is what the setting allows."""

    code = "admission_refused"

    def __init__(self, bound: int) -> None:
        super().__init__(bound)
        self.bound = bound


class QueueFullError(AdmissionError):
    """As many steps as may wait and run are there."""

    code = "queue_depth_limit"

    def __str__(self) -> str:
        from relaymesh.core.plural import counted  # here and below: every submit loads this module

        return (
            f"the queue would be deeper than {counted(self.bound, 'step')}: submit again when some have ended, or raise"
            " maxIngressQueueDepth; nothing was stored"
        )


class TooManyRunningError(AdmissionError):
    """As many steps as may run are running."""

    code = "running_step_limit"

    def __str__(self) -> str:
        from relaymesh.core.plural import counted, verb

        return (
            f"{counted(self.bound, 'step')} {verb(self.bound, 'is', 'are')} running already: submit again when some"
            " have ended, or raise maxRunningSteps; nothing was stored"
        )


class SubmitRateError(AdmissionError):
    """As many steps as may come in within a minute have come."""

    code = "submit_rate_limit"

    def __str__(self) -> str:
        from relaymesh.core.plural import counted, verb

        return (
            f"more than {counted(self.bound, 'step')} {verb(self.bound, 'was', 'were')} submitted within this minute:"
            " submit again in the next one, hand in many by `submit --batch`, or raise submitRateLimitPerMin; nothing"
            " was stored"
        )


def bounds_of(loaded: Loaded, gate: Gate) -> Bounds:
    """Return the bounds that hold for a client."""
    effective = loaded.effective
    found = {
        name: int(value)
        for name, key in _KEYS.items()
        if (gate == "always" or effective.sources[key] is not Source.DEFAULT)
        and isinstance(value := effective.values[key], int)
    }
    return Bounds(**found)


def error_of(refusal: Refusal, bounds: Bounds) -> AdmissionError:
    """Return the error that tells of a refusal."""
    match refusal.code:
        case RefusalCode.QUEUE_DEPTH:
            return QueueFullError(bounds.queue_depth or 0)
        case RefusalCode.RUNNING_STEPS:
            return TooManyRunningError(bounds.running_steps or 0)
        case RefusalCode.RATE:
            return SubmitRateError(bounds.per_minute or 0)


def record_of(refusal: Refusal, task: NewTask, loaded: Loaded, *, actor: str) -> Record:
    """Return the audit record of a refusal."""
    from relaymesh.audit import Record
    from relaymesh.store.submit import is_sole

    values = loaded.effective.values
    details = {
        "reason": str(refusal.code),
        "source": "submit" if is_sole(task) else "submit_workflow",
        "priority": task.steps[0].priority,
        "queue_depth": refusal.load.queue_depth,
        "running_steps": refusal.load.running_steps,
        "max_queue_depth": values[_KEYS["queue_depth"]],
        "max_running_steps": values[_KEYS["running_steps"]],
        "submit_rate_limit_per_min": values[_KEYS["per_minute"]],
        "rejected_total": refusal.rejected_total,
    }
    return Record("admission.reject", actor, "runtime/admission", str(refusal.code), details)
