"""Agents that spend, and write down each spending in a file of their own before they report it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from relaymesh import Context, agent

LEDGER = "RELAYMESH_TEST_LEDGER"


def note(ctx: Context, tokens: int) -> None:
    """One short line in one write: no two processes mix theirs."""
    line = f"{ctx.step_id} {ctx.fencing_token} {tokens}\n".encode()
    fd = os.open(os.environ[LEDGER], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, line)
    os.close(fd)


@agent(timeout_ms=600_000)
def spends(tokens: str, ctx: Context) -> str:
    """Spend so many, at once."""
    note(ctx, int(tokens))
    ctx.spend(tokens=int(tokens))
    return tokens


@agent(timeout_ms=600_000, grace_ms=200)
def drips(tokens: str, ctx: Context) -> str:
    """Spend one every 20 ms, so many in all."""
    for _ in range(int(tokens)):
        note(ctx, 1)
        ctx.spend(tokens=1)
        ctx.cancelled.wait(0.02)
    return tokens


@agent(timeout_ms=600_000, grace_ms=200, max_attempts=1)
def breeds(text: str, ctx: Context) -> str:
    """Start a child and a grandchild that never end, and wait for them."""
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])  # {text}"
    subprocess.run([sys.executable, "-c", child])
    return "never"


@agent(timeout_ms=600_000, grace_ms=200)
def lingers(tokens: str, ctx: Context) -> str:
    """Spend so many, then hang where no signal reaches."""
    note(ctx, int(tokens))
    ctx.spend(tokens=int(tokens))
    while True:
        time.sleep(0.01)
