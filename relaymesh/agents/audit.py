"""What a node found when it loaded its agents, as audit records."""

from __future__ import annotations

from relaymesh.agents.registry import Registry
from relaymesh.wire.audit import Record

__all__ = ["load_records"]

_INVALID_MAX = 100
"""Entries that were not taken, told one by one; the counts tell of the rest."""


def load_records(registry: Registry) -> list[Record]:
    """Return a record for each of the two files, and one for each agent in them that cannot be used."""
    scripts, retries = registry.scripts, registry.retries
    records = [
        Record(
            "agent.script.register",
            "runtime",
            "runtime/agents",
            "invalid_spec",
            {"agent_id": entry.agent_id, "error": entry.reason},
        )
        for entry in scripts.skipped[:_INVALID_MAX]
    ]
    for action, area, file in (
        ("agent.script.load", "agents", scripts),
        ("retry.policy.load", "retry-policies", retries),
    ):
        details = {"config": str(file.path), "loaded": file.loaded, "skipped": len(file.skipped)}
        records.append(Record(action, "runtime", f"runtime/{area}", "ok", details))
    return records
