"""docs/messages.md lists every message of the catalogue, its fields, and who takes it."""

from __future__ import annotations

from tests.docs import facts
from tests.docs.page import REPO, rows, section

PAGE = REPO / "docs" / "messages.md"


def test_the_catalogue_is_on_the_page_as_it_is_in_the_code() -> None:
    on_page = [f"| {' | '.join(cells)} |" for cells in rows(section(PAGE, "The catalogue"), 5)]

    assert on_page == facts.message_rows()


def test_the_parts_are_on_the_page_as_they_are_in_the_code() -> None:
    on_page = [f"| {' | '.join(cells)} |" for cells in rows(section(PAGE, "Parts"), 2)]

    assert on_page == facts.part_rows()


def test_every_message_is_taken_by_somebody_or_is_a_value() -> None:
    taken = facts.takers()
    parts = {"StepOrder"}  # has a tag, so that it could travel alone

    orphans = [c.__name__ for c in facts.messages().values() if c.__name__ not in taken]

    assert sorted(orphans) == sorted({*facts.ANSWERS, *parts})


def test_the_worker_process_reads_what_the_page_says_it_takes() -> None:
    source = (REPO / "relaymesh" / "agents" / "host.py").read_text(encoding="utf-8")

    assert [name for name in facts.HOST_TAKES if f"case {name}(" not in source and f", {name})" not in source] == []
