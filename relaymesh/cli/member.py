"""The commands about members: who there is, what the dead own, and the removal of who is long gone."""

from __future__ import annotations

import click

from relaymesh.cli.call import Call, pass_call
from relaymesh.cli.option import WholeNumber, command

__all__ = ["members", "mesh_prune", "mesh_recover", "mesh_summary"]


@command("members", example="relaymesh members")
@pass_call
def members(call: Call) -> None:
    """A node is SUSPECT after a while without a heartbeat, DEAD after a longer one, and LEFT once it has ended in
    order.
    """
    with call.client() as client:
        call.show(client.members(), empty="no node has ever run here; `relaymesh up` starts one")


@command("mesh-summary", example="relaymesh mesh-summary")
@pass_call
def mesh_summary(call: Call) -> None:
    with call.client() as client:
        call.show(client.mesh_summary())


@command("mesh-recover", example="relaymesh mesh-recover --limit 1000")
@click.option("--limit", type=WholeNumber(min=1), default=128, help="At most this many steps; up to 10,000.")
@pass_call
def mesh_recover(call: Call, limit: int) -> None:
    """Running nodes do so by themselves, every second. Steps of a node that is ALIVE are never taken."""
    with call.client() as client:
        call.show(client.mesh_recover(limit))


@command("mesh-prune", example="relaymesh mesh-prune --older-than-ms 86400000")
@click.option("--older-than-ms", type=WholeNumber(min=0), default=604_800_000, help="Gone for longer than this.")
@click.option("--limit", type=WholeNumber(min=1), default=256, help="At most this many members; up to 10,000.")
@pass_call
def mesh_prune(call: Call, older_than_ms: int, limit: int) -> None:
    """Members that still own running steps stay. A node that comes back is a member again, with a later generation."""
    with call.client() as client:
        call.show(client.mesh_prune(older_than_ms, limit))
