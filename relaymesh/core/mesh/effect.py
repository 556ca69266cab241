"""What the machine asks of its shell, beside packets to send."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

from relaymesh.core.mesh.member import Member, State
from relaymesh.core.mesh.packet import Packet

__all__ = ["Changed", "Conflicted", "Effect", "HeldBack", "Proved", "Pruned", "Renewed", "Unopposed", "make_changed"]


class Changed(NamedTuple):
    """A member's state changed. member: what all agree on; shown: what counts for claims and for people.

    old: before; None for a member that was unknown.
    """

    member: Member
    shown: State
    old: State | None


# Half the price of calling the class, and this is called for every change that each node hears of.
make_changed = cast("Callable[[type[Changed], tuple[Member, State, State | None]], Changed]", tuple.__new__)


class HeldBack(NamedTuple):
    """A member has recovered, but counts as ``shown`` until its dwell time is over."""

    member: Member
    shown: State


class Proved(NamedTuple):
    """A member has proved this generation of it to this run of ours: no packet of it up to now may be taken again.

    The window of the sender is to be closed (``Opener.proved``) before the next packet is opened. Else packets that
    were recorded before this node started, which its window never saw, would be taken for late ones.
    """

    member: Member


class Renewed(NamedTuple):
    """This node's own record changed: keep its generation and version on the disk before what follows is sent."""

    member: Member


class Conflicted(NamedTuple):
    """Another live node has this node's id and the better right to it: stop claiming, and say so."""

    other: Member


class Unopposed(NamedTuple):
    """The node that this one gave way to is gone: claim again. ``Renewed``, with a generation above it, came before."""

    other: Member


class Pruned(NamedTuple):
    """Members that were forgotten."""

    members: tuple[Member, ...]


Effect = Packet | Changed | HeldBack | Proved | Renewed | Conflicted | Unopposed | Pruned
