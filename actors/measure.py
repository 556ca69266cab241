"""What a node's process counts about itself, besides its actors: commits, and attempts by agent.

The StoreActor adds to it after each commit, the ObserverActor makes a report of it. It belongs to the node, so it goes
on over a restart of either.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from actors.metrics import MetricsSnapshot
from relaymesh.core.histogram import COUNT_BOUNDS, SECOND_BOUNDS, Histogram
from relaymesh.wire.node_report import (
    ACTORS_MAX,
    AGENTS_MAX,
    OTHERS,
    ActorReport,
    AgentReport,
    Distribution,
    MeshReport,
    NodeReport,
)
from relaymesh.wire.store import FinishedStep

__all__ = ["Measures"]

_NUMBER = re.compile(r"-\d+$")


class _Agent:
    __slots__ = ("outcomes", "seconds")

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.seconds = Histogram(SECOND_BOUNDS)


class Measures:
    """See the module. Written by one thread; what another reads may be one commit behind."""

    def __init__(self) -> None:
        self._commit_seconds = Histogram(SECOND_BOUNDS)
        self._commit_writes = Histogram(COUNT_BOUNDS)
        self._commits_failed = 0
        self._agents: dict[str, _Agent] = {}

    def committed(self, spent_ns: int, writes: int, finished: Sequence[FinishedStep]) -> None:
        """Count one commit with what it carried."""
        self._commit_seconds.add(spent_ns / 1e9)
        self._commit_writes.add(writes)
        # The steps of one commit are much alike, and this runs in the thread that everybody waits for.
        alike: dict[tuple[str, str, int], int] = {}
        for step in finished:
            report = step.report
            key = step.lease.agent_id, report.kind, report.finished_at_ms - report.started_at_ms
            try:
                alike[key] += 1
            except KeyError:
                alike[key] = 1
        for (agent_id, kind, took_ms), count in alike.items():
            agent = self._agents.get(agent_id) or self._agent(agent_id)
            agent.outcomes[kind] += count
            agent.seconds.add(max(0, took_ms) / 1000, count)

    def refused(self) -> None:
        """Count one transaction that the database refused."""
        self._commits_failed += 1

    def report(
        self,
        actors: Mapping[str, MetricsSnapshot],
        slots: Mapping[str, int],
        *,
        node_id: str,
        host: str,
        pid: int,
        now_ms: int,
        mesh: MeshReport | None = None,
        paused: str = "",
        stopping: bool = False,
    ) -> NodeReport:
        """Return the report of the node. actors: by name; those that are numbered are counted together."""
        kinds: dict[str, list[MetricsSnapshot]] = {}
        for name, snapshot in actors.items():
            kinds.setdefault(_NUMBER.sub("", name), []).append(snapshot)
        return NodeReport(
            node_id=node_id,
            host=host,
            pid=pid,
            written_at_ms=now_ms,
            actors=tuple(_actor(name, kinds[name]) for name in sorted(kinds)[:ACTORS_MAX]),
            agents=tuple(
                AgentReport(
                    agent_id=agent_id,
                    succeeded=agent.outcomes["succeeded"],
                    failed=agent.outcomes["failed"],
                    snoozed=agent.outcomes["snoozed"],
                    seconds=_distribution(agent.seconds),
                )
                for agent_id, agent in sorted(self._agents.copy().items())
            ),
            slots=dict(slots),
            paused=paused,
            stopping=stopping,
            commit_seconds=_distribution(self._commit_seconds),
            commit_writes=_distribution(self._commit_writes),
            commits_failed=self._commits_failed,
            mesh=mesh,
        )

    def _agent(self, agent_id: str) -> _Agent:
        if agent_id not in self._agents and len(self._agents) >= AGENTS_MAX:
            agent_id = OTHERS
        return self._agents.setdefault(agent_id, _Agent())


def _actor(name: str, snapshots: Sequence[MetricsSnapshot]) -> ActorReport:
    return ActorReport(
        name=name,
        waiting=sum(one.depth for one in snapshots),
        handled=sum(one.handled for one in snapshots),
        failed=sum(one.failed for one in snapshots),
        refused=sum(one.refused for one in snapshots),
        dropped=sum(one.dropped for one in snapshots),
        restarts=sum(one.restarts for one in snapshots),
        handling_s=sum(one.handling_ns_total for one in snapshots) / 1e9,
        handling_s_max=max(one.handling_ns_max for one in snapshots) / 1e9,
    )


def _distribution(histogram: Histogram) -> Distribution:
    return Distribution(bounds=histogram.bounds, counts=tuple(histogram.counts), total=histogram.total)
