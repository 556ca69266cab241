"""A poll that finds its step taken says so, and the audit log has the refused claim."""

from __future__ import annotations

import json
from pathlib import Path

from relaymesh.client import Client
from relaymesh.core.fairness import Fairness
from relaymesh.node import NodeOptions, RunningNode, run_once
from relaymesh.store.claim import Slots
from relaymesh.store.store import Store

SLOTS = Slots(pools={"echo": "pool"}, free={"pool": 1}, room={}, limits={}, limit=1)


def test_a_poll_whose_step_another_node_takes_before_its_claim_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with Client(root) as client:
        task_id = client.submit("echo", "x").task_id

    def take_it_first(options: NodeOptions) -> RunningNode:
        store = Store.open(root, now_ms=1)
        with store.write():
            claim = store.claim(SLOTS, Fairness(), node_id="faster", generation=1, token="t.", now_ms=1)
        store.close()
        assert len(claim.rows) == 1
        from actors.system import build

        return build(options)

    outcome = run_once(NodeOptions(root=root, node_id="late", worker_id="w"), builder=take_it_first)

    assert (outcome.processed, outcome.task_id) == (True, task_id)
    assert "already taken" in outcome.message and "faster" in outcome.message
    with Client(root) as client:
        (claim,) = map(json.loads, client.audit_query(action="worker.claim"))
        (conflict,) = map(json.loads, client.audit_query(action="lease.conflict"))
    assert (claim["result"], claim["actor"], claim["details"]["msg_id"]) == ("stale", "w", outcome.msg_id)
    assert claim["details"]["cluster_epoch"] == 1
    assert (conflict["result"], conflict["actor"]) == ("claim_conflict", "late")
