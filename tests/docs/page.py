"""Reading the pages of the documentation: their links, headings, tables and the files they name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.docs.facts import REPO

_FENCE = re.compile(r"^```.*?^```[ ]*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
_FILE = re.compile(r"(?:relaymesh|actors|chaos|tests|scripts|docs|examples)/[\w./*-]*\w|\w+\.(?:cfg|toml|md)")


def pages() -> list[Path]:
    """Return every page: docs/ and the ones beside it."""
    return sorted([*(REPO / "docs").rglob("*.md"), *REPO.glob("*.md")])


def text_of(page: Path) -> str:
    """Return a page without its blocks of code."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> Iterator[str]:
    """Yield what a page links to, addresses outside the repository left out."""
    for target in _LINK.findall(text_of(page)):
        if "://" not in target and not target.startswith("mailto:"):
            yield target


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as the hosted repository makes them."""
    made: set[str] = set()
    for heading in _HEADING.findall(text_of(page)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = next(n for n in range(1000) if (f"{slug}-{n}" if n else slug) not in made)
        made.add(f"{slug}-{number}" if number else slug)
    return made


def named_files(page: Path) -> Iterator[str]:
    """Yield the files of this repository that a page names in code font; a star stands for any name."""
    for code in _CODE.findall(text_of(page)):
        if _FILE.fullmatch(code) and not re.search(r"[\w]/$", code):
            yield code


def rows(text: str, columns: int) -> Iterator[list[str]]:
    """Yield the rows, without heads, of all tables that have this many columns."""
    in_table = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
        if not line.startswith("|") or len(cells) != columns:
            in_table = False
        elif re.fullmatch(r"[|:\- ]+", line.strip()):
            in_table = True
        elif in_table:
            yield cells


def section(page: Path, heading: str) -> str:
    """Return what stands below a heading, up to the next one of the same or a higher level."""
    text = page.read_text(encoding="utf-8")
    match = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,6}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert match is not None, f"{page.name} has no section {heading!r}"
    return match[2]
