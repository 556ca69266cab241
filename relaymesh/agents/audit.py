"""What a node found when it loaded its agents, as audit records."""

from __future__ import annotations

from relaymesh.agents.agent_file import AgentFile
from relaymesh.agents.registry import Registry
from relaymesh.agents.spec import AgentSpec
from relaymesh.core.retry import RetryPolicy
from relaymesh.wire.audit import Record

__all__ = ["load_records", "retry_record"]

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
    records.append(Record("agent.script.load", "runtime", "runtime/agents", "ok", _counts(scripts)))
    records.append(retry_record(retries, actor="runtime"))
    return records


def retry_record(retries: AgentFile[RetryPolicy], *, actor: str) -> Record:
    """Return the record of a load of retry policies; they are loaded again with the settings."""
    return Record("retry.policy.load", actor, "runtime/retry-policies", "ok", _counts(retries))


def _counts(file: AgentFile[AgentSpec] | AgentFile[RetryPolicy]) -> dict[str, object]:
    return {"config": str(file.path), "loaded": file.loaded, "skipped": len(file.skipped)}
