"""The commands that change what is stored: cancel, replay and discard."""

from __future__ import annotations

from typing import Any

import click

from relaymesh.cli.call import Call, pass_call
from relaymesh.cli.option import WholeNumber, command, dead_letter_filters, given, task_argument
from relaymesh.errors import InputError

__all__ = ["UnknownModeError", "cancel", "discard", "replay", "replay_batch"]


class UnknownModeError(InputError):
    """``--mode`` is neither hard nor soft."""

    code = "unknown_mode"

    def __init__(self, mode: str) -> None:
        super().__init__(mode)
        self.mode = mode

    def __str__(self) -> str:
        return f"there is no cancel mode {self.mode!r}: use hard or soft; nothing was changed"


@command("cancel", example="relaymesh cancel tsk_0190a1b2-... --mode soft --reason 'wrong input'")
@task_argument
@click.option("--reason", default="cancelled by operator", help="Stored with the task.")
@click.option("--mode", default="hard", metavar="hard|soft", help="hard also stops steps that run; soft lets them end.")
@pass_call
def cancel(call: Call, task_id: str, reason: str, mode: str) -> int:
    """The exit status is 1 when the task was not cancelled: it is unknown, or has ended."""
    with call.client() as client:
        match mode.strip().lower():
            case "hard":
                result = client.cancel(task_id, reason=reason)
            case "soft":
                result = client.cancel_soft(task_id, reason=reason)
            case _:
                raise UnknownModeError(mode)
    call.show(result)
    return 0 if result.cancelled else 1


@command(
    "replay",
    example="""relaymesh replay tsk_0190a1b2-...
relaymesh replay tsk_0190a1b2-... --edit mended.json
relaymesh replay tsk_0190a1b2-... --from fetch""",
)
@task_argument
@click.option(
    "--edit", "edits", metavar="FILE|-", multiple=True, help="New input of the dead step, taken as it stands."
)
@click.option("--step", "steps", metavar="STEP", multiple=True, help="Which step --edit is for, when several are dead.")
@click.option("--from", "from_step", metavar="STEP", help="Run this step and all that depends on it again, too.")
@pass_call
def replay(call: Call, task_id: str, edits: tuple[str, ...], steps: tuple[str, ...], from_step: str | None) -> int:
    """Steps that succeeded are kept, unless they depend on the one that --from names. --edit and --step may be
    repeated, in the same order. The exit status is 1 when the task is not dead-lettered.
    """
    if len(steps) != len(edits) and (steps or len(edits) > 1):
        raise click.UsageError("give one --step for each --edit, in the same order")
    edit: str | dict[str, str] | None = None
    if edits:
        texts = [_input_of(path) for path in edits]
        edit = dict(zip(steps, texts, strict=True)) if steps else texts[0]
    with call.client() as client:
        outcome = client.replay(task_id, edit=edit, from_step=from_step)
    call.show(outcome)
    return 0 if outcome.replayed else 1


def _input_of(path: str) -> str:
    from relaymesh.cli.source import NotTextError, read_bytes
    from relaymesh.core.limit import PAYLOAD_BYTES_MAX

    data = read_bytes(path, bytes_max=PAYLOAD_BYTES_MAX + 4)
    if len(data) > PAYLOAD_BYTES_MAX:
        return data.decode("utf-8", "replace")  # only its length matters now
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotTextError("stdin" if path == "-" else path, error.start) from error


@command(
    "replay-batch",
    example="""relaymesh replay-batch --limit 1000
relaymesh replay-batch --agent fetch --error-class timeout --newer-than 2h""",
)
@click.option("--status", default="DEAD_LETTER", help="State of the tasks to take.")
@click.option("--limit", type=WholeNumber(min=1), default=100, help="At most this many tasks.")
@dead_letter_filters
@pass_call
def replay_batch(call: Call, /, status: str, limit: int, **filters: Any) -> int:
    """The exit status is 1 when any of them could not be replayed."""
    with call.client() as client:
        outcome = client.replay_batch(status.strip().upper(), limit, **given(filters))
    call.show(outcome)
    return 1 if outcome.failed else 0


@command("discard", example="relaymesh discard tsk_0190a1b2-... --reason 'the order was withdrawn'")
@task_argument
@click.option("--reason", required=True, help="Kept with the task, and in the audit log.")
@pass_call
def discard(call: Call, task_id: str, reason: str) -> int:
    """It is CANCELLED and stays readable, its waiting steps are cancelled with it. The exit status is 1 when the task
    is not dead-lettered.
    """
    with call.client() as client:
        outcome = client.discard(task_id, reason=reason)
    call.show(outcome)
    return 0 if outcome.discarded else 1
