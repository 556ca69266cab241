"""What one attempt of a step came to, as the worker that ran it reports it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Failed", "Outcome", "Snoozed", "Succeeded"]


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The agent returned; ``output`` is its text."""

    output: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The agent failed.

    code: stable machine code of the cause (``agent_error``, ``timeout``, ``output_too_large``, ...).
    error: one line for people, never a payload or a secret.
    retryable: False dead-letters the step at once.
    retry_after_ms: the least wait that the agent asked for (HTTP ``Retry-After``), or None.
    """

    code: str
    error: str
    retryable: bool = True
    retry_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Snoozed:
    """The agent asked to be run again later; no attempt is counted."""

    for_ms: int


Outcome = Succeeded | Failed | Snoozed
