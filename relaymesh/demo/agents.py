"""The Python agents of the demo: ``relaymesh up --agents relaymesh.demo.agents``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from relaymesh import Context, agent
from relaymesh.demo.chart import Bar, bar_chart
from relaymesh.demo.page import Row, report_page
from relaymesh.demo.words import statistics

__all__ = ["chart", "report", "words", "words_shaky"]


@dataclass(frozen=True, slots=True)
class ChartInput:
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class ReportInput:
    """chart: an SVG. out: the folder to write to."""

    rows: tuple[Row, ...]
    chart: str
    out: str


@agent
def words(text: str, ctx: Context) -> dict[str, str | int]:
    """Count words and more; see ``relaymesh/demo/words.py``."""
    ctx.log.info("%d characters to read", len(text))
    return statistics(text.encode(), tool="python", attempt=ctx.attempt)


@agent(id="words-shaky", base_backoff_ms=600)
def words_shaky(text: str, ctx: Context) -> dict[str, str | int]:
    """The same, but the first attempt of every step fails."""
    if ctx.attempt == 1:
        ctx.log.warning("this first attempt fails on purpose")
        raise ConnectionError("the first attempt fails on purpose")
    ctx.log.info("attempt %d succeeds", ctx.attempt)
    return statistics(text.encode(), tool="python", attempt=ctx.attempt)


@agent
def chart(request: ChartInput) -> str:
    """Draw the number of words of each text; returns an SVG."""
    return bar_chart("Words per text", [Bar(row.name, row.found.words, row.agent) for row in request.rows])


@agent
def report(request: ReportInput, ctx: Context) -> dict[str, str | int]:
    """Write ``report.html`` and ``chart.svg``; returns where the report is, and sums.

    Running it twice does no harm: a file is replaced as a whole by one with the same content.
    """
    out = Path(request.out)
    out.mkdir(parents=True, exist_ok=True)
    page = report_page(request.rows, request.chart, task_id=ctx.task_id)
    _replace(out / "chart.svg", request.chart)
    _replace(out / "report.html", page)
    ctx.log.info("wrote %s", out / "report.html")
    longest = max(request.rows, key=lambda row: row.found.words)
    return {
        "report": str(out / "report.html"),
        "texts": len(request.rows),
        "words": sum(row.found.words for row in request.rows),
        "longest": longest.name,
        "longestWords": longest.found.words,
    }


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
