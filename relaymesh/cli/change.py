"""The commands that change what is stored: cancel and replay."""

from __future__ import annotations

import click

from relaymesh.cli.call import Call, pass_call
from relaymesh.cli.option import WholeNumber, command, task_argument
from relaymesh.errors import InputError

__all__ = ["UnknownModeError", "cancel", "replay", "replay_batch"]


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


@command("replay", example="relaymesh replay tsk_0190a1b2-...")
@task_argument
@pass_call
def replay(call: Call, task_id: str) -> int:
    """The exit status is 1 when the task is not dead-lettered."""
    with call.client() as client:
        outcome = client.replay(task_id)
    call.show(outcome)
    return 0 if outcome.replayed else 1


@command("replay-batch", example="relaymesh replay-batch --limit 1000")
@click.option("--status", default="DEAD_LETTER", help="State of the tasks to take.")
@click.option("--limit", type=WholeNumber(min=1), default=100, help="At most this many tasks.")
@pass_call
def replay_batch(call: Call, status: str, limit: int) -> int:
    """The exit status is 1 when any of them could not be replayed."""
    with call.client() as client:
        outcome = client.replay_batch(status.strip().upper(), limit)
    call.show(outcome)
    return 1 if outcome.failed else 0
