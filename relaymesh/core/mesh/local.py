"""Whether the worker of a node may take steps, from what is thought of the node itself.

    the member table says SUSPECT or DEAD ──┐
    the mesh says that it is cut off ───────┴──▶ paused: nothing new is taken, what runs goes on, heartbeats too
    neither, or the setting is off ────────────▶ working

The table is what the others judge by, so the node cannot overrule it (``silence``); the second is the node's own
judgement, which needs nobody's opinion (``liveness``). A node that is in no table is not paused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from relaymesh.core.mesh.silence import Patience, Status

if TYPE_CHECKING:
    from relaymesh.core.setting_table import Settings

__all__ = ["Local", "MemberRules", "why_paused"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberRules:
    """What the settings of a root say about its members."""

    patience: Patience = field(default_factory=Patience)
    pauses: bool = True
    prune_older_than_ms: int = 604_800_000
    prune_limit: int = 256
    prune_interval_ms: int = 3_600_000

    @classmethod
    def of(cls, settings: Settings) -> MemberRules:
        """Return those of these settings."""
        return cls(
            patience=Patience.of(settings),
            pauses=settings.pause_worker_when_local_not_alive,
            prune_older_than_ms=settings.mesh_prune_older_than_ms,
            prune_limit=settings.mesh_prune_limit,
            prune_interval_ms=settings.mesh_prune_interval_ms,
        )


class Local:
    """What one node knows of its own standing.

    status: its word in the member table, "" for none. cut_off: why the mesh says that it may not work, "" when it may.
    """

    def __init__(self, node_id: str) -> None:
        self.status = ""
        self.cut_off = ""
        self._node_id = node_id

    def why_paused(self, rules: MemberRules) -> str:
        """Return why its worker takes nothing, "" when it does."""
        if not rules.pauses:
            return ""
        return why_paused(self._node_id, self.status) or (
            f"the local node {self._node_id} does not trust itself: {self.cut_off}" if self.cut_off else ""
        )


def why_paused(node_id: str, status: str | None) -> str:
    """Return why a worker whose node has this word in the member table takes nothing, "" when it does."""
    if status not in (Status.SUSPECT, Status.DEAD):
        return ""
    wait = "suspectRecoverMinMs" if status == Status.SUSPECT else "deadRecoverMinMs"
    return (
        f"the local node {node_id} is {status}, because nobody heard from it for a while: it goes on by itself when"
        f" {wait} has passed since then, later if it comes and goes"
    )
