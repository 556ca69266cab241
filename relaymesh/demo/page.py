"""The report as one HTML file that needs nothing else: sums, the chart, and a table of all texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from relaymesh.core.plural import counted

__all__ = ["Found", "Row", "report_page"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: 0.3rem 0.8rem 0.3rem 0; border-bottom: 1px solid #ddd }
th.number, td.number { text-align: right; font-variant-numeric: tabular-nums }
svg { max-width: 100%; height: auto }
p.note { color: #555 }
"""


@dataclass(frozen=True, slots=True)
class Found:
    """What an agent put out for one text; ``relaymesh/demo/words.py`` says what the fields mean."""

    tool: str
    lines: int
    words: int
    distinct: int
    often: str
    times: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Row:
    """One text. name: of its file. agent: who counted it."""

    name: str
    agent: str
    found: Found


def report_page(rows: Sequence[Row], chart: str, *, task_id: str) -> str:
    """Return the page. chart: the text of an SVG file of ours, taken in as it is."""
    words = sum(row.found.words for row in rows)
    retried = [row for row in rows if row.found.attempt > 1]
    notes = "".join(
        f'<p class="note">{_text(row.name)} took {row.found.attempt} attempts: its agent fails the first time.</p>\n'
        for row in retried
    )
    head = "".join(
        f"<th{_NUMBER if number else ''}>{title}</th>"
        for title, number in (
            ("File", False),
            ("Agent", False),
            ("Lines", True),
            ("Words", True),
            ("Different words", True),
            ("Most frequent long word", False),
            ("Attempts", True),
        )
    )
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Words in {counted(len(rows), "text")}</title><style>{_STYLE}</style></head>
<body>
<h1>{counted(words, "word")} in {counted(len(rows), "text")}</h1>
{chart}
{notes}<table>
<tr>{head}</tr>
{"".join(map(_row, rows))}</table>
<p class="note">Made by task {_text(task_id)} of RelayMesh. Each text was counted by a step of its own; this page was
written by the last step, when all the others had succeeded.</p>
</body>
</html>
"""


_NUMBER = ' class="number"'


def _row(row: Row) -> str:
    found = row.found
    often = f"{_text(found.often)} ({found.times})" if found.often else "–"
    cells = (
        (row.name, False),
        (row.agent, False),
        (f"{found.lines:,}", True),
        (f"{found.words:,}", True),
        (f"{found.distinct:,}", True),
    )
    plain = "".join(f"<td{_NUMBER if number else ''}>{_text(text)}</td>" for text, number in cells)
    return f"<tr>{plain}<td>{often}</td><td{_NUMBER}>{found.attempt}</td></tr>\n"


def _text(text: str) -> str:
    return escape("".join(mark if mark.isprintable() else "�" for mark in text))
