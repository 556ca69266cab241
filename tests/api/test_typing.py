"""A user's program is checked against our annotations: ``py.typed`` is there and says what is meant."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]

GOOD = """
from dataclasses import dataclass
from typing import assert_type

from relaymesh import ITEM, AgentFailed, Client, Context, Node, TaskFailedError, TaskRequest, Workflow, agent, literal
from relaymesh.testing import InlineRelay, VirtualClock


@dataclass
class Page:
    title: str


@agent
def count(page: Page, ctx: Context) -> dict[str, int]:
    ctx.heartbeat(0.5)
    if ctx.cancelled:
        raise AgentFailed("stopped", retryable=False)
    return {"words": len(page.title.split())}


@agent(id="shout", max_attempts=2, isolation="thread")
async def loud(text: str) -> str:
    return text.upper()


assert_type(count(Page("a"), Context.__new__(Context)), dict[str, int])  # the decorator keeps the signature


def use(client: Client) -> None:
    flow = Workflow(labels={"a": "b"})
    pages = flow.step("pages", "echo", literal(["a", "b"]))
    counts = flow.step("counts", "count", {"title": ITEM}, over=pages.output)
    outcome = client.submit_workflow(flow)
    assert_type(client.result(outcome.task_id), str)
    assert_type(client.result(outcome.task_id, counts, type=list[dict[str, int]]), list[dict[str, int]])
    assert_type(client.result(outcome.task_id, type=Page), Page)
    assert_type(client.output(outcome.task_id), str | None)
    for event in client.events(outcome.task_id, timeout_ms=10):
        assert_type(event.step_id, str | None)
    for line in client.submit_many([TaskRequest(agent="count", input="{}")]):
        assert_type(line.task_id, str | None)
    try:
        client.wait_success(outcome.task_id)
    except TaskFailedError as error:
        assert_type(error.status, str)


def main() -> None:
    with Node("data", agents=[count, loud]) as node:
        use(node.client)
    with InlineRelay([count], clock=VirtualClock()) as relay:
        use(relay)
"""

# Each line is wrong, and the word behind it says how.
BAD = """
from relaymesh import Client, Workflow, agent

client = Client("data")
client.submit("echo", priority=5)  # arg-type
client.submit_workflow(5)  # arg-type
client.result(client.submit("echo", "x"))  # call-overload
number: int = client.result("tsk_1")  # assignment
client.cancel("tsk_1", "reason")  # misc|call-arg
Workflow().step("a")  # call-arg
agent(id=5)  # call-overload
"""


def mypy(folder: Path, text: str) -> list[str]:
    path = folder / "program.py"
    path.write_text(text, encoding="utf-8")
    (folder / "mypy.ini").write_text("[mypy]\nstrict = True\npretty = False\n", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file",
        "mypy.ini",
        "--cache-dir",
        str(REPO / ".mypy_cache" / "api"),
    ]
    ended = subprocess.run([*command, "program.py"], cwd=folder, capture_output=True, encoding="utf-8", timeout=300)
    assert ended.returncode in (0, 1), ended.stderr
    return [line for line in ended.stdout.splitlines() if ": error: " in line]


def test_a_right_program_is_found_right_and_a_wrong_one_wrong(tmp_path: Path) -> None:
    assert mypy(tmp_path, GOOD) == []

    errors = {int(line.split(":")[1]): line for line in mypy(tmp_path, BAD)}

    expected = {
        number: line.rpartition("# ")[2].split("|") for number, line in enumerate(BAD.splitlines(), 1) if "  # " in line
    }
    assert errors.keys() == expected.keys()
    for number, codes in expected.items():
        assert any(f"[{code}]" in errors[number] for code in codes), errors[number]
