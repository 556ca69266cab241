"""The one first reason why a step is not finished, and the command that would change it.

The questions are asked in the order in which the causes stand in each other's way; the first that answers wins::

    ended? ──────────────── done, cancelled, dead_letter
    running? ────────────── owner_lost (owner gone, or lease over), running
    dependencies unmet? ─── blocked_by_dead_dependency (will never end by itself), waiting_dependency
    too early? ──────────── retry_backoff, delayed
    paused? ─────────────── queue_paused, node_paused (all nodes that live are)
    anybody to run it? ──── no_node, agent_not_registered
    anything to spend? ──── task_budget, agent_budget, key_budget
    room for it? ────────── overall_, agent_, key_concurrency, overall_, agent_, key_rate; no_free_slot
    else ────────────────── ready (it starts within a moment)

Reason codes never change; docs/explain.md lists them for users.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from relaymesh.core.budget import Budget, BudgetScope
from relaymesh.core.budget_text import amount_text, period_text
from relaymesh.core.plural import counted, verb
from relaymesh.core.rate_text import rate_text
from relaymesh.core.status import StepStatus, TaskStatus
from relaymesh.core.throttle import Limit, LimitScope, PauseScope

__all__ = ["BudgetSpent", "Dependency", "LimitReached", "Paused", "Reason", "StepFacts", "Why", "explain"]


class Reason(StrEnum):
    """Why a step stands where it stands."""

    DONE = "done"
    CANCELLED = "cancelled"
    DEAD_LETTER = "dead_letter"
    OWNER_LOST = "owner_lost"
    RUNNING = "running"
    BLOCKED_BY_DEAD_DEPENDENCY = "blocked_by_dead_dependency"
    WAITING_DEPENDENCY = "waiting_dependency"
    RETRY_BACKOFF = "retry_backoff"
    DELAYED = "delayed"
    QUEUE_PAUSED = "queue_paused"
    NODE_PAUSED = "node_paused"
    NO_NODE = "no_node"
    AGENT_NOT_REGISTERED = "agent_not_registered"
    TASK_BUDGET = "task_budget"
    AGENT_BUDGET = "agent_budget"
    KEY_BUDGET = "key_budget"
    AGENT_CONCURRENCY = "agent_concurrency"
    OVERALL_CONCURRENCY = "overall_concurrency"
    KEY_CONCURRENCY = "key_concurrency"
    OVERALL_RATE = "overall_rate"
    AGENT_RATE = "agent_rate"
    KEY_RATE = "key_rate"
    NO_FREE_SLOT = "no_free_slot"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class Dependency:
    """A step that must succeed first; ``since_ms``: when it last changed, wall time."""

    step_id: str
    status: StepStatus
    since_ms: int


@dataclass(frozen=True, slots=True)
class Paused:
    """What keeps the step from being taken anywhere, and since when."""

    scope: PauseScope
    name: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class LimitReached:
    """The first limit of the root that leaves the step no room. name: of the agent or key, else "".

    running: steps that count against it. due_in_ms: of a rate, when it gives the next start.
    """

    scope: LimitScope
    name: str
    limit: Limit
    running: int
    due_in_ms: int | None = None


@dataclass(frozen=True, slots=True)
class BudgetSpent:
    """The first budget that is used up. spent: in the window of now, in micros. turns_in_ms: None for one for good."""

    scope: BudgetScope
    name: str
    kind: str
    budget: Budget
    spent: int
    turns_in_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFacts:
    """All that is known about a step and about who could run it. Times are wall times in ms.

    status_since_ms: when the step last changed; for a running one, when it was claimed as far as that is known.
    not_before_ms: the step may not start earlier (``--delay``, ``--at``, backoff or snooze), None when it may.
    owner, lease_age_ms, owner_alive: of a RUNNING step: node id, ms since its last heartbeat, and whether membership
        holds that node alive.
    live_nodes: nodes of this root that are alive; paused_nodes: those of them that take no work (drain, suspicion).
    node_pause: of the first of them that is paused because of its own standing, why; "" for none.
    agent_nodes: live nodes that have the agent, paused ones left out.
    agent_running, agent_limit: of the agent's steps on those nodes; None: no limit.
    free_slots: free slots that fit the step on those nodes.
    paused: the pause that holds for the step; limit_reached: the limit of the root that does; budget_spent: the budget
        that is used up.
    room_since_ms: since when nobody could take it (no node, no agent, no room); None when that is not known.
    """

    step_id: str
    task_id: str
    agent_id: str
    status: StepStatus
    task_status: TaskStatus
    now_ms: int
    status_since_ms: int
    attempt: int = 0
    dependencies: tuple[Dependency, ...] = ()
    not_before_ms: int | None = None
    owner: str | None = None
    owner_alive: bool = True
    lease_age_ms: int = 0
    lease_timeout_ms: int = 15_000
    live_nodes: int = 0
    paused_nodes: int = 0
    node_pause: str = ""
    agent_nodes: tuple[str, ...] = ()
    agent_running: int = 0
    agent_limit: int | None = None
    free_slots: int = 0
    paused: Paused | None = None
    limit_reached: LimitReached | None = None
    budget_spent: BudgetSpent | None = None
    room_since_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Why:
    """The answer.

    since_ms: wall time since when this reason holds.
    sentence: for people.
    command: what would unblock the step, without global options; None where only waiting helps or nothing is wrong.
    """

    reason: Reason
    since_ms: int
    sentence: str
    command: str | None = None


def explain(facts: StepFacts) -> Why:
    """Return the first reason that applies."""
    match facts.status:
        case StepStatus.SUCCESS:
            return Why(Reason.DONE, facts.status_since_ms, "the step succeeded")
        case StepStatus.CANCELLED:
            return Why(Reason.CANCELLED, facts.status_since_ms, "the step was cancelled with its task")
        case StepStatus.DEAD_LETTER:
            return Why(
                Reason.DEAD_LETTER,
                facts.status_since_ms,
                f"the step failed for good after {counted(facts.attempt, 'attempt')}",
                f"relaymesh replay {facts.task_id}",
            )
        case StepStatus.RUNNING:
            return _running(facts)
        case _:
            return (
                _unmet(facts)
                or _too_early(facts)
                or _paused(facts)
                or _nobody(facts)
                or _no_room(facts)
                or _ready(facts)
            )


def _running(facts: StepFacts) -> Why:
    owner = facts.owner or "an unknown node"
    if facts.owner_alive and facts.lease_age_ms < facts.lease_timeout_ms:
        return Why(Reason.RUNNING, facts.status_since_ms, f"attempt {facts.attempt} is running on {owner}")
    gone = "its lease is over" if facts.owner_alive else "that node is dead"
    return Why(
        Reason.OWNER_LOST,
        facts.now_ms - facts.lease_age_ms,
        f"{owner} had the step, but {gone}: the next maintenance of any node takes it back",
        "relaymesh maintenance",
    )


def _unmet(facts: StepFacts) -> Why | None:
    unmet = [dependency for dependency in facts.dependencies if dependency.status is not StepStatus.SUCCESS]
    if not unmet:
        return None
    dead = [d for d in unmet if d.status in (StepStatus.DEAD_LETTER, StepStatus.CANCELLED)]
    if dead:
        first = min(dead, key=lambda d: (d.since_ms, d.step_id))
        # A cancelled task cannot be replayed; only a new submit helps there.
        replayable = facts.task_status is TaskStatus.DEAD_LETTER
        return Why(
            Reason.BLOCKED_BY_DEAD_DEPENDENCY,
            first.since_ms,
            f"{first.step_id} is {first.status} and will not succeed by itself{_more(len(dead))}",
            f"relaymesh replay {facts.task_id}" if replayable else None,
        )
    first = min(unmet, key=lambda d: d.step_id)
    return Why(
        Reason.WAITING_DEPENDENCY,
        facts.status_since_ms,
        f"{first.step_id} is {first.status} and must succeed first{_more(len(unmet))}",
    )


def _too_early(facts: StepFacts) -> Why | None:
    if facts.not_before_ms is None or facts.not_before_ms <= facts.now_ms:
        return None
    wait = f"{_seconds(facts.not_before_ms - facts.now_ms)} from now"
    if facts.status is StepStatus.RETRYING:
        tried = f"after {counted(facts.attempt, 'attempt')} " if facts.attempt else ""
        return Why(Reason.RETRY_BACKOFF, facts.status_since_ms, f"it runs again {tried}{wait}")
    return Why(Reason.DELAYED, facts.status_since_ms, f"it may not start before {wait}")


def _paused(facts: StepFacts) -> Why | None:
    pause = facts.paused
    if pause is None:
        return None
    match pause.scope:
        case PauseScope.AGENT:
            what, option = f"the agent {pause.name} is paused", f" --agent {pause.name}"
        case PauseScope.PRIORITY:
            what, option = f"the priority {pause.name} is paused", f" --priority {pause.name.lower()}"
        case _:
            what, option = "the queue is paused", ""
    since_ms = max(pause.since_ms, facts.status_since_ms, facts.not_before_ms or 0)
    return Why(Reason.QUEUE_PAUSED, since_ms, what, f"relaymesh queue resume{option}")


def _limited(facts: StepFacts) -> Why | None:
    reached = facts.limit_reached
    if reached is None:
        return None
    match reached.scope:
        case LimitScope.OVERALL:
            whose, option = "", " --overall"
        case LimitScope.AGENT:
            whose, option = f" of {reached.name}", f" --agent {reached.name}"
        case _:
            whose, option = f" with the key {reached.name}", f" --key {reached.name}"
    scope = "key" if reached.scope is LimitScope.EACH_KEY else str(reached.scope)
    if reached.due_in_ms is None:
        sentence = f"{_of_at_most(reached.running, reached.limit.max_concurrency, whose)} running"
        raise_it = f"relaymesh limits set{option} --max-concurrency <more>"
        return Why(Reason(f"{scope}_concurrency"), _room_since(facts), sentence, raise_it)
    rate = reached.limit.rate
    assert rate is not None, "only a rate has a time at which it is due"
    sentence = (
        f"no more than {rate_text(rate)} steps{whose} may start; the next one may in {_seconds(reached.due_in_ms)}"
    )
    return Why(Reason(f"{scope}_rate"), _room_since(facts), sentence, f"relaymesh limits set{option} --rate <more>")


def _spent(facts: StepFacts) -> Why | None:
    gone = facts.budget_spent
    if gone is None:
        return None
    whose = "this task" if gone.scope is BudgetScope.TASK else f"the {gone.scope} {gone.name}"
    spent, amount = amount_text(gone.spent), amount_text(gone.budget.amount)
    per = "" if gone.budget.period_ms is None else f" per {period_text(gone.budget.period_ms)}"
    if gone.scope is BudgetScope.TASK:
        then = "the step is dead-lettered when its turn comes"
    elif gone.turns_in_ms is None:
        then = "it is not filled again by itself"
    else:
        then = f"the next period begins in {_seconds(gone.turns_in_ms)}"
    sentence = f"{whose} has spent {spent} of {amount}{per} for {gone.kind}; {then}"
    keep = "" if gone.budget.period_ms is None else f" --per {period_text(gone.budget.period_ms)}"
    command = f"relaymesh budgets set --{gone.scope} {gone.name} --kind {gone.kind} --amount <more>{keep}"
    return Why(Reason(f"{gone.scope}_budget"), _room_since(facts), sentence, command)


def _nobody(facts: StepFacts) -> Why | None:
    since_ms = _room_since(facts)
    if facts.live_nodes <= 0:
        return Why(Reason.NO_NODE, since_ms, "no node is running", "relaymesh up")
    if facts.paused_nodes >= facts.live_nodes and facts.node_pause:
        return Why(
            Reason.NODE_PAUSED, since_ms, f"no node that runs takes work: {facts.node_pause}", "relaymesh members"
        )
    if facts.paused_nodes >= facts.live_nodes:
        taken = f"{counted(facts.live_nodes, 'node')} alive, but paused or draining: none takes work"
        return Why(Reason.NO_NODE, since_ms, taken, "relaymesh up")
    if not facts.agent_nodes:
        return Why(
            Reason.AGENT_NOT_REGISTERED,
            since_ms,
            f"no node that takes work has the agent {facts.agent_id}",
            f"relaymesh up --agents <module or file with {facts.agent_id}>",
        )
    return None


def _no_room(facts: StepFacts) -> Why | None:
    limited = _spent(facts) or _limited(facts)
    if limited is not None:
        return limited
    since_ms = _room_since(facts)
    if facts.agent_limit is not None and facts.agent_running >= facts.agent_limit:
        return Why(
            Reason.AGENT_CONCURRENCY,
            since_ms,
            f"{_of_at_most(facts.agent_running, facts.agent_limit, f' of {facts.agent_id}')} running",
        )
    if facts.free_slots <= 0:
        nodes = counted(len(facts.agent_nodes), "node")
        return Why(
            Reason.NO_FREE_SLOT,
            since_ms,
            f"no slot for {facts.agent_id} is free on {nodes}",
            "relaymesh worker",
        )
    return None


def _ready(facts: StepFacts) -> Why:
    return Why(Reason.READY, max(facts.status_since_ms, facts.not_before_ms or 0), "nothing stands in its way")


def _room_since(facts: StepFacts) -> int:
    """Return since when only room was missing: not before the step itself was ready for it."""
    return max(facts.status_since_ms, facts.not_before_ms or 0, facts.room_since_ms or 0)


def _of_at_most(running: int, most: int | None, whose: str) -> str:
    assert most is not None, "a limit that is reached is one"
    return f"{running} of at most {counted(most, 'step')}{whose} {verb(running, 'is', 'are')}"


def _more(total: int) -> str:
    return f" (and {total - 1} more)" if total > 1 else ""


def _seconds(duration_ms: int) -> str:
    return f"{duration_ms} ms" if duration_ms < 1000 else f"{duration_ms / 1000:.1f} s"
