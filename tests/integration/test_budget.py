"""Budgets with real nodes and workers: nothing is lost or doubled by a kill, and what runs is cut.

Agents write each spending into a file before they report it. That ledger says how much was spent; the database says how
much was charged.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from relaymesh.core.budget import MICROS
from relaymesh.view import TaskRequest
from tests.integration.harness import NodeProcess, Site, eventually, marked
from tests.integration.spending_agents import LEDGER

AGENTS = Path(__file__).with_name("spending_agents.py")
TOKENS = "units:tokens"
BEAT = 50
"""What ``drips`` may spend between two words of it, 0.5 s, and on the way to the disk; generous for a slow machine."""


class Ledger:
    """What the agents wrote down."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def of_attempts(self) -> dict[tuple[str, int], int]:
        found: dict[tuple[str, int], int] = defaultdict(int)
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                step_id, fencing_token, tokens = line.split()
                found[step_id, int(fencing_token) & 0xFFFFFFFF] += int(tokens)
        return found

    def total(self) -> int:
        return sum(self.of_attempts().values())


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site(settings={"leaseTimeoutMs": 2_000, "baseBackoffMs": 10, "maxBackoffMs": 20}, agents=AGENTS)


def start(site: Site, ledger: Ledger, name: str) -> NodeProcess:
    return site.node(name, concurrency=1, measured=False, environment={LEDGER: str(ledger.path)})


def charged(site: Site, scope: str = "agent", kind: str = TOKENS) -> float:
    return float(site.one("SELECT coalesce(sum(spent), 0) FROM budgets WHERE scope=? AND kind=?", scope, kind)) / MICROS


