"""A relay with the sample agents, which runs in the test's own thread."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from relaymesh.testing import InlineRelay

FILE = Path(__file__).with_name("sample_agents.py")


def _load() -> ModuleType:
    """The way a user's program gets a module that lies beside it, without depending on how pytest imports tests."""
    spec = importlib.util.spec_from_file_location("sample_agents_of_api", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


SAMPLES = _load()


@pytest.fixture
def samples() -> ModuleType:
    return SAMPLES


@pytest.fixture
def relay(samples: ModuleType) -> Iterator[InlineRelay]:
    agents = [value for value in vars(samples).values() if hasattr(value, "__relaymesh_agent__")]
    with InlineRelay(agents) as relay:
        yield relay
