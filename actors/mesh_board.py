"""What the mesh lets the rest of the node know: replaced as a whole by the GossipActor, read by anybody.

    GossipActor ──every second──▶ MeshBoard ◀── may this node work? (``verdict``)      ◀── report of the node, health

``verdict`` is that of ``relaymesh.core.mesh.liveness``: fresh echoes of others, lag of the loop, and whether another
live node has this node's id. Without a mesh nobody says that a node may not work.
"""

from __future__ import annotations

from relaymesh.core.mesh.liveness import Verdict
from relaymesh.wire.node_report import MeshReport

__all__ = ["MeshBoard"]


class MeshBoard:
    """See the module. problem: why there is no socket, or empty. address: where others reach it, or empty."""

    def __init__(self) -> None:
        self.verdict = Verdict(True)
        self.address = ""
        self.problem = ""
        self.report = MeshReport()
