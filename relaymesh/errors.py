"""The families of errors that RelayMesh raises on purpose.

    RelayMeshError
    ├── UsageError          the call itself is wrong (exit status 2)
    ├── InputError          what was handed in is wrong: payload, workflow, id, agent name
    │   ├── TaskNotFoundError
    │   └── UnknownAgentError
    ├── RootError           the data root cannot be used: missing, unreadable, too new
    ├── StoreError          the database refused: busy, full, failed
    ├── TaskFailedError     a task whose success was waited for has ended in another way
    ├── AgentError          an agent cannot be loaded or run
    │   └── AgentLoadError
    ├── ActorError          an actor is too busy to take a message, gave no answer in time, or has ended
    └── MessageError        bytes that are not one of our messages

The members of a family stand beside the code that raises them; docs/errors.md lists all of them.

Each class has a ``code`` that never changes and an exit status. The sentence says what happened and what to do next.
Messages never contain secrets or payloads.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "ActorError",
    "AgentError",
    "AgentLoadError",
    "InputError",
    "MessageError",
    "RelayMeshError",
    "RootError",
    "StoreError",
    "TaskFailedError",
    "TaskNotFoundError",
    "UnknownAgentError",
    "UsageError",
]


class RelayMeshError(Exception):
    """Base of every expected error: one sentence, a stable code, an exit status."""

    code: ClassVar[str] = "error"
    exit_status: ClassVar[int] = 1


class UsageError(RelayMeshError):
    """The call itself is wrong."""

    code = "usage"
    exit_status = 2


class InputError(RelayMeshError):
    """What was handed in is wrong; nothing was changed."""

    code = "bad_input"


class TaskNotFoundError(InputError):
    """No task has this id in the root and namespace that were asked."""

    code = "task_not_found"

    def __init__(self, task_id: str) -> None:
        super().__init__(task_id)
        self.task_id = task_id

    def __str__(self) -> str:
        return (
            f"there is no task {self.task_id} here: `relaymesh tasks` lists what there is; check --root and --namespace"
        )


class UnknownAgentError(InputError):
    """No agent has this name in this process. ``hint`` names the nearest one, or why it was not taken, or is empty."""

    code = "unknown_agent"

    def __init__(self, agent_id: str, hint: str = "") -> None:
        super().__init__(agent_id, hint)
        self.agent_id, self.hint = agent_id, hint

    def __str__(self) -> str:
        from relaymesh.core.nearest import quoted  # it costs nothing before somebody mistypes

        # A hint ends in a question mark, or has a colon of its own, behind which no other can follow.
        there_are = (
            " (`relaymesh agents` lists those that are)" if self.hint else ": `relaymesh agents` lists those that are"
        )
        return f"there is no agent {quoted(self.agent_id)} here{self.hint}{there_are}"


class RootError(RelayMeshError):
    """The data root cannot be used."""

    code = "root_unusable"


class StoreError(RelayMeshError):
    """The database refused; nothing that was acknowledged is lost."""

    code = "store_failed"


class TaskFailedError(RelayMeshError):
    """A task whose success was waited for ended as DEAD_LETTER or CANCELLED. ``error`` is the last one of its steps."""

    code = "task_failed"

    def __init__(self, task_id: str, status: str, error: str | None) -> None:
        super().__init__(task_id, status, error)
        self.task_id, self.status, self.error = task_id, status, error

    def __str__(self) -> str:
        why = f" ({self.error})" if self.error else ""
        what_next = (
            "`relaymesh logs` shows what its attempts said, `relaymesh replay` runs the failed steps again"
            if self.status == "DEAD_LETTER"
            else "submit it again under another idempotency key"
        )
        return f"task {self.task_id} ended as {self.status}{why}: {what_next}"


class AgentError(RelayMeshError):
    """An agent cannot be loaded or run."""

    code = "agent"


class AgentLoadError(AgentError):
    """A module or file that is to bring agents cannot be read."""

    code = "agent_load"

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(source, reason)
        self.source, self.reason = source, reason

    def __str__(self) -> str:
        return f"the agents of {self.source} cannot be loaded: {self.reason}"


class ActorError(RelayMeshError):
    """An actor did not take a message or did not answer."""

    code = "actor"


class MessageError(RelayMeshError):
    """Bytes that are not one of our messages."""

    code = "bad_message"
