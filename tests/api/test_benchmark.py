"""``benchmark`` over a real node."""

from __future__ import annotations

from pathlib import Path

from relaymesh import Client
from relaymesh.node import NodeOptions, benchmark
from relaymesh.view import Explanation


def test_a_benchmark_that_a_limit_of_0_holds_says_so_and_goes_on_when_it_is_raised(tmp_path: Path) -> None:
    root = tmp_path / "data"
    told: list[Explanation] = []

    with Client(root) as client:
        client.set_limit("agent", "echo", max_concurrency=0)

        def raise_it(why: Explanation) -> None:
            told.append(why)
            client.set_limit("agent", "echo", max_concurrency=4)

        outcome = benchmark(NodeOptions(root=root), tasks=3, max_seconds=60, on_held=raise_it)

    assert [(why.reason, why.command) for why in told] == [
        ("agent_concurrency", "relaymesh limits set --agent echo --max-concurrency <more>")
    ]
    assert (outcome.completed_tasks, outcome.timed_out) == (3, False)


def test_each_reason_for_which_a_benchmark_stands_still_is_told_once(tmp_path: Path) -> None:
    root = tmp_path / "data"
    told: list[str] = []

    with Client(root) as client:
        client.pause_queue()

        def change(why: Explanation) -> None:
            told.append(why.reason)
            if why.reason == "queue_paused":
                client.set_limit("overall", max_concurrency=0)
                client.resume_queue()

        outcome = benchmark(NodeOptions(root=root), tasks=2, max_seconds=5, on_held=change)

    assert told == ["queue_paused", "overall_concurrency"]
    assert (outcome.completed_tasks, outcome.timed_out) == (0, True)
