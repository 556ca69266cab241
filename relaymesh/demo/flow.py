"""The workflow of the demo.

one step per text: words (Python), words-awk, ... (scripts), words-shaky (fails once)
    └──▶ chart ──▶ report
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from relaymesh.demo.source import Source
from relaymesh.demo.tool import Tool
from relaymesh.workflow import Workflow, literal

__all__ = ["REPORT", "build"]

REPORT = "report"
_CHART = "chart"
_ID_CHARS_MAX = 40


def build(sources: Sequence[Source], tools: Sequence[Tool], out: Path) -> tuple[Workflow, dict[str, str]]:
    """Return the workflow, and the agents of its steps by their ids, in order.

    out: absolute path of the folder that the report is written to.
    """
    flow = Workflow(labels={"made-by": "relaymesh-demo"})
    agents: dict[str, str] = {}
    rows: list[dict[str, object]] = []
    for number, source in enumerate(sources):
        agent = _agent_for(number, len(sources), tools)
        step = flow.step(_step_id(source.name, number + 1, agents), agent, literal(source.text))
        agents[step.id] = agent
        rows.append({"name": literal(source.name), "agent": agent, "found": step.output})
    chart = flow.step(_CHART, _CHART, {"rows": rows})
    flow.step(REPORT, REPORT, {"rows": rows, "chart": chart.output, "out": literal(str(out))})
    return flow, {**agents, _CHART: _CHART, REPORT: REPORT}


def _agent_for(number: int, count: int, tools: Sequence[Tool]) -> str:
    """Mix the agents; one text always goes to the one that fails once, and one to a script if there are two."""
    if number == min(2, count - 1):
        return "words-shaky"
    if number % 2 == 1 or count == 2:
        return tools[number // 2 % len(tools)].agent_id
    return "words"


def _step_id(name: str, number: int, taken: Collection[str]) -> str:
    """Return an id that says which file it is, and that no other step has."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", name.rpartition(".")[0] or name).strip("-")[:_ID_CHARS_MAX]
    found = stem or f"file-{number}"
    return f"{found}-{number}" if found in (*taken, _CHART, REPORT) else found
