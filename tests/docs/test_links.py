"""Every link of the documentation leads somewhere, and every file that it names is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.facts import REPO
from tests.docs.page import anchors, links, named_files, pages

PAGES = pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(REPO)))


@PAGES
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)

    assert broken == []


@PAGES
def test_every_file_that_is_named_is_there(page: Path) -> None:
    missing = [name for name in named_files(page) if not list(REPO.glob(name)) and not list(page.parent.glob(name))]

    assert missing == []


def test_the_index_leads_to_every_page() -> None:
    docs = REPO / "docs"
    reached, todo = set(), [docs / "index.md"]
    while todo:
        page = todo.pop()
        reached.add(page)
        targets = {(page.parent / link.partition("#")[0]).resolve() for link in links(page)}
        todo += [target for target in targets if target.suffix == ".md" and target.exists() and target not in reached]

    assert sorted(set(docs.rglob("*.md")) - reached) == []
