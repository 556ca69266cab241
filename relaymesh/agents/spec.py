"""What an agent is: its name, how it is run, and the limits that hold while it runs.

A spec is plain data. It is made by ``@agent`` (Python), by ``scripts.json`` (scripts and HTTP endpoints) or by the
built-ins, found by ``relaymesh.agents.registry``, and read by whoever runs a step. This module imports nothing heavy,
because the queue and the commands need it too.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relaymesh.core.retry import RetryPolicy

__all__ = [
    "DEFAULT_GRACE_MS",
    "DEFAULT_TIMEOUT_MS",
    "USER_INLINE_POOL",
    "AgentSpec",
    "HttpTarget",
    "Isolation",
    "Kind",
    "PythonTarget",
    "ScriptTarget",
]

DEFAULT_TIMEOUT_MS = 60_000
DEFAULT_GRACE_MS = 2_000
USER_INLINE_POOL = "inline-python"


class Isolation(enum.Enum):
    """Where an agent's code runs. The value is also the name of the slot pool that its steps wait for."""

    INLINE = "inline"  # in the thread of the node that dispatches: built-ins only, a few microseconds a step
    THREAD = "thread"  # in a thread of the node: trusted and light, cannot be killed
    PROCESS = "process"  # in a worker process: can be killed, limited and recycled


class Kind(enum.Enum):
    """What an agent is made of."""

    BUILTIN = "builtin"
    PYTHON = "python"
    SCRIPT = "script"
    HTTP = "http"


@dataclass(frozen=True, slots=True)
class PythonTarget:
    """A Python function or coroutine function.

    input_type: the annotation of the first parameter; ``str`` means that the payload is handed over as it is.
    retry_on, no_retry_on: the exception types themselves; ``AgentSpec`` carries their names.
    """

    function: Callable[..., Any]
    takes_context: bool
    is_coroutine: bool
    input_type: Any = str
    retry_on: tuple[type[BaseException], ...] = ()
    no_retry_on: tuple[type[BaseException], ...] = ()


@dataclass(frozen=True, slots=True)
class ScriptTarget:
    """A command that is started without a shell; tokens are already resolved against the data root."""

    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """An endpoint that takes the payload as a POST. A header value ``env:NAME`` is read when the step runs."""

    url: str
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """One agent.

    timeout_ms: how long one attempt may take before it is asked to end.
    grace_ms: how long it may take to end after that, or after a hard cancel, before it is killed.
    max_concurrency: how many steps of this agent may run at once on the whole root; None is no limit of its own.
    retry: the policy of the decorator or of ``retry-policies.json``; None is the default policy.
    retry_on, no_retry_on: names of exception types, for people; the first empty means that every error is retried.
    recycle_after_steps, recycle_above_mib: a worker process ends after so many steps, or when it holds so much memory
        after a step, and a fresh one takes over; None is never.
    source: where the agent was found, for people.
    target: what is run; None for a built-in, which is known by its id.
    """

    agent_id: str
    kind: Kind
    isolation: Isolation
    timeout_ms: int = DEFAULT_TIMEOUT_MS
    grace_ms: int = DEFAULT_GRACE_MS
    max_concurrency: int | None = None
    retry: RetryPolicy | None = None
    retry_on: tuple[str, ...] = ()
    no_retry_on: tuple[str, ...] = ()
    recycle_after_steps: int | None = 100_000
    recycle_above_mib: int | None = 512
    source: str = ""
    target: PythonTarget | ScriptTarget | HttpTarget | None = None

    def __post_init__(self) -> None:
        if not self.agent_id.strip():
            raise ValueError("an agent needs an id that is not blank")
        for name in ("timeout_ms", "max_concurrency", "recycle_after_steps", "recycle_above_mib"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} of agent {self.agent_id!r} is {value}: it must be at least 1")
        if self.grace_ms < 0:
            raise ValueError(f"grace_ms of agent {self.agent_id!r} is {self.grace_ms}: it must not be negative")

    @property
    def pool(self) -> str:
        """The name of the slot pool that steps of this agent wait for.

        A Python agent that runs inline has a pool of its own with a single slot: it takes as long as it takes, and
        built-ins must not wait behind it.
        """
        if self.isolation is Isolation.INLINE and self.kind is not Kind.BUILTIN:
            return USER_INLINE_POOL
        return self.isolation.value
