"""``submit`` and ``submit-workflow``: hand in work, and wait for it if asked to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from relaymesh.cli.call import Call, pass_call
from relaymesh.cli.option import DURATION, INSTANT, F, Flag, agents_option, command, split_budget, split_labels

if TYPE_CHECKING:
    from relaymesh.client import Client
    from relaymesh.view import SubmitOutcome

__all__ = ["submit", "submit_workflow"]

_WAITING = ("wait", "follow", "timeout_ms")


def _common(function: F) -> F:
    """The options that both commands have, in the order of the help page."""
    options = [
        click.option(
            "--idempotency-key",
            metavar="KEY",
            help="A second submit with it returns the first task.  [default: derived from the content]",
        ),
        click.option(
            "--delay",
            "delay_ms",
            type=DURATION,
            help="Start no earlier than this long from now, such as 10s, 5m or 2h.",
        ),
        click.option(
            "--at",
            "at_ms",
            type=INSTANT,
            help="Start no earlier than this instant, such as 2030-01-31T08:00:00Z.",
        ),
        click.option("--expires-in", "expires_in_ms", type=DURATION, help="Give up when it has not started by then."),
        click.option(
            "--label",
            "labels",
            metavar="KEY=VALUE",
            multiple=True,
            callback=split_labels,
            help="Label for finding the task again; comma-separated, may be repeated.",
        ),
        click.option(
            "--unique",
            metavar="waiting|running|period=MS",
            help="As long as another with the same unique key waits, has not ended, or is younger, it is a duplicate.",
        ),
        click.option(
            "--on-duplicate",
            metavar="return|refuse|replace|debounce",
            help="Print the other, fail, take the place of one that waits, or do so and wait --delay again.",
        ),
        click.option(
            "--unique-key", metavar="KEY", help="What makes two the same.  [default: derived from the content]"
        ),
        click.option(
            "--budget",
            metavar="KIND=AMOUNT",
            multiple=True,
            callback=split_budget,
            help="What it may spend in all, such as units:tokens=50000 or wall_seconds=600; may be repeated.",
        ),
        click.option("--wait", cls=Flag, default=False, help="Wait for the end and print the task; exit 1 on failure."),
        click.option("--follow", cls=Flag, default=False, help="Like --wait, and print what happens as it happens."),
        click.option("--timeout", "timeout_ms", type=DURATION, help="Stop waiting after this long; the task goes on."),
        agents_option,
    ]
    for option in reversed(options):
        function = option(function)
    return function


@command(
    "submit",
    example="""relaymesh submit --agent echo --input hello --wait
