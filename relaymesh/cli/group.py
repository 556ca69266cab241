"""The command ``relaymesh`` itself: global options, and finding a command by its name without loading the others."""

from __future__ import annotations

import os
from importlib import import_module
from inspect import cleandoc
from typing import NamedTuple

import click

from relaymesh import __version__
from relaymesh.cli.call import Call, Doors

__all__ = ["COMMANDS", "Entry", "relaymesh"]


class Entry(NamedTuple):
    """Where a command lives and what it does, in one sentence. The function is named like the command."""

    section: str
    module: str
    summary: str


COMMANDS: dict[str, Entry] = {
    "demo": Entry("Start here", "demo", "Run a small workflow over real files and show it live."),
    "init": Entry("Start here", "operate", "Create the data root; other commands do so too when it is missing."),
    "agents": Entry("Start here", "look", "List the agents that tasks can be submitted to."),
    "submit": Entry("Hand in work", "submit", "Store one task, or a batch of them, and print its id."),
    "submit-workflow": Entry("Hand in work", "submit", "Store a workflow of steps that depend on each other."),
    "schedule": Entry("Hand in work", "schedule", "Submit again and again: cron, intervals, one-offs."),
    "up": Entry("Run work", "run", "Run a node until it is stopped."),
    "worker": Entry("Run work", "run", "Poll the queue once, or run steps until it is stopped."),
    "status": Entry("Look", "status", "Show how the root stands on one screen: members, queue, steps, alerts."),
    "top": Entry("Look", "status", "Show how the root stands, live, and act on it by keys."),
    "task": Entry("Look", "look", "Show one task with its result."),
    "tasks": Entry("Look", "look", "List tasks, the most recently changed first."),
    "workflow": Entry("Look", "look", "Show one task with its steps."),
    "logs": Entry("Look", "look", "Print what the attempts of a task logged."),
    "explain": Entry("Look", "look", "Say why the steps of a task wait and what would unblock them."),
    "stats": Entry("Look", "look", "Count tasks, steps and messages by state."),
    "health": Entry("Look", "look", "Check the database, the folders and the free disk space."),
    "members": Entry("Look", "member", "List the nodes of the root and whether they are alive."),
    "mesh-summary": Entry("Look", "member", "Count nodes by status, and running steps by the status of their owner."),
    "lease-conflicts": Entry("Look", "look", "List results and heartbeats that came from a former owner."),
    "ownership-events": Entry("Look", "look", "List what happened to the ownership of steps, newest first."),
    "lease-report": Entry("Look", "look", "Write the lease conflicts of the last hours to a JSON file."),
    "metrics": Entry("Look", "observe", "Print the metrics of the root and its nodes as Prometheus text."),
    "serve-metrics": Entry("Look", "observe", "Serve the metrics over HTTP until it is stopped."),
    "slo-evaluate": Entry(
        "Look", "observe", "Compare the service levels with their targets and write the answer down."
    ),
    "alerts": Entry("Look", "observe", "Show the alerts that running nodes watch for, and their last changes."),
    "cluster-state": Entry("Look", "observe", "Show the cluster epoch, the fencing counter of the root."),
    "dead-list": Entry("Look", "look", "List dead-lettered steps, the latest death first."),
    "cancel": Entry("Change", "change", "Cancel a task."),
    "replay": Entry("Change", "change", "Run the dead-lettered steps of a task again."),
    "replay-batch": Entry("Change", "change", "Replay the most recently changed tasks of one status."),
    "discard": Entry("Change", "change", "Take a task off the dead letters for good."),
    "cluster-epoch-bump": Entry("Operate", "observe", "Raise the cluster epoch, which fences everything in flight."),
    "task-export": Entry("Operate", "operate", "Write everything about one task to a JSON file."),
    "dead-export": Entry("Operate", "operate", "Write the list of dead letters to a JSON file."),
    "mesh-recover": Entry("Operate", "member", "Take back the steps of dead nodes now."),
    "mesh-prune": Entry("Operate", "member", "Remove nodes from the list that have been gone for long."),
    "maintenance": Entry("Operate", "operate", "Run one maintenance tick: reclaim, retry, repair."),
    "gossip": Entry("Operate", "gossip", "Tell some seeds that a node is here, listen for a moment, and end."),
    "gossip-sync": Entry("Operate", "gossip", "Do several gossip ticks and print their sums."),
    "gossip-keys": Entry("Operate", "gossip", "Show and change the keys that gossip packets are signed with."),
    "queue": Entry("Operate", "limits", "Pause and resume the queue, drain a node, or show what is paused."),
    "limits": Entry("Operate", "limits", "Show, set or remove limits on what runs at a time and how often."),
    "budgets": Entry("Operate", "budgets", "Show, set or remove budgets: time, tokens, money."),
    "settings": Entry("Operate", "settings", "Show the settings of the root, change one, or print their schema."),
    "reload-settings": Entry("Operate", "settings", "Read settings and retry policies again and say what changed."),
    "settings-history": Entry("Operate", "settings", "List the loads of settings and what each changed."),
    "dr-automation": Entry("Operate", "snapshot", "Take a snapshot, copy it to a second place, and try to restore it."),
    "purge": Entry("Operate", "storage", "Remove finished work, dead letters and idempotency keys that are old."),
    "compact": Entry("Operate", "storage", "Give space that is not used any more back to the file system."),
    "snapshot-export": Entry("Operate", "snapshot", "Copy the data root to a folder while nodes work on it."),
    "snapshot-import": Entry("Operate", "snapshot", "Put a snapshot in the place of the data root."),
    "snapshot": Entry("Operate", "snapshot", "Verify a snapshot, or compare two of them."),
    "payload-key-status": Entry("Operate", "storage", "Show which keys the root encrypts its texts with."),
    "payload-key-rotate": Entry("Operate", "storage", "Encrypt with a new key from now on."),
    "payload-key-remove": Entry("Operate", "storage", "Remove an old key that no text needs any more."),
    "schema-migrations": Entry("Operate", "storage", "List the schema migrations of the database."),
    "schema-rollback": Entry("Operate", "storage", "Take the newest schema migration back."),
    "benchmark-run": Entry("Operate", "run", "Submit tasks, run them, and report the throughput."),
    "completion": Entry("Operate", "completion", "Print the script that completes commands in your shell."),
    "audit-tail": Entry("Audit", "audit", "Print the newest records of the audit log."),
    "audit-query": Entry("Audit", "audit", "Print the audit records of a task, an action or a span of time."),
    "audit-verify": Entry("Audit", "audit", "Check that no record of the audit log was changed or removed."),
    "audit-siem-export": Entry("Audit", "audit", "Write audit records to a file that a SIEM can read."),
}


