"""What a node process says about itself, in a small file that others read: ``run/<node id>.metrics``, JSON.

Only what no table knows: it counts from the start of the process. Its size is bounded by the bounds of its lists.
"""

from __future__ import annotations

import msgspec

__all__ = [
    "ACTORS_MAX",
    "AGENTS_MAX",
    "OTHERS",
    "ActorReport",
    "AgentReport",
    "Distribution",
    "MeshReport",
    "NodeReport",
    "decode_report",
    "encode_report",
]

ACTORS_MAX = 32
"""Actors by kind: all worker actors are one."""
AGENTS_MAX = 100
"""Agents that are counted by name; the rest is counted together, as ``OTHERS``."""
OTHERS = "(others)"


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """A histogram: upper bounds, values per bucket (one more, for what is above the last bound), and their sum."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


class ActorReport(msgspec.Struct, frozen=True, kw_only=True):
    """The counters of one kind of actors. waiting: messages in their mailboxes."""

    name: str
    waiting: int
    handled: int
    failed: int
    refused: int
    dropped: int
    restarts: int
    handling_s: float
    handling_s_max: float


class AgentReport(msgspec.Struct, frozen=True, kw_only=True):
    """What attempts of one agent came to, and how long they ran."""

    agent_id: str
    succeeded: int
    failed: int
    snoozed: int
    seconds: Distribution


class MeshReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a node knows of the mesh, and what went over its socket since it started.

    address: where others reach it; empty while it is not bound, and ``problem`` says why. pause: why it may not work,
    or empty. notices: why it finds nobody, or who calls in vain.
    live: other members that are not gone. lag_s: how late its loop last was. health: 0 well to 7.
    sent, received: datagrams; refused: those that changed nothing, by reason. events: suspicions, verdicts, …
    """

    address: str = ""
    problem: str = ""
    pause: str = ""
    notices: tuple[str, ...] = ()
    live: int = 0
    lag_s: float = 0.0
    health: int = 0
    sent: int = 0
    sent_bytes: int = 0
    received: int = 0
    received_bytes: int = 0
    refused: dict[str, int] = {}
    events: dict[str, int] = {}


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """One node at one moment. commits_failed: transactions that the database refused. mesh: None without gossip.

    paused: why its worker takes nothing, "" when it does. stopping: it was told to end, and waits for what runs.
    """

    node_id: str
    host: str
    pid: int
    written_at_ms: int
    actors: tuple[ActorReport, ...]
    agents: tuple[AgentReport, ...]
    slots: dict[str, int]
    commit_seconds: Distribution
    commit_writes: Distribution
    commits_failed: int
    mesh: MeshReport | None = None
    paused: str = ""
    stopping: bool = False


_DECODER = msgspec.json.Decoder(NodeReport)  # at import: relaymesh.wire.typed says why


def encode_report(report: NodeReport) -> bytes:
    """Return the text of the file."""
    return msgspec.json.encode(report)


def decode_report(data: bytes) -> NodeReport | None:
    """Return a report, None for what is none: half a file, or one of another version."""
    try:
        report = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    distributions = [report.commit_seconds, report.commit_writes, *(agent.seconds for agent in report.agents)]
    return report if all(len(d.counts) == len(d.bounds) + 1 for d in distributions) else None
