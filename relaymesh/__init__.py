"""RelayMesh: a durable runtime for agents.

What a program needs comes from here and is loaded when it is first used, so that ``import relaymesh`` and
``relaymesh --help`` cost next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relaymesh.errors import RelayMeshError
    from relaymesh.view import TaskRequest

__all__ = ["RelayMeshError", "TaskRequest", "__version__"]

# Equal to the version in setup.cfg (a test compares them): asking importlib.metadata costs several interpreter starts.
__version__ = "0.1.0"

_HOME = {
    "RelayMeshError": "relaymesh.errors",
    "TaskRequest": "relaymesh.view",
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
