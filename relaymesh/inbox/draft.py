"""From the content of a handed-in file to the rows that are to be stored, by the rules of every other submit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from relaymesh.core.inbox import LANES, Held, Lane
from relaymesh.core.priority import Priority, normalize_priority
from relaymesh.core.workflow import check_agents, parse
from relaymesh.errors import InputError, UnknownAgentError
from relaymesh.store.error import BadTextError
from relaymesh.store.payload import PayloadFiles
from relaymesh.submission import new_task, new_workflow, payload_of, text_of
from relaymesh.view import TaskRequest
from relaymesh.wire.handed import HandedTask, HandedWorkflow, read_handed
from relaymesh.wire.store import NewTask

__all__ = ["DraftNeeds", "Drafter", "PriorityConflictError"]

_AGENTS_FOR_NS = 1_000_000_000


class PriorityConflictError(InputError):
    """A file names another priority than the lane that it lies in."""

    code = "priority_conflict"

    def __init__(self, lane: str, priority: str) -> None:
        super().__init__(lane, priority)
        self.lane, self.priority = lane, priority

    def __str__(self) -> str:
        return f"the file lies in the lane {self.lane} and asks for {self.priority}: leave the priority out, or move it"


class _Ticket:
    """Gives a task the id that its file has as a ticket."""

    def __init__(self, ticket: str) -> None:
        self._ticket = ticket

    def task(self) -> str:
        return self._ticket


class DraftNeeds(Protocol):
    """What drafting asks of the process around it."""

    def now_ms(self) -> int: ...
    def mono_ns(self) -> int: ...
    def known_agents(self) -> Iterable[str]:
        """Return the agents that can be submitted to; may be slow, is asked once a second at most."""
        ...


class Drafter:
    """Drafts tasks for files."""

    def __init__(self, payloads: PayloadFiles, needs: DraftNeeds) -> None:
        self._payloads = payloads
        self._needs = needs
        self._agents: frozenset[str] = frozenset()
        self._agents_until_ns = 0

    def draft(self, held: Held, data: bytes) -> NewTask:
        """Return the task of a file of a lane, under its ticket.

        The key is the one in the file, else the file's name.

        Raises:
            BadFileError: the content is not whole, or not of the right form.
            InputError: a submit would refuse it.
            StoreError: a payload file cannot be written.
        """
        assert held.lane is not None
        handed = read_handed(held.name, data)
        priority = _priority_of(handed, held.lane)
        key = handed.idempotency_key
        key = key if key is not None and key.strip() else held.name
        _check_text(key)
        if isinstance(handed, HandedTask):
            return self._task(held, handed, priority, key)
        return self._workflow(held, handed, priority, key)

    def _task(self, held: Held, handed: HandedTask, priority: Priority, key: str) -> NewTask:
        if handed.agent not in self._known(handed.agent):
            raise UnknownAgentError(handed.agent)
        request = TaskRequest(
            agent=handed.agent,
            input=text_of(handed.input),
            priority=priority,
            idempotency_key=key,
            delay_ms=handed.delay_ms,
            at_ms=handed.at_ms,
            expires_in_ms=handed.expires_in_ms,
            labels=handed.labels,
            traceparent=handed.traceparent,
            budget=handed.budget,
        )
        payload = payload_of(request)
        return new_task(request, payload, now_ms=self._needs.now_ms(), ids=_Ticket(held.ticket), files=self._payloads)

    def _workflow(self, held: Held, handed: HandedWorkflow, priority: Priority, key: str) -> NewTask:
        plan = parse(handed.workflow, priority=priority)
        if any(step.agent not in self._known(step.agent) for step in plan.steps):
            check_agents(plan, self._agents)
        return new_workflow(
            plan,
            now_ms=self._needs.now_ms(),
            ids=_Ticket(held.ticket),
            files=self._payloads,
            idempotency_key=key,
            delay_ms=handed.delay_ms,
            at_ms=handed.at_ms,
            expires_in_ms=handed.expires_in_ms,
            labels=handed.labels,
            traceparent=handed.traceparent,
            budget=handed.budget,
        )

    def _known(self, agent: str) -> frozenset[str]:
        """Return the known agents, asked for anew when this one is not among them and a second has passed."""
        now_ns = self._needs.mono_ns()
        if agent not in self._agents and now_ns >= self._agents_until_ns:
            self._agents = frozenset(self._needs.known_agents())
            self._agents_until_ns = now_ns + _AGENTS_FOR_NS
        return self._agents


def _priority_of(handed: HandedTask | HandedWorkflow, lane: Lane) -> Priority:
    """Return the priority of the lane, which the file may repeat."""
    asked = handed.priority
    if asked is not None and asked.strip() and normalize_priority(asked) != LANES[lane]:
        raise PriorityConflictError(lane, normalize_priority(asked).lower())
    return LANES[lane]


def _check_text(key: str) -> None:
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise BadTextError from error
