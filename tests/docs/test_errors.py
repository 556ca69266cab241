"""docs/errors.md lists every error code, with what the code itself says."""

from __future__ import annotations

import pytest

from tests.docs import facts
from tests.docs.page import REPO, rows

PAGE = REPO / "docs" / "errors.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_every_class_of_errors_has_its_row_with_code_exit_status_and_sentence() -> None:
    on_page = {cells[1]: (cells[0], cells[2], cells[3]) for cells in rows(TEXT, 5)}

    for cls in facts.error_classes():
        name = f"`{cls.__module__}.{cls.__qualname__}`"
        says, row = facts.sentence(cls), facts.error_row(cls)
        assert name in on_page, f"{PAGE.name} lacks a row: {row}"
        code, status, sentence = on_page[name]
        assert (code, status) == (f"`{cls.code}`", str(cls.exit_status)), f"it should be: {row}"
        assert sentence == says if says else sentence, f"it should be: {row}"


def test_no_row_is_about_a_class_that_is_gone() -> None:
    known = {f"`{cls.__module__}.{cls.__qualname__}`" for cls in facts.error_classes()}

    assert [cells[1] for cells in rows(TEXT, 5) if cells[1] not in known] == []


def test_every_row_says_what_to_do() -> None:
    assert [cells[0] for cells in rows(TEXT, 5) if len(cells[4]) < 5] == []


@pytest.mark.uncounted  # it walks the syntax trees of all that we have
def test_every_code_that_is_written_where_it_is_used_is_on_the_page() -> None:
    assert [code for code in sorted(facts.codes_without_class()) if f"`{code}`" not in TEXT] == []


def test_a_code_means_one_thing_wherever_it_is_raised() -> None:
    by_code: dict[str, set[int]] = {}
    for cls in facts.error_classes():
        by_code.setdefault(cls.code, set()).add(cls.exit_status)

    assert {code for code, statuses in by_code.items() if len(statuses) > 1} == set()
