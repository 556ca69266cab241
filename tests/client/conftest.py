from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relaymesh.client import Client
from tests.store.bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """What a node would do to the root, step by step."""
    bench = Bench(tmp_path / "root")
    yield bench
    bench.close()


@pytest.fixture
def client(bench: Bench) -> Iterator[Client]:
    """A client whose wall clock is the bench's."""
    with Client(bench.root, now_ms=lambda: bench.now_ms) as client:
        yield client
