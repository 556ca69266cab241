"""docs/metrics.md is what the catalogue makes of it."""

from __future__ import annotations

from tests.docs.metrics_page import PAGE, page


def test_the_page_is_the_one_that_the_code_makes() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew: python -m tests.docs.metrics_page"
