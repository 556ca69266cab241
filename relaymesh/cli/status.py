"""``status`` and ``top``: how the root stands, on one screen; printed, or live."""

from __future__ import annotations

from typing import Any

import click

from relaymesh.cli.call import Call, pass_call
from relaymesh.cli.option import DURATION, Flag, command

__all__ = ["status", "top"]

_INTERVAL_MS = 2_000


class _Interval(click.ParamType[int]):
    """A duration within the bounds of the console."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from relaymesh.core.console import INTERVAL_MS_MAX, INTERVAL_MS_MIN

        interval_ms = DURATION.convert(value, param, ctx)
        if not INTERVAL_MS_MIN <= interval_ms <= INTERVAL_MS_MAX:
            self.fail(f"{value!r} is out of bounds: write 500ms to 60s", param, ctx)
        return interval_ms


def _json_option(function: Any) -> Any:
    return click.option("--json", cls=Flag, default=False, help="Print JSON, also on a terminal.")(function)


@command("status", example="relaymesh status\nrelaymesh status --json")
@_json_option
@click.option("--once", cls=Flag, default=True, help="Print one screen and end; with false it stays live, as top.")
@pass_call
def status(call: Call, json: bool, once: bool) -> int:
    """It reads the store, whether nodes run or not, and changes nothing. In a pipe it is JSON; `--output table` makes
    it text there too.
    """
    return _print(call, json) if once or json else _live(call, _INTERVAL_MS, read_only=False)


@command("top", example="relaymesh top\nrelaymesh top --interval 5s --read-only")
@click.option("--interval", type=_Interval(), default="2s", help="How often to look: 500ms to 60s.")
@click.option("--read-only", cls=Flag, default=False, help="Refuse the keys that change something.")
@click.option("--once", cls=Flag, default=False, help="Print one screen and end, as status.")
@_json_option
@pass_call
def top(call: Call, interval: int, read_only: bool, once: bool, json: bool) -> int:
    """`?` shows the keys. Without a terminal, or on one that cannot be drawn upon, one screen is printed."""
    return _print(call, json) if once or json else _live(call, interval, read_only=read_only)


def _live(call: Call, interval_ms: int, *, read_only: bool) -> int:
    if not call.tables:
        return _print(call, False)
    from relaymesh.console.screen import can_draw

    if not can_draw():
        call.note("This terminal cannot be drawn upon, so this is printed once.")
        return _print(call, False)
    from relaymesh.console.run import run

    return run(call.client, interval_ms=interval_ms, read_only=read_only)


def _print(call: Call, as_json: bool) -> int:
    with call.client() as client:
        from relaymesh.checks import with_checks

        found = with_checks(client.status(), client.checks())
    if call.tables and not as_json:
        from relaymesh.console.once import show

        show(found)
    else:
        from relaymesh.cli import output

        output.document(found)
    return 0
