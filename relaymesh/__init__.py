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
    from relaymesh.embed import Node
    from relaymesh.errors import RelayMeshError
    from relaymesh.view import TaskRequest
    from relaymesh.workflow import ITEM, Step, Workflow

__all__ = [
    "ITEM",
    "AgentFailed",
    "Client",
    "Context",
    "Node",
    "RelayMeshError",
    "RetryPolicy",
    "Step",
    "TaskRequest",
    "Workflow",
    "__version__",
    "agent",
]

# Equal to the version in setup.cfg (a test compares them): asking importlib.metadata costs several interpreter starts.
__version__ = "0.1.0"

_HOME = {
    "ITEM": "relaymesh.workflow",
    "AgentFailed": "relaymesh.agents.context",
    "Client": "relaymesh.client",
    "Context": "relaymesh.agents.context",
    "Node": "relaymesh.embed",
    "RelayMeshError": "relaymesh.errors",
    "RetryPolicy": "relaymesh.core.retry",
    "Step": "relaymesh.workflow",
    "TaskRequest": "relaymesh.view",
    "Workflow": "relaymesh.workflow",
    "agent": "relaymesh.agents.decorate",
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
