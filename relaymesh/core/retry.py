"""Whether a step that did not succeed runs again, and when.

    attempt failed ──┬── not retryable, or attempts used up ──▶ DeadLetter
                     └── else ──▶ RetryAt(now + max(backoff + jitter, what the agent asked for))

    worker process died ──┬── 3rd death ──▶ DeadLetter (poison)
                          └── else ──▶ RetryAt(now + backoff by deaths)

    owner node died ──┬── 10th death ──▶ DeadLetter (poison)
                      └── else ──▶ RetryAt(now), from the 2nd death on with backoff

A death is no attempt: the agent did not fail, it was stopped. It is counted apart, because a step that takes its
process or its node with it every time would otherwise be retried for ever (see docs/decisions/poison-counters.md).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from relaymesh.core.outcome import Failed

__all__ = [
    "JITTER_MS_MAX",
    "POISON_OWNER_DEATHS",
    "POISON_WORKER_DEATHS",
    "RETRY_AFTER_MS_MAX",
    "DeadLetter",
    "Decision",
    "RetryAt",
    "RetryPolicy",
    "after_failure",
    "after_owner_death",
    "after_worker_death",
    "delay_ms",
]

JITTER_MS_MAX: Final = 250
"""The random part of a backoff is uniform over 0..250 ms, both ends included."""

RETRY_AFTER_MS_MAX: Final = 24 * 3_600_000
"""The longest wait that an agent may ask for with a failure; a longer wish is cut to this."""

POISON_WORKER_DEATHS: Final = 3
"""At this many deaths of its worker process a step is dead-lettered."""

POISON_OWNER_DEATHS: Final = 10
"""At this many deaths of its owner node a step is dead-lettered; more patient, since nodes die for other reasons."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often an agent's step is tried, and how long it waits between attempts.

    max_attempts: attempts in all, the first one included.
    base_backoff_ms: the wait after the first failure; doubles with each further one.
    max_backoff_ms: no backoff is longer than this, jitter included.

    Raises ValueError on construction when a number is not positive or base is above max.
    """

    max_attempts: int = 3
    base_backoff_ms: int = 1000
    max_backoff_ms: int = 60_000

    def __post_init__(self) -> None:
        for name in ("max_attempts", "base_backoff_ms", "max_backoff_ms"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.base_backoff_ms > self.max_backoff_ms:
            raise ValueError(
                f"base_backoff_ms ({self.base_backoff_ms}) must not be above max_backoff_ms ({self.max_backoff_ms})"
            )


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Run the step again, not before ``at_ms`` (wall time)."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Do not run the step again.

    reason_code: ``not_retryable``, ``attempts_exhausted``, ``poison_worker`` or ``poison_owner``.
    """

    reason_code: str


Decision = RetryAt | DeadLetter


def delay_ms(policy: RetryPolicy, attempt: int, rng: random.Random) -> int:
    """Return the wait after the given number of attempts, in ms.

    ``min(max, min(max, base * 2^(attempt-1)) + jitter)``. An attempt below 1 counts as 1: rows may be written by hand.
    """
    # Doubling past the cap's own length cannot change the result, and 2^attempt would grow without bound.
    doublings = min(max(attempt, 1) - 1, policy.max_backoff_ms.bit_length())
    backoff_ms = min(policy.max_backoff_ms, policy.base_backoff_ms << doublings)
    return min(policy.max_backoff_ms, backoff_ms + rng.randint(0, JITTER_MS_MAX))


def after_failure(policy: RetryPolicy, attempt: int, failed: Failed, now_ms: int, rng: random.Random) -> Decision:
    """Decide about a step whose attempt failed.

    attempt: attempts started so far, the failed one included, without those that a death or a release gave back.
    """
    if not failed.retryable:
        return DeadLetter("not_retryable")
    if attempt >= policy.max_attempts:
        return DeadLetter("attempts_exhausted")
    asked_ms = min(failed.retry_after_ms or 0, RETRY_AFTER_MS_MAX)
    return RetryAt(now_ms + max(delay_ms(policy, attempt, rng), asked_ms))


def after_worker_death(policy: RetryPolicy, worker_deaths: int, now_ms: int, rng: random.Random) -> Decision:
    """Decide about a step whose worker process died under it; worker_deaths counts this death too."""
    if worker_deaths >= POISON_WORKER_DEATHS:
        return DeadLetter("poison_worker")
    return RetryAt(now_ms + delay_ms(policy, worker_deaths, rng))


def after_owner_death(policy: RetryPolicy, owner_deaths: int, now_ms: int, rng: random.Random) -> Decision:
    """Decide about a step reclaimed from a dead, expired or restarted owner; owner_deaths counts this one too.

    The first death costs no wait: nodes are killed and moved for reasons that are not the step's. A step that was there
    again at the next death waits, so that one bad step does not take down node after node at full speed.
    """
    if owner_deaths >= POISON_OWNER_DEATHS:
        return DeadLetter("poison_owner")
    if owner_deaths <= 1:
        return RetryAt(now_ms)
    return RetryAt(now_ms + delay_ms(policy, owner_deaths - 1, rng))
