"""The commands that run agents: ``up``, ``worker`` and ``benchmark-run``."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from relaymesh.cli.call import Call, pass_call
from relaymesh.cli.option import Flag, WholeNumber, agents_option, command, node_id_option, split_list

if TYPE_CHECKING:
    from types import FrameType

    from relaymesh.log import Log
    from relaymesh.node import NodeOptions, RunningNode
    from relaymesh.view import Explanation

__all__ = ["benchmark_run", "up", "worker"]

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_NODE_ID: Final = "node-local"
_BY_SIGNAL: Final = 128
"""A shell's exit status of a process that a signal ended is this and the number of the signal."""

concurrency_option = click.option(
    "--concurrency",
    type=WholeNumber(min=1),
    help="Worker processes.  [default: number of processors, at least 4]",
)
grace_option = click.option(
    "--graceful-timeout-ms",
    "grace_ms",
    type=WholeNumber(min=0),
    default=0,
    help="How long running steps may take to end at a stop; 0 means 15000, on Windows 5000.",
)
_LOG_OPTIONS = (
    click.option(
        "--log-format",
        type=click.Choice(["text", "json"], case_sensitive=False),
        default="text",
        envvar="RELAYMESH_LOG_FORMAT",
        help="Form of the log lines; also by RELAYMESH_LOG_FORMAT.",
    ),
    click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
        default="warning",
        envvar="RELAYMESH_LOG_LEVEL",
        help="The least that is logged: info tells of attempts that failed, debug of all; also by RELAYMESH_LOG_LEVEL.",
    ),
    click.option(
        "--log-file",
        metavar="FILE",
        envvar="RELAYMESH_LOG_FILE",
        help="Log to this file, rotated at 10 MiB with five old ones kept; also by RELAYMESH_LOG_FILE."
        "  [default: stderr]",
    ),
)


otlp_option = click.option(
    "--otlp-endpoint",
    metavar="URL",
    envvar="RELAYMESH_OTLP_ENDPOINT",
    help="Send traces to the OpenTelemetry collector there, by OTLP over HTTP; also by RELAYMESH_OTLP_ENDPOINT.",
)


def log_options(function: F) -> F:
    """``--log-format``, ``--log-level``, ``--log-file``."""
    for option in reversed(_LOG_OPTIONS):
        function = option(function)
    return function


worker_id_option = click.option(
    "--worker-id",
    default="worker-local",
    help="Name in the audit log; the node id when --node-id is blank.",
)
free_node_id_option = click.option(
    "--node-id",
    default=DEFAULT_NODE_ID,
    help="Id of the node, the owner of the steps that it runs. While a process of this machine has the default, it is"
    " node-local-2, and so on; an id that was asked for is refused then.",
)


