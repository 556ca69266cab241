"""What the code says about itself, in the form in which the pages of docs/ say it.

``python tests/docs/facts.py errors`` (or ``messages``) prints the rows that the page should have.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import actors
import chaos
import relaymesh
from actors.base import Actor
from relaymesh.errors import RelayMeshError
from relaymesh.wire.codec import CATALOGUE, Message

REPO = Path(__file__).resolve().parents[2]
PACKAGES = ("relaymesh", "actors", "chaos")
ELSEWHERE = {"win32": "tree_linux", "darwin": "tree_linux"}
# Taken by the worker process, which is no actor (relaymesh/agents/host.py).
HOST_TAKES = ("StartWorker", "RunSteps", "CancelStep", "CutStep", "RevokeSteps", "StopWorker")
# Passed as values inside a process or to a callback, never sent to an actor.
ANSWERS = ("MaintenanceDone", "QueueDrained", "Refused", "StoreAnswer")


def import_everything() -> None:
    """Import every module, so that every class is known."""
    for package in (relaymesh, actors, chaos):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith((ELSEWHERE.get(sys.platform, "-"), ".__main__")):
                importlib.import_module(found.name)


# Errors -------------------------------------------------------------------------------------------------------------


def error_classes() -> list[type[RelayMeshError]]:
    """Return every error class of ours that has a code of its own, by code and name."""
    import_everything()
    found: list[type[RelayMeshError]] = []
    todo: list[type[RelayMeshError]] = [RelayMeshError]
    while todo:
        cls = todo.pop()
        todo += cls.__subclasses__()
        if "code" in vars(cls) and cls.__module__.split(".")[0] in PACKAGES:
            found.append(cls)
    return sorted(found, key=lambda cls: (cls.code, cls.__module__))


def sentence(cls: type[RelayMeshError]) -> str:
    """Return what an error of the class says, its data in capitals; "" where those who raise it say it themselves."""
    if cls.__str__ is Exception.__str__ or cls.__str__ is BaseException.__str__:
        return ""
    own_init = "__init__" in {name for base in cls.__mro__[: cls.__mro__.index(Exception)] for name in vars(base)}
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:] if own_init else []
    if any(parameter.name == "sentence" for parameter in parameters):
        return ""
    values = [_sample(parameter) for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    return str(cls(*values))


def error_row(cls: type[RelayMeshError]) -> str:
    """Return the row of an error class; … stands for what is written by hand."""
    name = f"{cls.__module__}.{cls.__qualname__}"
    return f"| `{cls.code}` | `{name}` | {cls.exit_status} | {sentence(cls) or '…'} | … |"


def _sample(parameter: inspect.Parameter) -> object:
    kind = str(parameter.annotation)
    if "int" in kind or "float" in kind:
        return 7
    if "Sequence" in kind or "tuple" in kind:
        return ("A", "B")
    return "" if parameter.name == "hint" else parameter.name.upper()


def codes_without_class() -> set[str]:
    """Return the codes that are written down where they are used: attempts that failed, lines of a batch, the CLI."""
    return {code for tree in trees() for code in _codes_in(tree)}


def trees() -> Iterator[ast.Module]:
    """Yield the syntax tree of every module."""
    for package in PACKAGES:
        for path in sorted((REPO / package).rglob("*.py")):
            yield ast.parse(path.read_text(encoding="utf-8"))


def _codes_in(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        place = {"Failed": 0, "_print": 0, "_reject": 1, "DeadLetter": 0}.get(name)
        values = [node.args[place]] if place is not None and len(node.args) > place else []
        values += [keyword.value for keyword in node.keywords if keyword.arg == "code"]
        yield from (value.value for value in values if isinstance(value, ast.Constant) and value.value)


# Messages -----------------------------------------------------------------------------------------------------------


def messages() -> dict[str, type[Message]]:
    """Return the catalogue, tag to class, without what tests declare."""
    import_everything()
    return {tag: cls for tag, cls in sorted(CATALOGUE.items()) if cls.__module__.startswith("relaymesh.")}


def parts() -> dict[str, type[Message]]:
    """Return the classes that travel inside messages and have no tag, by name."""
    import_everything()
    todo: list[type[Message]] = list(Message.__subclasses__())
    return {cls.__name__: cls for cls in sorted(todo, key=lambda c: c.__name__) if not cls.TAG and _ours(cls)}


def _ours(cls: type) -> bool:
    return cls.__module__.startswith("relaymesh.")


def takers() -> dict[str, list[str]]:
    """Return who takes each message, by the name of its class."""
    import_everything()
    found: dict[str, list[str]] = {}
    todo = list(Actor.__subclasses__())
    while todo:
        actor = todo.pop()
        todo += actor.__subclasses__()
        if actor.__module__.startswith("actors."):
            takes = actor.takes if isinstance(actor.takes, tuple) else get_args(actor.takes) or (actor.takes,)
            for cls in takes:
                found.setdefault(cls.__name__, []).append(actor.__name__)
    for name in ("Crash", "Ping"):
        found[name] = ["every actor"]
    for name in HOST_TAKES:
        found.setdefault(name, []).append("worker process")
    return {name: sorted(set(names)) for name, names in found.items()}


def message_rows() -> list[str]:
    """Return the rows of the table of messages."""
    taken = takers()
    rows = []
    for tag, cls in messages().items():
        takes = ", ".join(taken.get(cls.__name__, [])) or "–"
        rows.append(f"| `{tag}` | {cls.VERSION} | `{cls.__name__}` | {_fields(cls)} | {takes} |")
    return rows


def part_rows() -> list[str]:
    """Return the rows of the table of parts."""
    return [f"| `{name}` | {_fields(cls)} |" for name, cls in parts().items()]


def _fields(cls: type[Message]) -> str:
    return ", ".join(f"`{name}`" for name in cls.__struct_fields__) or "–"


if __name__ == "__main__":
    if sys.argv[1:] == ["messages"]:
        print("\n".join([*message_rows(), "", *part_rows()]))
    else:
        for error in error_classes():
            print(error_row(error))
        print(sorted(codes_without_class()))
