"""What the StoreActor is told about its node, and what it asks of the rest of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from relaymesh.core.mesh.local import MemberRules
from relaymesh.core.retry import RetryPolicy
from relaymesh.store.claim import ClaimedRow
from relaymesh.store.connection import Durability
from relaymesh.wire.store import FinishedStep

__all__ = ["NodeFacts", "StoreNeeds"]


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """Who this node is, and what it can run.

    worker_id: who the audit log says ran the steps. masked_fields: names whose values it does not show, besides those
        that it knows.
    pools: agent id to slot pool. limits: agents that may not run more often than this at a time on the whole root.
    """

    root: Path
    namespace: str
    node_id: str
    host: str
    pid: int
    agents: str
    pools: dict[str, str]
    limits: dict[str, int]
    policy_of: Callable[[str], RetryPolicy]
    durability: Durability = Durability.FULL
    worker_id: str = "worker-local"
    masked_fields: tuple[str, ...] = ()


class StoreNeeds(Protocol):
    """What the StoreActor asks of the rest of the node."""

    def now_ms(self) -> int: ...
    def lease_token(self) -> str: ...
    def generation(self, number: int) -> None: ...
    def current_generation(self) -> int: ...
    def lost_generation(self) -> None: ...
    def lost_root(self) -> None: ...
    def committed(
        self, spent_ns: int, writes: int, finished: Sequence[FinishedStep], claimed: Sequence[ClaimedRow]
    ) -> None: ...
    def refused(self) -> None: ...
    def renewed(self, leases: int) -> None: ...
    def member_rules(self) -> MemberRules: ...
    def paused(self, reason: str) -> None: ...