class Lazy(click.Group):
    """A group that imports a command's module when that command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return _from_other_package(cmd_name)
        module = import_module(f"relaymesh.cli.{entry.module}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        details = cleandoc(command.help or "")
        if not details.startswith(entry.summary):  # a docstring only adds to the summary
            command.help = f"{entry.summary}\n\n{details}".rstrip()
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and self.get_command(ctx, name) is None:
            from relaymesh.core.nearest import did_you_mean, quoted

            if name == "help":
                raise click.UsageError('No such command "help"', ctx)  # nor one like it: its help page is named anyway
            raise click.UsageError(f"No such command {quoted(name)}{did_you_mean(name, COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, entry in COMMANDS.items():
            sections.setdefault(entry.section, []).append((name, entry.summary))
        for section, rows in sections.items():
            with formatter.section(section):
                formatter.write_dl(rows)


def _from_other_package(name: str) -> click.Command | None:
    """A command that another package registers (entry point group ``relaymesh.commands``)."""
    # Reading the metadata of everything that is installed takes several interpreter starts: only for unknown names.
    from importlib.metadata import entry_points

    for found in entry_points(group="relaymesh.commands", name=name):
        command = found.load()
        if isinstance(command, click.Command):
            return command
    return None


@click.group(
    cls=Lazy,
    invoke_without_command=True,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110},
    # The commands of other packages are looked up when they are called, so that this page need not: one is named.
    epilog="`relaymesh COMMAND --help` shows the options of a command and an example. `relaymesh chaos` tries a mesh"
    " under faults, in virtual time.",
)
@click.option("--root", default="data", metavar="DIR", help="Data root, relative to the current directory.")
@click.option("--namespace", default="default", metavar="NAME", help="Tenant whose queue and data are used.")
@click.option(
    "--output",
    type=click.Choice(["json", "table"], case_sensitive=False),
    help="How answers are printed; by default tables on a terminal, JSON in a pipe.",
)
@click.version_option(__version__, "-V", "--version", prog_name="relaymesh", message="%(prog)s %(version)s")
@click.pass_context
def relaymesh(ctx: click.Context, root: str, namespace: str, output: str | None) -> None:
    """Run workflows of agents to the end, whatever crashes on the way."""
    if not root.strip():
        # Taken for the current directory, a variable that is not set would strew files there.
        raise click.BadParameter("it is empty: name a folder", ctx, param_hint="'--root'")
    doors = ctx.obj if isinstance(ctx.obj, Doors) else Doors()
    ctx.obj = Call(os.path.abspath(root), namespace, output, doors)
    if ctx.invoked_subcommand is None:
        click.echo("\n".join(COMMANDS))
