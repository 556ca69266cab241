"""A node inside a program.

    with Node("data", agents=[count_words]) as node:
        task = node.client.submit("count_words", "some text")
        print(node.client.result(task.task_id))

Agents that run in worker processes are found again there by the file or module that defines them, so a script that
starts a node needs ``if __name__ == "__main__":`` around it, as with multiprocessing.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from relaymesh.agents.decorate import SPEC_ATTRIBUTE
from relaymesh.agents.module import import_source
from relaymesh.argument import check_whole_number, root_of
from relaymesh.client import Client
from relaymesh.errors import AgentLoadError, InputError
from relaymesh.node import Builder, GossipOptions, NodeOptions, RunningNode, start

if TYPE_CHECKING:
    from relaymesh.wire.store import StoreAnswer, SubmitTasks

__all__ = ["Node"]

AgentSource = str | Callable[..., Any]


class Node:
    """A context manager that runs a node for as long as its body runs.

    root: the data root. agents: functions with ``@agent``, or modules and files as ``--agents`` takes them.
    concurrency: worker processes; None is the number of cores, at least 4.
    grace_ms: how long running steps may take to end when the body is left.
    gossip: how it joins a mesh; by default it joins none, and opens no port.
    client: submits through the node's own group commit; use it from one thread at a time.
    """

    def __init__(
        self,
        root: str | Path = "data",
        *,
        agents: Sequence[AgentSource] = (),
        namespace: str = "default",
        node_id: str | None = None,
        concurrency: int | None = None,
        threads: int | None = None,
        grace_ms: int | None = None,
        gossip: GossipOptions | None = None,
        builder: Builder | None = None,
    ) -> None:
        if isinstance(agents, str) or not isinstance(agents, Sequence):
            kind = type(agents).__name__
            raise InputError(
                f"agents is a list of functions, modules or files, and this is of type {kind}: put it in brackets"
            )
        for name, number in (("concurrency", concurrency), ("threads", threads), ("grace_ms", grace_ms)):
            if number is not None:
                check_whole_number(name, number, 0 if name == "grace_ms" else 1)
        self._options = NodeOptions(
            root=root_of(root),
            namespace=namespace,
            node_id=node_id,
            concurrency=concurrency,
            threads=threads,
            agents=tuple(dict.fromkeys(_source_of(agent) for agent in agents)),
            grace_ms=grace_ms,
            gossip=gossip,
        )
        self._builder = builder
        self._running: RunningNode | None = None
        self.client = Client(root, namespace=namespace, agents=self._options.agents, submitter=self._submit)

    def __enter__(self) -> Node:
        _refuse_while_agents_are_loaded()
        self._running = start(self._options, self._builder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        running, self._running = self._running, None
        if running is not None:
            running.stop()

    @property
    def running(self) -> RunningNode:
        """The node; only inside the ``with``.

        Raises:
            InputError: it has not been started, or has ended.
        """
        if self._running is None:
            raise InputError("the node runs only inside its with block: submit there, or by a Client of its root")
        return self._running

    def _submit(self, message: SubmitTasks) -> StoreAnswer:
        return self.running.submit(message)


def _source_of(agent: AgentSource) -> str:
    """Return where a worker process finds the agent: its module, or its file when the module cannot be imported there.

    Raises:
        AgentLoadError: it is no agent, or a worker process could not find it.
    """
    if isinstance(agent, str):
        return agent
    name = getattr(agent, "__qualname__", repr(agent))
    if not hasattr(agent, SPEC_ATTRIBUTE):
        raise AgentLoadError(name, "it is not decorated with @agent")
    if "<locals>" in name:
        raise AgentLoadError(
            name, "it is defined inside a function, where a worker process cannot find it: move it out of there"
        )
    try:
        path = inspect.getsourcefile(inspect.unwrap(agent))
    except TypeError:
        path = None
    if path is None or not os.path.isfile(path):
        raise AgentLoadError(name, "it was defined at a prompt, where no worker process can find it: put it in a file")
    module = inspect.getmodule(agent)
    if module is not None and _importable(module.__name__, path):
        return module.__name__
    return os.path.abspath(path)


def _importable(module: str, path: str) -> bool:
    """Say whether the name leads to this file in another process, which knows the import path and nothing else."""
    *packages, name = module.split(".")
    folders: list[str] | None = None
    for package in packages:
        found = PathFinder.find_spec(package, folders)
        if found is None or found.submodule_search_locations is None:
            return False
        folders = list(found.submodule_search_locations)
    found = PathFinder.find_spec(name, folders)
    return found is not None and found.origin is not None and os.path.samefile(found.origin, path)


def _refuse_while_agents_are_loaded() -> None:
    """Raise when this is the import of an agent file, by the node or a worker process: each would start the next.

    Raises:
        RuntimeError: says what to change; the loader names the file.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code is import_source.__code__:
            raise RuntimeError('it starts a node when it is imported: put that under `if __name__ == "__main__":`')
        frame = frame.f_back
