"""RelayMesh: a durable runtime for agents.

What a program needs comes from here and is loaded when it is first used, so that ``import relaymesh`` and
``relaymesh --help`` cost next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relaymesh.agents.context import AgentFailed, Context
    from relaymesh.agents.decorate import agent
    from relaymesh.client import Client
    from relaymesh.core.retry import RetryPolicy
    from relaymesh.core.workflow_error import WorkflowError
    from relaymesh.embed import Node
    from relaymesh.errors import InputError, RelayMeshError, TaskFailedError, TaskNotFoundError, UnknownAgentError
    from relaymesh.view import Event, SubmitOutcome, TaskRequest, TaskView
    from relaymesh.watch import WaitTimeoutError
    from relaymesh.workflow import ITEM, Step, Workflow, literal

__all__ = [
    "ITEM",
    "AgentFailed",
    "Client",
    "Context",
    "Event",
    "InputError",
    "Node",
    "RelayMeshError",
    "RetryPolicy",
    "Step",
    "SubmitOutcome",
    "TaskFailedError",
    "TaskNotFoundError",
    "TaskRequest",
    "TaskView",
    "UnknownAgentError",
    "WaitTimeoutError",
    "Workflow",
    "WorkflowError",
    "__version__",
    "agent",
    "literal",
]

# Equal to the version in setup.cfg (a test compares them): asking importlib.metadata costs several interpreter starts.
__version__ = "0.1.0"

_HOME = {
    "ITEM": "relaymesh.workflow",
    "AgentFailed": "relaymesh.agents.context",
    "Client": "relaymesh.client",
    "Context": "relaymesh.agents.context",
    "Event": "relaymesh.view",
    "InputError": "relaymesh.errors",
    "Node": "relaymesh.embed",
    "RelayMeshError": "relaymesh.errors",
    "RetryPolicy": "relaymesh.core.retry",
    "Step": "relaymesh.workflow",
    "SubmitOutcome": "relaymesh.view",
    "TaskFailedError": "relaymesh.errors",
    "TaskNotFoundError": "relaymesh.errors",
    "TaskRequest": "relaymesh.view",
    "TaskView": "relaymesh.view",
    "UnknownAgentError": "relaymesh.errors",
    "WaitTimeoutError": "relaymesh.watch",
    "Workflow": "relaymesh.workflow",
    "WorkflowError": "relaymesh.core.workflow_error",
    "agent": "relaymesh.agents.decorate",
    "literal": "relaymesh.workflow",
}


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'relaymesh' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
