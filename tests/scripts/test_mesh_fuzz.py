"""The fuzzer of packets runs clean for two seconds, tells what it threw, and notices a node that believes too much."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "mesh_fuzz.py"


@pytest.fixture
def fuzzer(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("mesh_fuzz", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_two_seconds_of_hostile_packets_change_nothing() -> None:
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), "--budget", "2", "--seed", "7"], capture_output=True, text=True, timeout=120
    )

    summary: dict[str, Any] = json.loads(ended.stdout)
    assert (ended.returncode, summary["passed"], summary["message"]) == (0, True, ""), summary
    assert summary["packets"] > 200 and summary["answered"] > 0
    assert len(summary["thrown"]) == 12
    assert {"wrong_code", "unknown_key", "replayed", "malformed", "foreign", "opened"} <= set(summary["verdicts"])


def test_a_node_that_believes_a_packet_is_found_out(fuzzer: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    throw = fuzzer.Target.throw

    def gullible(self: Any, source: str, data: bytes) -> Any:
        self.machine.view.digest += 1
        return throw(self, source, data)

    monkeypatch.setattr(fuzzer.Target, "throw", gullible)

    summary = fuzzer.fuzz(1, 30)

    assert not summary["passed"]
    assert summary["message"].endswith("what the node believes has changed")
    assert summary["packet"] or summary["packets"] == 1


def test_an_answer_that_is_longer_than_its_packet_is_found_out(
    fuzzer: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzzer.Target, "throw", lambda self, source, data: ("foreign", len(data) + 1))

    assert "were answered by" in fuzzer.fuzz(1, 30)["message"]
