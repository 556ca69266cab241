"""A node inside a program.

    with Node("data", agents=[count_words]) as node:
        task = node.client.submit("count_words", "some text")
        print(node.client.wait(task.task_id).result_payload)

Agents that run in worker processes are found again there by the file or module that defines them, so a script that
starts a node needs ``if __name__ == "__main__":`` around it, as with multiprocessing.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from relaymesh.client import Client
from relaymesh.errors import AgentLoadError
from relaymesh.node import Builder, NodeOptions, RunningNode, start
from relaymesh.wire.store import NewTask, SubmitTasks

if TYPE_CHECKING:
    from relaymesh.wire.store import StoreAnswer

__all__ = ["Node"]

AgentSource = str | Callable[..., Any]


class Node:
    """A context manager that runs a node for as long as its body runs.

    root: the data root. agents: functions with ``@agent``, or modules and files as ``--agents`` takes them.
    concurrency: worker processes; None is the number of cores, at least 4.
    grace_ms: how long running steps may take to end when the body is left.
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
        builder: Builder | None = None,
    ) -> None:
        self._options = NodeOptions(
            root=Path(root),
            namespace=namespace,
            node_id=node_id,
            concurrency=concurrency,
            threads=threads,
            agents=tuple(dict.fromkeys(_source_of(agent) for agent in agents)),
            grace_ms=grace_ms,
        )
        self._builder = builder
        self._running: RunningNode | None = None
        self.client = Client(root, namespace=namespace, agents=self._options.agents, submitter=self._submit)

    def __enter__(self) -> Node:
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
        """The node; only inside the ``with``."""
        assert self._running is not None, "the node runs only inside its with block"
        return self._running

    def _submit(self, tasks: Sequence[NewTask]) -> list[tuple[str, bool]]:
        answer: StoreAnswer = self.running.submit(SubmitTasks(tuple(tasks)))
        return list(answer.results)


def _source_of(agent: AgentSource) -> str:
    """Return where a worker process finds the agent: its module, or its file when it is the program itself."""
    if isinstance(agent, str):
        return agent
    module = inspect.getmodule(agent)
    if module is not None and module.__name__ != "__main__" and module.__name__ in sys.modules:
        return module.__name__
    path = inspect.getsourcefile(agent)
    if path is None:
        raise AgentLoadError(repr(agent), "it was defined at a prompt: put it into a file")
    return str(Path(path).absolute())
