"""What the machine asks of its shell, beside packets to send."""

from __future__ import annotations

from typing import NamedTuple

from relaymesh.core.mesh.member import Member, State
from relaymesh.core.mesh.packet import Packet

__all__ = ["Changed", "Conflicted", "Effect", "HeldBack", "Pruned", "Renewed"]


class Changed(NamedTuple):
    """A member's state changed. member: what all agree on; shown: what counts for claims and for people.

    old, old_shown: before; None for a member that was unknown.
    """

    member: Member
    shown: State
    old: State | None
    old_shown: State | None


class HeldBack(NamedTuple):
    """A member has recovered, but counts as ``shown`` until its dwell time is over."""

    member: Member
    shown: State


class Renewed(NamedTuple):
    """This node's own record changed: keep its generation and version on the disk before what follows is sent."""

    member: Member


class Conflicted(NamedTuple):
    """Another live node has this node's id and the better right to it: stop claiming, and say so."""

    other: Member


class Pruned(NamedTuple):
    """Members that were forgotten."""

    members: tuple[Member, ...]


Effect = Packet | Changed | HeldBack | Renewed | Conflicted | Pruned
