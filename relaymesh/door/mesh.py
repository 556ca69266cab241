"""The members of a root: who there is, what the dead own, and the removal of who is long gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relaymesh.argument import check_whole_number
from relaymesh.door.base import Door

if TYPE_CHECKING:
    from relaymesh.node_view import DeadOwnerRecoveryOutcome, MeshNode, MeshPruneOutcome, MeshSummaryOutcome

__all__ = ["Meshes"]

_WEEK_MS = 604_800_000


class Meshes(Door):
    """What can be asked and done about members."""

    def members(self) -> list[MeshNode]:
        """Return the members, by node id."""
        from relaymesh.membership import members

        return members(self._readable(), now_ms=self._now_ms)

    def mesh_summary(self) -> MeshSummaryOutcome:
        """Count members by status, and running steps by the status of their owner."""
        from relaymesh.membership import mesh_summary

        return mesh_summary(self._readable(), self.audit, actor=self._actor, now_ms=self._now_ms)

    def mesh_recover(self, limit: int = 128) -> DeadOwnerRecoveryOutcome:
        """Take back, at once, what dead owners run; nodes do so by themselves every second.

        limit: steps to take at most, 1 to 10,000.

        Raises:
            InputError: the limit is another; nothing was changed.
            AgentLoadError: the agents, whose retry policies count, cannot be read.
        """
        from relaymesh.membership import mesh_recover

        check_whole_number("limit", limit)
        specs = self._local_agents().specs
        outcome = mesh_recover(
            self._writable(create=False),
            self.audit,
            limit=limit,
            policies={agent_id: spec.retry for agent_id, spec in specs.items() if spec.retry is not None},
            default=self._config().retry_policy,
            actor=self._actor,
            now_ms=self._now_ms,
        )
        self._wake()
        return outcome

    def mesh_prune(self, older_than_ms: int = _WEEK_MS, limit: int = 256) -> MeshPruneOutcome:
        """Remove members that have been DEAD, or have left, for longer; those that own running steps stay.

        limit: members to remove at most, 1 to 10,000.

        Raises:
            InputError: a number is out of its range; nothing was changed.
        """
        from relaymesh.membership import mesh_prune

        check_whole_number("older_than_ms", older_than_ms)
        check_whole_number("limit", limit)
        return mesh_prune(
            self._writable(create=False),
            self.audit,
            older_than_ms=older_than_ms,
            limit=limit,
            actor=self._actor,
            now_ms=self._now_ms,
        )
