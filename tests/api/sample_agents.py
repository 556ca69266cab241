"""Agents that tests run in worker processes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from relaymesh import AgentFailed, Context, agent


@dataclass
class Order:
    item: str
    count: int = 1


@dataclass
class Receipt:
    item: str
    cents: int


@agent
def price(order: Order) -> Receipt:
    return Receipt(order.item, order.count * 250)


@agent
def total(receipts: list[Receipt]) -> int:
    return sum(receipt.cents for receipt in receipts)


@agent
def where(text: str) -> dict[str, int]:
    return {"pid": os.getpid(), "parent": os.getppid()}


@agent
async def shout(text: str) -> str:
    return text.upper()


@agent(max_attempts=2, base_backoff_ms=5_000, max_backoff_ms=60_000)
def shaky(text: str, ctx: Context) -> str:
    if ctx.attempt == 1:
        raise ConnectionError("the line was dead")
    return text


@agent(max_attempts=5)
def hopeless(text: str) -> str:
    raise AgentFailed("no such customer", code="no_customer", retryable=False)


@agent(timeout_ms=60_000)
def until_cancelled(text: str, ctx: Context) -> str:
    ctx.heartbeat("waiting")
    ctx.cancelled.wait()
    ctx.check()
    return text


@agent(id="says-why")
def says_why(path: str, ctx: Context) -> None:
    file = Path(path)
    file.write_text("begun", encoding="utf-8")
    ctx.cancelled.wait(30)
    file.write_text(str(ctx.cancelled.reason), encoding="utf-8")
