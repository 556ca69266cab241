"""An agent that writes down when it begins, and does not end before its step has begun a second time."""

import time
from pathlib import Path

from relaymesh import Context, agent

BEGUN = Path(__file__).with_name("begun.txt")


@agent(isolation="thread")
def begin(number: str, ctx: Context) -> str:
    with open(BEGUN, "a", encoding="utf-8") as file:
        file.write(f"{ctx.step_id} {ctx.fencing_token & 0xFFFFFFFF} {time.monotonic_ns()}\n")
    while ctx.fencing_token & 0xFFFFFFFF == 1:
        time.sleep(0.05)
    return number
