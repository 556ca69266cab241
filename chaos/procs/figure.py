"""Figures of a run on real processes: who was held gone how soon, and which packets were refused."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from typing import Any

from chaos.history import Event
from chaos.procs.process import RealNode

__all__ = ["gone_log", "refused_by"]


def gone_log(history: tuple[Event, ...]) -> list[dict[str, Any]]:
    """Return for each node that ended when others first suspected it and last came to hold it gone, until it was back;
    in ms after its end.
    """
    found: list[dict[str, Any]] = []
    for at, event in enumerate(history):
        if event.f not in ("crash", "leave"):
            continue
        entry: dict[str, Any] = {"node": event.node, "how": event.f, "atMs": event.t}
        for later in history[at + 1 :]:
            if later.f == "start" and later.node == event.node:
                break
            if later.f == "member" and later.value["about"] == event.node:
                if later.value["shown"] == "SUSPECT":
                    entry.setdefault("firstSuspectMs", later.t - event.t)
                elif later.value["shown"] in ("DEAD", "LEFT"):
                    entry["lastGoneMs"] = later.t - event.t
        found.append(entry)
    return found


def refused_by(node: RealNode) -> Counter[str]:
    """Return how many packets a node has refused, by reason, as of its last report; of its present run."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        report = json.loads((node.root / "run" / f"{node.node_id}.metrics").read_text("utf-8"))
        return Counter(report["mesh"]["refused"])
    return Counter()