relaymesh submit --agent echo --input @letter.txt --delay 10s --label to=Ada
relaymesh submit --batch tasks.ndjson""",
)
@click.option("--agent", help="Id of the agent that gets the task (`relaymesh agents` lists them).")
@click.option(
    "--input",
    "text",
    metavar="TEXT|@FILE|-",
    help="The payload: text, @ and a file, or - for stdin; write @@ for text that starts with @.",
)
@click.option("--priority", default="normal", metavar="high|normal|low", help="Lane of the queue.")
@click.option(
    "--concurrency-key",
    metavar="KEY|/POINTER",
    help="Steps with the same key share its limits, by default one at a time; /a/b takes the key from the JSON input.",
)
@click.option("--batch", metavar="FILE|-", help="Submit one task per line of an NDJSON file.")
@_common
@click.pass_context
@pass_call
def submit(
    call: Call,
    ctx: click.Context,
    agent: str | None,
    text: str | None,
    priority: str,
    concurrency_key: str | None,
    batch: str | None,
    idempotency_key: str | None,
    delay_ms: int | None,
    at_ms: int | None,
    expires_in_ms: int | None,
    labels: dict[str, str],
    unique: str | None,
    on_duplicate: str | None,
    unique_key: str | None,
    budget: dict[str, str],
    wait: bool,
    follow: bool,
    timeout_ms: int | None,
    agent_sources: tuple[str, ...],
) -> int:
    """--agent and --input are required, unless --batch is given. A line of a batch is a JSON object with the members
    agent and input, and optionally priority, idempotencyKey, delayMs, atMs, expiresInMs, labels, traceparent,
    concurrencyKey, unique, onDuplicate, uniqueKey and budget. One line is printed for each, with its number and
    accepted, duplicate or rejected, then one with the sums; the exit status is 1 if any was rejected. Running the same
    batch again is safe: what was stored comes back as duplicate.
    """
    if batch is not None:
        _refuse_beside_batch(ctx)
        from relaymesh.cli.batch import submit_batch

        return submit_batch(call, batch, agent_sources)
    if agent is None or text is None:
        raise click.UsageError(f"Missing option '{'--agent' if agent is None else '--input'}'", ctx)
    _check_times(ctx, delay_ms, at_ms, wait, follow, timeout_ms)
    from relaymesh.cli.source import text_of
    from relaymesh.core.limit import PAYLOAD_BYTES_MAX

    payload = text_of(text, bytes_max=PAYLOAD_BYTES_MAX)
    with call.client(agent_sources, gate="always") as client:
        outcome = client.submit(
            agent,
            payload,
            priority=priority,
            idempotency_key=idempotency_key,
            delay_ms=delay_ms or 0,
            at_ms=at_ms,
            expires_in_ms=expires_in_ms,
            labels=labels,
            concurrency_key=concurrency_key,
            unique=unique,
            on_duplicate=on_duplicate,
            unique_key=unique_key,
            budget=budget,
        )
        return _finish(call, client, outcome, wait, follow, timeout_ms)


@command("submit-workflow", example="relaymesh submit-workflow --file flow.json --follow")
@click.option("--file", "path", required=True, metavar="FILE|-", help="Workflow as JSON; - reads stdin.")
@click.option("--priority", metavar="high|normal|low", help="Lane of the steps that name none.")
@_common
@click.pass_context
@pass_call
def submit_workflow(
    call: Call,
    ctx: click.Context,
    path: str,
    priority: str | None,
    idempotency_key: str | None,
    delay_ms: int | None,
    at_ms: int | None,
    expires_in_ms: int | None,
    labels: dict[str, str],
    unique: str | None,
    on_duplicate: str | None,
    unique_key: str | None,
    budget: dict[str, str],
    wait: bool,
    follow: bool,
    timeout_ms: int | None,
    agent_sources: tuple[str, ...],
) -> int:
    """The file is {"steps": [{"id": "s1", "agent": "echo", "input": "first"}, {"id": "s2", "agent": "echo", "input":
    "second", "dependsOn": ["s1"]}]}. Nothing is stored when anything in it is wrong; the error names the step.
    """
    _check_times(ctx, delay_ms, at_ms, wait, follow, timeout_ms)
    from relaymesh.cli.source import read_bytes
    from relaymesh.core.limit import WORKFLOW_BYTES_MAX

    workflow = read_bytes(path, bytes_max=WORKFLOW_BYTES_MAX + 1)  # one more byte, and the size is seen to be wrong
    with call.client(agent_sources, gate="always") as client:
        outcome = client.submit_workflow(
            workflow,
            idempotency_key=idempotency_key,
            labels=labels,
            priority=priority,
            delay_ms=delay_ms or 0,
            at_ms=at_ms,
            expires_in_ms=expires_in_ms,
            unique=unique,
            on_duplicate=on_duplicate,
            unique_key=unique_key,
            budget=budget,
        )
        return _finish(call, client, outcome, wait, follow, timeout_ms)


def _check_times(
    ctx: click.Context, delay_ms: int | None, at_ms: int | None, wait: bool, follow: bool, timeout_ms: int | None
) -> None:
    if delay_ms is not None and at_ms is not None:
        raise click.UsageError("--delay and --at say the same thing: give one of them", ctx)
    if timeout_ms is not None and not (wait or follow):
        raise click.UsageError("--timeout goes with --wait or --follow", ctx)


def _refuse_beside_batch(ctx: click.Context) -> None:
    for param in ctx.command.params:
        given = ctx.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE
        if given and param.name not in ("batch", "agent_sources"):
            why = "nothing is waited for" if param.name in _WAITING else "put it on the lines of the batch"
            raise click.UsageError(f"{param.opts[0]} does not go with --batch: {why}", ctx)


def _finish(
    call: Call, client: Client, outcome: SubmitOutcome, wait: bool, follow: bool, timeout_ms: int | None
) -> int:
    call.show(outcome)
    if not wait and not follow:
        return 0
    call.note("Waiting for a node to run it (`relaymesh up`); Ctrl-C ends the waiting, not the task.")
    if follow:
        for event in client.events(outcome.task_id, timeout_ms=timeout_ms):
            call.stream(event)
        task = client.task(outcome.task_id)
    else:
        task = client.wait(outcome.task_id, timeout_ms=timeout_ms)
    call.show(task)
    return 0 if task.status == "SUCCESS" else 1
