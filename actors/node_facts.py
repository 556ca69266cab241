"""What a node is and can run, as its actors, the database and other nodes are told."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from actors.inline import INLINE_SLOTS
from actors.store_needs import NodeFacts
from relaymesh.agents.registry import Registry
from relaymesh.agents.spec import USER_INLINE_POOL
from relaymesh.core.retry import RetryPolicy
from relaymesh.core.setting_table import Settings
from relaymesh.node import NodeOptions
from relaymesh.store.connection import Durability
from relaymesh.store.node_row import Capabilities
from relaymesh.store.presence import host_name

__all__ = ["THREAD_SLOTS", "facts_of", "slot_counts"]

THREAD_SLOTS: Final = 32
_CONCURRENCY_MIN: Final = 4
"""Worker processes of a node on a machine with fewer cores, unless the options say otherwise."""


def slot_counts(options: NodeOptions) -> dict[str, int]:
    """Return how many steps may run at a time, by slot pool."""
    return {
        "inline": INLINE_SLOTS,
        USER_INLINE_POOL: 1,
        "thread": options.threads or THREAD_SLOTS,
        "process": options.concurrency or max(_CONCURRENCY_MIN, os.cpu_count() or 1),
    }


def facts_of(
    options: NodeOptions,
    root: Path,
    namespace: str,
    node_id: str,
    settings: Settings,
    registry: Registry,
    *,
    policy_of: Callable[[str], RetryPolicy],
) -> NodeFacts:
    """Return the facts of a node that starts. policy_of: an agent's retry policy, as it is when that is asked."""
    specs = registry.specs
    pools = {agent_id: spec.pool for agent_id, spec in specs.items()}
    limits = {agent_id: spec.max_concurrency for agent_id, spec in specs.items() if spec.max_concurrency is not None}
    told = Capabilities(pools=pools, limits=limits, slots=slot_counts(options), reclaims=options.maintenance)
    return NodeFacts(
        root=root,
        namespace=namespace,
        node_id=node_id,
        host=host_name(),
        pid=os.getpid(),
        agents=told.to_json(),
        pools=pools,
        limits=limits,
        policy_of=policy_of,
        durability=Durability(settings.durability),
        worker_id=options.worker_id,
        masked_fields=settings.audit_masked_fields,
    )