def _split_seeds(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    """Callback of ``--seeds``: a node that waited for a seed which cannot be would wait for ever."""
    seeds = split_list(ctx, param, values)
    if seeds:
        from relaymesh.core.mesh.seed import parse_seed

        for seed in seeds:
            try:
                parse_seed(seed)
            except ValueError as error:
                raise click.BadParameter(str(error), ctx, param) from error
    return seeds


def _check_advertise(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Callback of ``--advertise``: what nobody can be reached at would keep the node out of every mesh."""
    if value.strip():
        from relaymesh.net.gossip_socket import parse_advertise

        try:
            parse_advertise(value)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, param) from error
    return value.strip()


_GOSSIP_OPTIONS = (
    click.option(
        "--gossip",
        cls=Flag,
        default=True,
        help="Find other nodes, and notice when they are gone; --no-gossip for neither.",
    ),
    click.option(
        "--gossip-bind",
        metavar="HOST",
        default="127.0.0.1",
        help="Address for gossip; one that other machines reach needs the setting gossipSharedSecret.",
    ),
    click.option(
        "--gossip-port",
        type=WholeNumber(min=0, max=65_535),
        default=17_888,
        help="UDP port for gossip; when it is taken, the next 31 are tried. 0 takes a free one.",
    ),
    click.option(
        "--advertise",
        metavar="HOST[:PORT]",
        default="",
        callback=_check_advertise,
        help="Where other nodes reach this one, behind a NAT for instance.  [default: where it is bound]",
    ),
    click.option(
        "--seeds",
        metavar="HOST:PORT,...",
        multiple=True,
        callback=_split_seeds,
        help="Nodes to look for first; nodes of the same root find each other without.",
    ),
    click.option("--seeds-file", metavar="FILE", help="A file of seeds, read again when it changes."),
    click.option(
        "--zeroconf",
        cls=Flag,
        default=True,
        help="Look for nodes on the local network, and be found there, where --gossip-bind lets others in.",
    ),
)


def gossip_options(function: F) -> F:
    """``--gossip``, ``--gossip-bind`` and the other options by which a node finds others."""
    for option in reversed(_GOSSIP_OPTIONS):
        function = option(function)
    return function


@command("up", example="relaymesh --root data up --agents my_agents.py --concurrency 8")
@free_node_id_option
@worker_id_option
@concurrency_option
@grace_option
@agents_option
@gossip_options
@log_options
@otlp_option
@pass_call
def up(call: Call, /, log_format: str, log_level: str, log_file: str | None, **told: Any) -> int:
    """Ctrl-C or SIGTERM stops it: it takes no more steps, lets running ones end within the grace time, gives the others
    back, and ends with 0. A second signal stops it at once, and the next node takes its steps back: nothing is lost
    either way. The exit status is then that of the second signal: 130 after Ctrl-C, 143 after SIGTERM.
    """
    options = _node_options(call, **told)
    with _start_log(log_format, log_level, log_file):
        _tell_misspelled()
        running = call.doors.start(options)
        click.echo(f"node {running.node_id} is up on {call.root}; Ctrl-C stops it", err=True)
        return _until_ended(running)


def _tell_misspelled() -> None:
    import logging

    from relaymesh.settings.stray import misspelled

    for sentence in misspelled(os.environ):
        logging.getLogger("relaymesh.settings").warning("%s", sentence)


def _start_log(log_format: str, log_level: str, log_file: str | None) -> Log:
    from relaymesh.log import start_log

    return start_log("json" if log_format.lower() == "json" else "text", log_level, log_file)


@command("worker", example="relaymesh worker --once")
@click.option("--once", cls=Flag, default=False, help="One poll, then exit.")
@worker_id_option
@free_node_id_option
@click.option(
    "--maintenance",
    cls=Flag,
    default=True,
    help="Take back steps of dead and silent owners, expire tasks, and print a MaintenanceOutcome before each poll or"
    " cycle. Without it heartbeats, due retries and the worker's own takeover at its start go on.",
)
@click.option(
    "--interval-ms",
    type=WholeNumber(min=1, clamp=True),
    default=1000,
    help="Length of a cycle: how often it says that nothing ended, and what maintenance did. New work is noticed at"
    " once.",
)
@click.option(
    "--settings-reload-ms",
    type=WholeNumber(min=1000, clamp=True),
    default=10_000,
    help="How often the settings and retry policies are looked at; a SettingsReloadOutcome is printed when settings"
    " changed.",
)
@concurrency_option
@grace_option
@agents_option
@gossip_options
@log_options
@otlp_option
@pass_call
def worker(
    call: Call,
    /,
    once: bool,
    maintenance: bool,
    interval_ms: int,
    settings_reload_ms: int,
    log_format: str,
    log_level: str,
    log_file: str | None,
    **told: Any,
) -> int:
    """With --once a maintenance tick and one poll, each printed as a document. Without, it runs until it is stopped,
    as `up` does. A second signal stops it at once: the exit status is then 130 after Ctrl-C, 143 after SIGTERM. Each
    cycle prints a SettingsReloadOutcome if settings changed, a MaintenanceOutcome, then a WorkerOutcome for each
    attempt that ended, or one with "processed": false; in a pipe one document a line, on a terminal only what
    happened. A reader that is too slow does not slow the node: what is left out is counted on stderr. The node ends
    when its reader has gone.
    """
    from dataclasses import replace

    options = replace(
        _node_options(call, **told, joins=not once), maintenance=maintenance, settings_reload_ms=settings_reload_ms
    )
    with _start_log(log_format, log_level, log_file):
        _tell_misspelled()
        if not once:
            from relaymesh.cli.printer import Printer

            printer = Printer(call, interval_s=interval_ms / 1000, maintenance=maintenance)
            running = call.doors.start(replace(options, listener=printer))
            call.note(f"worker {running.node_id} runs on {call.root}; Ctrl-C stops it")
            printer.begin(running)
            status = _until_ended(running)
            printer.finish(status)
            return status
        if maintenance:
            with call.client(options.agents) as client:
                call.show(client.maintenance(options.node_id or DEFAULT_NODE_ID))
        call.show(call.doors.run_once(options))
    return 0


@command("benchmark-run", example="relaymesh --root bench benchmark-run --tasks 10000")
@click.option("--tasks", type=WholeNumber(min=1, clamp=True), default=1000, help="Tasks to submit.")
@click.option("--agent", default="echo", help="Agent that gets them.")
@click.option("--priority", default="normal", metavar="high|normal|low", help="Lane of the queue.")
@click.option("--input-size", type=WholeNumber(min=1, clamp=True), default=64, help="Filler bytes of each payload.")
@click.option("--worker-id", default="bench-worker", help="Who the audit log says ran the steps.")
@node_id_option("bench-node")
@click.option("--max-seconds", type=WholeNumber(min=5, clamp=True), default=300, help="Time limit of the run phase.")
@click.option("--poll-batch", type=WholeNumber(min=1, clamp=True), default=64, help="Polls between two checks.")
@click.option("--report-out", metavar="FILE", help="Also write the result to this file.")
@agents_option
@pass_call
def benchmark_run(
    call: Call,
    tasks: int,
    agent: str,
    priority: str,
    input_size: int,
    worker_id: str,
    node_id: str,
    max_seconds: int,
    poll_batch: int,
    report_out: str | None,
    agent_sources: tuple[str, ...],
) -> int:
    """The exit status is 1 when it ran out of time; tasks that have not ended by then stay in the queue. When nothing
    moves, by a limit of 0 or a pause for instance, stderr says what keeps it, and the run goes on to its time limit.
    """
    from relaymesh.node import NodeOptions
    from relaymesh.store.output_place import root_of_own_file

    if report_out is not None:  # before the run, which may take minutes
        report_file = Path(report_out).absolute()
        if not report_file.parent.is_dir():
            raise click.BadParameter(f"there is no folder {report_file.parent}", param_hint="'--report-out'")
        if (owner := root_of_own_file(report_file)) is not None:
            cause = f"{report_file} is a place of the data root {owner} itself: choose another"
            raise click.BadParameter(cause, param_hint="'--report-out'")
    options = NodeOptions(
        root=Path(call.root),
        namespace=call.namespace,
        node_id=node_id,
        worker_id=worker_id,
        agents=agent_sources,
    )
    outcome = call.doors.benchmark(
        options,
        tasks=tasks,
        agent=agent,
        priority=priority,
        input_size=input_size,
        max_seconds=max_seconds,
        poll_batch=poll_batch,
        on_held=lambda why: _tell_held(call, why, max_seconds),
    )
    call.show(outcome)
    if report_out is not None:
        import msgspec

        report = msgspec.json.format(msgspec.json.encode(outcome), indent=2)
        with open(report_out, "wb") as file:
            file.write(report + b"\n")
    return 1 if outcome.timed_out else 0


def _tell_held(call: Call, why: Explanation, max_seconds: int) -> None:
    """Say what keeps the benchmark; in a pipe too, where minutes of silence look like a command that hangs."""
    import shlex

    from relaymesh.cli.paste import command_line

    then = "it goes on when that is over"
    if why.command is not None:
        then = f"`{command_line(call.root, call.namespace, shlex.split(why.command)[1:])}` lets it go on"
    click.echo(f"nothing moves: {why.detail}; {then}, and the run ends {max_seconds} s after its start", err=True)


def _node_options(
    call: Call,
    *,
    node_id: str,
    worker_id: str,
    concurrency: int | None,
    grace_ms: int,
    agent_sources: tuple[str, ...],
    otlp_endpoint: str | None,
    gossip: bool,
    gossip_bind: str,
    gossip_port: int,
    advertise: str,
    seeds: tuple[str, ...],
    seeds_file: str | None,
    zeroconf: bool,
    joins: bool = True,
) -> NodeOptions:
    """Return how to run a node, as the options of ``up`` and ``worker`` say. joins: whether it may find others."""
    from relaymesh.node import GossipOptions, NodeOptions

    company = GossipOptions(
        bind=gossip_bind.strip() or "127.0.0.1",
        port=gossip_port,
        advertise=advertise,
        seeds=seeds,
        seeds_file=Path(os.path.abspath(seeds_file)) if seeds_file else None,
        zeroconf=zeroconf,
    )
    return NodeOptions(
        root=Path(call.root),
        namespace=call.namespace,
        node_id=_node_id(node_id, worker_id),
        worker_id=worker_id,
        concurrency=concurrency,
        agents=agent_sources,
        grace_ms=grace_ms or None,
        otlp_endpoint=otlp_endpoint or None,
        gossip=company if gossip and joins else None,
    )


def _node_id(node_id: str, worker_id: str) -> str | None:
    """Return the node id to ask for; one that is there but blank falls back to the worker id.

    None when nobody chose one: a second node then takes the next free one; a chosen one that is in use is refused.
    """
    source = click.get_current_context().get_parameter_source("node_id")
    return None if source is click.core.ParameterSource.DEFAULT else node_id.strip() or worker_id


def _until_ended(running: RunningNode) -> int:
    """Wait for the node to end; return its exit status. A signal drains it, a second ends it now, a third kills us.

    A node that the second one ended has the status that a shell gives to a process that the signal ended: what started
    it can tell that from a node that gave up by itself, which is to be started again.
    """
    orders: list[Callable[[int], object]] = [
        lambda _: running.drain(),
        lambda number: running.kill(_BY_SIGNAL + number),
    ]
    numbers = [signal.SIGINT, signal.SIGTERM]
    if sys.platform == "win32":
        numbers.append(signal.SIGBREAK)

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if not orders:  # one that came while the handler of the second was at work
            return
        order = orders.pop(0)
        if not orders:
            for each in numbers:
                signal.signal(each, signal.SIG_DFL)
        # A handler interrupts this thread anywhere, so it must not wait for a lock that this thread may hold.
        threading.Thread(target=order, args=(number,), daemon=True).start()

    for number in numbers:
        signal.signal(number, on_signal)
    # Waiting in slices: on Windows a signal does not interrupt a wait.
    silent = True
    while (status := running.wait(1.0)) is None:
        if silent and len(orders) == 1:
            silent = False
            click.echo(
                f"node {running.node_id} is stopping, and waits for the steps that run; once more ends it now, and they"
                " run again elsewhere",
                err=True,
            )
    return status
