"""Eight nodes on one root under every kind of limit, and a witness inside the database that sees each start.

Triggers note, in the transaction of each start, how many steps ran then against each limit: a count that does not
depend on the code under test. Rates are checked afterwards from the instants of all starts.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections import defaultdict
from typing import Any

from relaymesh.core.rate_text import parse_rate
from relaymesh.store.root import DATABASE
from relaymesh.view import TaskRequest
from tests.integration.harness import Site

__all__ = ["LimitStorm"]

KEYS = [f"key-{number}" for number in range(6)]
OVERALL, AGENT, EACH_KEY, OWN_KEY = 20, 12, 3, 2
RATE, KEY_RATE = "300/s", "40/s"
NODES = 8

_STARTED = """
INSERT INTO witness_start VALUES (NEW.step_id, NEW.agent_id, NEW.concurrency_key, NEW.started_at_ms,
    (SELECT count(*) FROM steps WHERE status='RUNNING'),
    (SELECT count(*) FROM steps WHERE status='RUNNING' AND agent_id=NEW.agent_id),
    (SELECT count(*) FROM steps WHERE status='RUNNING' AND concurrency_key=NEW.concurrency_key));
"""
_TRIGGERS = f"""
CREATE TABLE witness_start(step_id, agent_id, concurrency_key, at_ms, running, of_agent, of_key);
CREATE TRIGGER witness_claim AFTER UPDATE OF status ON steps WHEN NEW.status='RUNNING' AND OLD.status<>'RUNNING'
BEGIN {_STARTED} END;
CREATE TRIGGER witness_born AFTER INSERT ON steps WHEN NEW.status='RUNNING' BEGIN {_STARTED} END;
"""


class LimitStorm:
    """Sets the limits, keeps the queue full, and says at the end what was seen."""

    def __init__(self, site: Site) -> None:
        self.site = site
        with contextlib.closing(sqlite3.connect(site.root / DATABASE)) as conn:
            conn.executescript(_TRIGGERS)
        with site.client() as client:
            client.set_limit("overall", max_concurrency=OVERALL, rate=RATE, burst=30)
            client.set_limit("agent", "sleep", max_concurrency=AGENT)
            client.set_limit("each-key", max_concurrency=EACH_KEY, rate=KEY_RATE, burst=5)
            client.set_limit("key", KEYS[0], max_concurrency=OWN_KEY, rate=KEY_RATE, burst=5)
        self._number = 0

    def submit(self, count: int) -> None:
        """Submit steps of two agents, with keys and without."""
        requests = []
        for _ in range(count):
            self._number += 1
            number = self._number
            requests.append(
                TaskRequest(
                    agent="sleep" if number % 3 else "echo",
                    input=str(5 + number % 20) if number % 3 else "x",
                    idempotency_key=f"storm-{number}",
                    concurrency_key=KEYS[number % 7] if number % 7 < len(KEYS) else None,
                    priority=("high", "normal", "low")[number % 3],
                )
            )
        with self.site.client() as client:
            assert {line.result for line in client.submit_many(requests)} == {"accepted"}

    def start(self) -> None:
        """Start the nodes and wait until all are up."""
        for number in range(NODES):
            self.site.node(f"n{number}", concurrency=1, measured=False)
        for node in self.site.nodes:
            node.wait_up()

    def run(self, seconds: float) -> None:
        """Keep the queue filled for so long, then let it run dry."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.site.open_tasks() < 600:
                self.submit(300)
            time.sleep(0.1)
        self.site.wait_done(120)

    def check(self) -> dict[str, Any]:
        """Check that no limit was exceeded, and that the limits were reached: else nothing was tested."""
        most = self.site.rows(
            "SELECT max(running), max(CASE WHEN agent_id='sleep' THEN of_agent END),"
            " max(CASE WHEN concurrency_key=? THEN of_key END), max(CASE WHEN concurrency_key<>? THEN of_key END),"
            " count(*) FROM witness_start",
            KEYS[0],
            KEYS[0],
        )
        overall, agent, own_key, each_key, starts = most[0]
        assert overall <= OVERALL and agent <= AGENT and own_key <= OWN_KEY and each_key <= EACH_KEY, most
        assert own_key == OWN_KEY and each_key == EACH_KEY, f"the limits were never reached: {most}"
        by_key: dict[str | None, list[int]] = defaultdict(list)
        for key, at_ms in self.site.rows("SELECT concurrency_key, at_ms FROM witness_start ORDER BY at_ms"):
            by_key[None].append(at_ms)
            if key is not None:
                by_key[key].append(at_ms)
        for key, instants in by_key.items():
            rate = parse_rate(RATE, 30) if key is None else parse_rate(KEY_RATE, 5)
            over = _worst_excess(instants, rate.count / rate.period_ms, rate.burst)
            assert over <= 0, f"{over:.2f} starts too many of {key or 'the root'}"
        return {"starts": starts, "running": overall, "of_agent": agent, "of_key": each_key, "of_own_key": own_key}


def _worst_excess(instants: list[int], per_ms: float, burst: int) -> float:
    """Return by how many starts any span of time exceeds ``burst + per_ms * span``; in one pass, as a bucket runs."""
    level, before, worst = float(burst), None, float("-inf")
    for at_ms in instants:
        if before is not None:
            level = min(float(burst), level + (at_ms - before) * per_ms)
        level -= 1
        before = at_ms
        worst = max(worst, -level)
    return worst - 1e-6
