"""A data root for each test, and the end of every process that was started for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import Site

if sys.platform == "win32":
    # kill -9, SIGSTOP and process groups are POSIX words; tests/actors and tests/agents take the same code paths there.
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Return what makes a ``Site`` in the test's folder."""
    made: list[Site] = []

    def make(name: str = "site", **options: Any) -> Site:
        site = Site(tmp_path / name, **options)
        made.append(site)
        return site

    yield make
    for site in made:
        site.close()


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site(settings={"leaseTimeoutMs": 2_000})
