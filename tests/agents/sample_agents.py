"""Agents for the tests of this folder; loaded by worker processes from this file."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from relaymesh.agents.context import AgentFailed, Context
from relaymesh.agents.decorate import agent

print("printed while this module is imported")


class Request(msgspec.Struct):
    words: list[str]
    times: int = 1


@agent
def same(text: str) -> str:
    return text


@agent
def nothing(text):  # type: ignore[no-untyped-def]
    return None


@agent(id="repeat-words")
def repeat(request: Request) -> dict[str, list[str]]:
    return {"words": request.words * request.times}


@agent
def raises(text: str) -> str:
    raise ValueError(f"cannot use {text}")


@agent(no_retry_on=(LookupError,), retry_on=(OSError,))
def raises_by_name(text: str) -> str:
    raise {"KeyError": KeyError, "OSError": OSError, "ValueError": ValueError}[text](text)


@agent
def exits(text: str) -> str:
    sys.exit(3)


@agent
def fails_for_good(text: str) -> str:
    raise AgentFailed("no such customer", code="no_customer", retryable=False)


@agent
def fails_for_now(text: str) -> str:
    raise AgentFailed("busy", retry_after_s=1.5)


@agent
def not_json(text: str) -> object:
    return object()


@agent
def surrogate(text: str) -> str:
    return "\udc80"


@agent
def too_large(text: str) -> str:
    return "x" * (10_485_760 + 1)


@agent
async def coroutine(text: str, ctx: Context) -> str:
    await asyncio.sleep(0.01)
    return f"{text} {id(asyncio.get_running_loop())}"


@agent(grace_ms=300)
async def coroutine_sleeps(text: str) -> str:
    await asyncio.sleep(60)
    return "never"


@agent
def prints(text: str) -> str:
    print("to stdout")
    print("to stderr", file=sys.stderr)
    print("no line break", end="")
    logging.getLogger("some.library").info("through logging")
    return ""


@agent
def logs(text: str, ctx: Context) -> str:
    ctx.log.debug("debug %s", text)
    ctx.log.error("error")
    return ""


@agent
def floods_log(text: str, ctx: Context) -> str:
    for number in range(5_000):
        ctx.log.info("line %d", number)
    print("x" * 100_000)
    raise ValueError("at the end")


@agent
def tells(text: str, ctx: Context) -> dict[str, object]:
    return {
        "task": ctx.task_id,
        "step": ctx.step_id,
        "attempt": ctx.attempt,
        "fencing": ctx.fencing_token,
        "idempotency": ctx.idempotency_token,
        "trace": ctx.trace_id,
        "span": ctx.span_id,
        "incoming": ctx.incoming_traceparent,
        "traceparent": ctx.traceparent,
        "remaining": ctx.remaining_ms(),
        "pythonpath": os.environ.get("PYTHONPATH"),
    }


@agent
def snoozes(text: str, ctx: Context) -> str:
    try:
        ctx.snooze(float(text))
    except Exception as error:
        return f"swallowed {type(error).__name__}"


@agent
def heartbeats(text: str, ctx: Context) -> str:
    for number in range(200):
        ctx.heartbeat({"done": number})
    time.sleep(0.35)  # long enough for the last one to be passed on late
    return ""


@agent(grace_ms=300)
def waits(text: str, ctx: Context) -> str:
    Path(text).write_text("started")
    ctx.cancelled.wait(60)
    return "a result that nobody asked for"


@agent(grace_ms=300)
def checks(text: str, ctx: Context) -> str:
    while True:
        ctx.check()
        time.sleep(0.01)


@agent(grace_ms=300)
def sleeps_for_good(text: str) -> str:
    time.sleep(float(text or 60))
    return "slept"


@agent
def dies(text: str) -> str:
    os._exit(9)


@agent
def closes_all_files(text: str) -> str:
    """What a program does that becomes a daemon without a fork."""
    os.closerange(3, 256)
    time.sleep(600)
    return ""


def _square(number: int) -> int:
    return number * number


@agent
def counts_in_processes(text: str) -> str:
    """``text`` is the start method: "spawn" and "forkserver" import this file anew."""
    import multiprocessing

    with multiprocessing.get_context(text).Pool(2) as pool:
        return str(sum(pool.map(_square, range(4))))


@agent
def working_directory(text: str) -> str:
    return os.getcwd()


@agent
def goes_to(text: str) -> str:
    os.chdir(text)
    return os.getcwd()


@agent
def crashes(text: str) -> str:
    ctypes.string_at(0)
    return ""


@agent
def leaves_daemon(text: str) -> str:
    """Fork twice, with setsid and all files closed, as a daemon does; its pid goes to the file ``text``."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 256)
            Path(text).write_text(str(os.getpid()))
            time.sleep(600)
        os._exit(0)
    while not Path(text).exists() or not Path(text).read_text():
        time.sleep(0.005)
    return "left a daemon"


@agent
def forks_and_forgets(text: str) -> str:
    """The child raises out of the agent instead of ending, as in a program that forgot ``os._exit``."""
    pid = os.fork()
    if pid == 0:
        raise RuntimeError("in the child")
    os.waitpid(pid, 0)
    return "from the parent"


@agent(grace_ms=200)
def hides_daemon_and_hangs(text: str) -> str:
    leaves_daemon(text)
    while True:
        time.sleep(60)


@agent
def runs_program(text: str) -> str:
    return subprocess.run([sys.executable, "-c", "print(input())"], input=text, capture_output=True, text=True).stdout


@agent(recycle_after_steps=3)
def recycled(text: str) -> int:
    return os.getpid()


HOARD: list[bytes] = []


@agent(recycle_above_mib=120)
def leaks(text: str) -> str:
    HOARD.append(b"x" * (150 * 1024 * 1024))
    time.sleep(0.05)
    return ""


@agent(grace_ms=300)
def spends(words: list[int], ctx: Context) -> str:
    for tokens in words:
        ctx.spend(tokens=tokens, usd=0.01)
    return "spent"


@agent(grace_ms=300)
def spends_and_waits(tokens: int, ctx: Context) -> str:
    ctx.spend(tokens=tokens)
    ctx.cancelled.wait(30)
    return "waited"


@agent(grace_ms=300)
def burns(seconds: float, ctx: Context) -> str:
    """Use so much processor time in a child, and as much in a grandchild; then wait."""
    burn = f"import time\nwhile time.process_time() < {seconds}: pass"
    both = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\n{burn}"
    subprocess.run([sys.executable, "-c", both], check=True)
    return "burnt"