def by_attempt(site: Site) -> dict[tuple[str, int], int]:
    rows = site.rows("SELECT step_id, lease_epoch, spent FROM attempt_spending WHERE kind=?", TOKENS)
    return {(step_id, epoch): spent // MICROS for step_id, epoch, spent in rows}


def worker_of(site: Site) -> psutil.Process:
    """Return the worker process of the site."""

    def find() -> psutil.Process | None:
        for process in marked(site.mark):
            if "relaymesh.agents.host" in " ".join(process.cmdline()):
                return process
        return None

    found = eventually(find, what="a worker process")
    assert isinstance(found, psutil.Process)
    return found


@pytest.mark.slow
def test_eight_nodes_spend_no_more_than_what_was_in_flight_when_the_budget_was_used_up(
    site: Site, ledger: Ledger
) -> None:
    amount, each, nodes = 300, 7, 8
    with site.client() as client:
        client.budgets.set("agent", "spends", TOKENS, amount)
        for number in range(nodes):
            start(site, ledger, f"n{number}")
        for node in site.nodes:
            node.wait_up()
        lines = client.submit_many(
            TaskRequest(agent="spends", input=str(each), idempotency_key=str(n)) for n in range(120)
        )
        assert {line.result for line in lines} == {"accepted"}

        eventually(lambda: charged(site) >= amount, what="the budget is used up")
        eventually(lambda: site.one("SELECT count(*) FROM steps WHERE status='RUNNING'") == 0, what="nothing runs")

        # Steps that had begun when it was used up may end: as many as there are slots, each at its own price.
        assert amount <= charged(site) == ledger.total() < amount + nodes * each
        (why,) = client.explain(client.submit("spends", "1").task_id)
        assert why.reason == "agent_budget"

        client.budgets.set("agent", "spends", TOKENS, 10_000)
        eventually(lambda: site.open_tasks() == 0, what="all is done once there is more to spend")
        assert charged(site) == ledger.total()


def test_a_killed_worker_has_spent_what_it_said_and_the_next_attempt_is_charged_for_its_own(
    site: Site, ledger: Ledger
) -> None:
    with site.client() as client:
        client.budgets.set("agent", "drips", TOKENS, 100_000)
        start(site, ledger, "a").wait_up()
        task = client.submit("drips", "120")
        eventually(lambda: charged(site) >= 20, what="it has said something")

        worker_of(site).kill()
        assert client.wait(task.task_id, timeout_ms=60_000).status == "SUCCESS"

    told, kept = ledger.of_attempts(), by_attempt(site)
    first, last = min(told), max(told)
    assert len(told) == 2 and kept.keys() == told.keys()
    assert told[first] - BEAT <= kept[first] <= told[first]
    assert kept[last] == told[last] == 120
    assert charged(site) == sum(kept.values())


@pytest.mark.slow
def test_a_killed_node_loses_no_spending_that_was_on_disk_and_none_is_charged_twice(site: Site, ledger: Ledger) -> None:
    with site.client() as client:
        task = client.submit("drips", "150", budget={TOKENS: 100_000})
        client.budgets.set("key", "nobody", TOKENS, 1)
        node = start(site, ledger, "a").wait_up()
        for _ in range(2):
            before = charged(site, "task")
            eventually(lambda: charged(site, "task") > before + 10, what="it has said something")  # noqa: B023
            seen = charged(site, "task")
            node.kill()
            assert charged(site, "task") >= seen
            node = start(site, ledger, "a").wait_up()
        assert client.wait(task.task_id, timeout_ms=60_000).status == "SUCCESS"

    told, kept = ledger.of_attempts(), by_attempt(site)
    last = max(told)
    assert len(told) == 3 and kept.keys() == told.keys()
    assert all(told[attempt] - BEAT <= kept[attempt] <= told[attempt] for attempt in told)
    assert kept[last] == told[last] == 150
    assert charged(site, "task") == sum(kept.values())


def test_a_running_attempt_is_cut_with_its_whole_process_tree_when_its_time_is_spent(
    site: Site, ledger: Ledger
) -> None:
    with site.client() as client:
        start(site, ledger, "a").wait_up()
        task = client.submit("breeds", "x", budget={"wall_seconds": 2})
        eventually(lambda: len(tree(site)) == 2, what="child and grandchild")

        ended = client.wait(task.task_id, timeout_ms=60_000)

        assert ended.status == "DEAD_LETTER"
        assert ended.last_error == "the budget of this task for wall_seconds is used up"
        eventually(lambda: not tree(site), what="the whole tree is gone")
        assert site.one("SELECT code FROM attempts") == "budget_exhausted"
        assert 2 <= charged(site, "task", "wall_seconds") < 30
        assert [json.loads(row)["details"]["kind"] for row in client.audit_query(action="budget.used_up")] == [
            "wall_seconds"
        ]


def tree(site: Site) -> list[Any]:
    return [p for p in marked(site.mark) if "time.sleep(600)" in " ".join(p.cmdline())]


def test_attempts_on_two_nodes_are_cut_by_what_the_other_has_spent(site: Site, ledger: Ledger) -> None:
    with site.client() as client:
        client.budgets.set("agent", "drips", TOKENS, 80)
        for name in ("a", "b"):
            start(site, ledger, name).wait_up()
        tasks = [client.submit("drips", "2000", idempotency_key=str(number)) for number in range(2)]

        eventually(
            lambda: site.one("SELECT count(*) FROM attempts WHERE code='budget_exhausted'") == 2, what="both are cut"
        )

        # Neither has spent 80 by itself when the sum is seen; both have spent a beat more at most.
        assert 80 < charged(site) == ledger.total() <= 80 + 2 * BEAT
        assert {client.task(task.task_id).status for task in tasks} <= {"RETRYING", "PENDING"}
        client.budgets.set("agent", "drips", TOKENS, 100_000)
        eventually(lambda: site.one("SELECT count(*) FROM steps WHERE status='RUNNING'") == 2, what="both run again")


def test_a_workflow_that_has_spent_its_budget_is_a_dead_letter_and_goes_on_when_there_is_more(
    site: Site, ledger: Ledger
) -> None:
    steps = [
        {"id": f"s{number}", "agent": "spends", "input": "40", "dependsOn": [f"s{number - 1}"] if number else []}
        for number in range(4)
    ]
    with site.client() as client:
        start(site, ledger, "a").wait_up()
        task = client.submit_workflow({"steps": steps, "budget": {TOKENS: 80}})

        assert client.wait(task.task_id, timeout_ms=60_000).status == "DEAD_LETTER"
        assert ledger.total() == charged(site, "task") == 80
        assert [row.last_error for row in client.dead_letters()] == [
            "the budget of this task for units:tokens is used up"
        ]
        client.budgets.set("task", task.task_id, TOKENS, 1_000)
        client.replay(task.task_id)

        assert client.wait(task.task_id, timeout_ms=60_000).status == "SUCCESS"
        assert ledger.total() == charged(site, "task") == 160


@pytest.mark.slow
def test_agents_wait_for_the_next_period_and_go_on_by_themselves(site: Site, ledger: Ledger) -> None:
    with site.client() as client:
        client.budgets.set("agent", "spends", TOKENS, 5, per="3s")
        start(site, ledger, "a").wait_up()
        tasks = [client.submit("spends", "5", idempotency_key=str(number)) for number in range(3)]

        for task in tasks:
            assert client.wait(task.task_id, timeout_ms=60_000).status == "SUCCESS"

    windows = {at_ms // 3_000 for (at_ms,) in site.rows("SELECT started_at_ms FROM steps")}
    assert len(windows) == 3
