"""Agents that write down each run before they do anything else: step id, fencing token, process id."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

from relaymesh import Context, agent


def _witness(ctx: Context) -> None:
    # One write of one short line to a file opened for appending: lines of many processes do not mix.
    fd = os.open(os.environ["RELAYMESH_TEST_WITNESS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, f"{ctx.step_id} {ctx.fencing_token} {os.getpid()}\n".encode())
    finally:
        os.close(fd)


@agent
def stamp(request: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Take ``ms`` milliseconds and return what came in, with the fencing token of this attempt."""
    _witness(ctx)
    time.sleep(request.get("ms", 0) / 1000)
    return {"in": request.get("in"), "fence": ctx.fencing_token}


@agent(isolation="thread")
def thread_stamp(request: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """The same in a thread of the node."""
    _witness(ctx)
    time.sleep(request.get("ms", 0) / 1000)
    return {"in": request.get("in"), "fence": ctx.fencing_token}


@agent(grace_ms=500, timeout_ms=120_000)
def linger(request: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Take ``ms`` milliseconds whatever anybody asks."""
    _witness(ctx)
    until = time.monotonic() + request.get("ms", 0) / 1000
    while time.monotonic() < until:
        time.sleep(0.02)
    return {"in": request.get("in"), "fence": ctx.fencing_token}


@agent(grace_ms=500, timeout_ms=1_000, max_attempts=1)
def family(request: dict[str, Any], ctx: Context) -> str:
    """Start a child, a grandchild and a daemon that got away by two forks and a session of its own; then wait."""
    _witness(ctx)
    _start_family(request["pids"])
    time.sleep(600)
    return "not reached"


@agent(grace_ms=500, timeout_ms=600_000, max_attempts=1)
def patient_family(request: dict[str, Any], ctx: Context) -> str:
    """The same, with no timeout that matters."""
    _witness(ctx)
    _start_family(request["pids"])
    time.sleep(600)
    return "not reached"


def _start_family(pids: str) -> None:
    program = """
import os, signal, subprocess, sys, time
pids = sys.argv[1]
def say():
    fd = os.open(pids, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{os.getpid()}\\n".encode())
    os.close(fd)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
say()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve(sys.executable, [sys.executable, "-c",
            "import os, sys, time\\nfd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)\\n"
            "os.write(fd, f'{os.getpid()}\\\\n'.encode())\\ntime.sleep(600)", pids], {})
    os._exit(0)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
time.sleep(600)
"""
    subprocess.Popen([sys.executable, "-c", program, pids])


@agent(max_attempts=2)
def fail_once(text: str, ctx: Context) -> str:
    """Fail at the first attempt."""
    _witness(ctx)
    if ctx.attempt == 1:
        raise RuntimeError("the first attempt fails")
    return text


@agent(isolation="inline")
def say(text: str) -> str:
    """Return what came in, from within the node."""
    return text
