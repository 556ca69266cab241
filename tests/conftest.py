"""Which tests count for coverage: all but the properties, which take two to three times as long while lines count."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import coverage
import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Count no lines while a property, or what is marked ``uncounted``, runs; it is run and judged as without coverage.

    Before Python 3.12 lines are counted by a trace function. Where it is not one (see scripts/test.py) counting costs
    little, there is none to take out, and everything counts.
    """
    uncounted = any(item.get_closest_marker(name) for name in ("hypothesis", "uncounted"))
    if not uncounted or coverage.Coverage.current() is None:
        return (yield)
    tracing, tracing_of_threads = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)
    try:
        return (yield)
    finally:
        threading.settrace(tracing_of_threads)
        sys.settrace(tracing)
