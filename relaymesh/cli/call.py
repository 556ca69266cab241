"""What one invocation knows: where the data is, how to print, and how to reach a client or a node."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

import click

if TYPE_CHECKING:
    from relaymesh.admission import Gate
    from relaymesh.client import Client
    from relaymesh.node import NodeOptions, RunningNode
    from relaymesh.node_view import BenchmarkRunOutcome, WorkerOutcome
    from relaymesh.view import Explanation, View

__all__ = ["GLOBAL_OPTIONS", "Call", "Doors", "at_terminal", "pass_call"]

GLOBAL_OPTIONS = ("--root", "--namespace", "--output")
"""Those that stand before the command."""


class Doors:
    """The ways out of a command: to a client, and to a node. Each imports what it needs when it is called."""

    def client(self, root: str, *, namespace: str, agents: Sequence[str], gate: Gate = "set") -> Client:
        from relaymesh.client import Client

        return Client(root, namespace=namespace, agents=agents, gate=gate)

    def obstacle(self) -> str | None:
        """Return a sentence about what keeps nodes from starting, or None."""
        from relaymesh.cli.shadow import shadowed_by

        return shadowed_by()

    def start(self, options: NodeOptions) -> RunningNode:
        from relaymesh import node

        return node.start(options)

    def run_once(self, options: NodeOptions) -> WorkerOutcome:
        from relaymesh import node

        return node.run_once(options)

    def benchmark(
        self,
        options: NodeOptions,
        *,
        tasks: int,
        agent: str,
        priority: str,
        input_size: int,
        max_seconds: int,
        poll_batch: int,
        on_held: Callable[[Explanation], None],
    ) -> BenchmarkRunOutcome:
        from relaymesh import node

        return node.benchmark(
            options,
            tasks=tasks,
            agent=agent,
            priority=priority,
            input_size=input_size,
            max_seconds=max_seconds,
            poll_batch=poll_batch,
            on_held=on_held,
        )


@dataclass(frozen=True, slots=True)
class Call:
    """One invocation.

    root: absolute path of the ``--root`` folder (not yet scoped by the namespace).
    output: ``json`` or ``table`` when ``--output`` was given, else None: tables on a terminal, JSON in a pipe.
    """

    root: str
    namespace: str
    output: str | None = None
    doors: Doors = field(default_factory=Doors)

    def client(self, agents: Sequence[str] = (), *, gate: Gate = "set") -> Client:
        """gate: which bounds of the admission gate hold for what is submitted (relaymesh.client)."""
        return self.doors.client(self.root, namespace=self.namespace, agents=agents, gate=gate)

    @property
    def tables(self) -> bool:
        """Whether the answer is for a person."""
        return self.output == "table" or (self.output is None and at_terminal(sys.stdout))

    def looked(
        self,
        client: Client,
        action: str,
        resource: str,
        details: Mapping[str, object],
        *,
        result: str = "ok",
        task_id: str | None = None,
    ) -> None:
        """Record that somebody looked: the commands of which the audit log keeps that."""
        client.audit.record(action, actor="cli", resource=resource, result=result, details=details, task_id=task_id)

    def show(self, answer: View | Sequence[View] | Sequence[str], *, empty: str = "nothing found") -> None:
        """Print one answer: one JSON document, or a table; ``empty`` stands for a table without rows."""
        if self.tables:
            from relaymesh.cli import table

            table.show(answer, empty=empty)
        else:
            from relaymesh.cli import output

            output.document(answer)

    def stream(self, item: View) -> None:
        """Print one item of a stream: one line, flushed, so that a reader sees it at once."""
        if self.tables:
            from relaymesh.cli import table

            table.line(item)
        else:
            from relaymesh.cli import output

            output.line(item)

    def note_unknown_agent(self, client: Client, agent_id: str | None) -> None:
        """Tell a person that what was set is for an agent that nobody has, which may be a misspelling."""
        if agent_id is None or not self.notes:
            return
        known = client.agents()
        if agent_id not in known:
            from relaymesh.core.nearest import did_you_mean, quoted

            near = did_you_mean(agent_id, known) or ";"
            click.echo(f"no agent {quoted(agent_id)} is known here now{near} it is stored all the same", err=True)

    @property
    def notes(self) -> bool:
        """Whether a person is there to be told what is not part of the answer."""
        return self.tables and at_terminal(sys.stderr)

    def note(self, sentence: str) -> None:
        """Tell a person something that is not part of the answer; a pipe's reader does not see it."""
        if self.notes:
            click.echo(sentence, err=True)


def at_terminal(stream: IO[str] | None) -> bool:
    """Whether a person reads it. A stream that was closed before we started is None."""
    return stream is not None and stream.isatty()


pass_call = click.make_pass_decorator(Call)
