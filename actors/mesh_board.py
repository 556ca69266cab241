"""What the mesh lets the rest of the node know: replaced as a whole by the GossipActor, read by anybody.

    GossipActor ──every second──▶ MeshBoard ◀── may this node work? (``verdict``)      ◀── report of the node, health
                                      └──when it is news──▶ the report of the node is written at once

``verdict`` is that of ``relaymesh.core.mesh.liveness``: fresh echoes of others, lag of the loop, and whether another
live node has this node's id. Without a mesh nobody says that a node may not work.
"""

from __future__ import annotations

from collections.abc import Callable

from relaymesh.core.mesh.liveness import Verdict
from relaymesh.wire.node_report import MeshReport

__all__ = ["MeshBoard"]


class MeshBoard:
    """See the module. problem: why there is no socket, or empty. address: where others reach it, or empty.

    on_news: called in the thread of the GossipActor when the report says something that people wait for.
    on_verdict: the same for each change of the verdict; where to be told whether the node may work.
    """

    def __init__(
        self,
        on_news: Callable[[], object] = lambda: None,
        on_verdict: Callable[[Verdict], object] = lambda _: None,
    ) -> None:
        self.address = ""
        self.problem = ""
        self._on_news = on_news
        self._on_verdict = on_verdict
        self._report = MeshReport()
        self._verdict = Verdict(True)

    @property
    def verdict(self) -> Verdict:
        """Whether this node may work, and if not, why: read by anybody, at any time."""
        return self._verdict

    @verdict.setter
    def verdict(self, verdict: Verdict) -> None:
        former, self._verdict = self._verdict, verdict
        if former != verdict:
            self._on_verdict(verdict)

    @property
    def report(self) -> MeshReport:
        """What the node says about its mesh in its report."""
        return self._report

    @report.setter
    def report(self, report: MeshReport) -> None:
        former, self._report = self._report, report
        if _news(former) != _news(report):
            self._on_news()


def _news(report: MeshReport) -> tuple[object, ...]:
    return (report.address, report.problem, report.pause, report.notices, report.live)
