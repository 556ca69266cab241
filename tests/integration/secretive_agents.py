"""Agents that say more of their input than they should."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from relaymesh import Context, agent


@agent(max_attempts=1)
def fails(request: str, ctx: Context) -> str:
    """Quote the input in the log and in the error."""
    ctx.log.warning("was given %s", request)
    raise ValueError(f"cannot do {request}")


@agent
def tells(request: dict[str, Any], ctx: Context) -> str:
    """Quote the input in the progress, until the file ``stop`` is there."""
    while not Path(request["stop"]).exists():
        ctx.heartbeat(f"half of {request['text']}")
        time.sleep(0.05)
    return str(request["text"])
