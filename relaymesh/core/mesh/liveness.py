"""Whether this node may work, judged by fresh echoes of others and not by its own heartbeat.

A node that is cut off cannot see that the others hold it dead. But it sees that nobody answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from relaymesh.core.mesh.tuning import MS, SECOND
from relaymesh.core.plural import verb

__all__ = ["LAG_NS_MAX", "Evidence", "Mode", "Verdict", "judge"]

LAG_NS_MAX = 2 * SECOND


class Mode(Enum):
    """SOLO: no peers are configured. ANY: somebody answers. MAJORITY: more than half of the voters answer."""

    SOLO = "solo"
    ANY = "any"
    MAJORITY = "majority"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known at an instant.

    echoes_ns: when each of the others (MAJORITY: of the other voters) last answered; -1 for never.
    voters: all of them, this node included. since_ns: when the mesh was started; nobody can have answered before.
    lag_ns: how late the loop of the mesh runs. disk_ok, clock_ok: what the other gates say.
    """

    now_ns: int
    mode: Mode
    echoes_ns: Iterable[int]
    voters: int
    since_ns: int
    fresh_ns: int
    lag_ns: int = 0
    disk_ok: bool = True
    clock_ok: bool = True
    replaced_by: str = ""


@dataclass(frozen=True)
class Verdict:
    """alive: may this node work? reason: one sentence for people when not, else empty."""

    alive: bool
    reason: str = ""


def judge(evidence: Evidence) -> Verdict:
    """Return whether this node may work, and if not, why."""
    if evidence.replaced_by:
        return Verdict(
            False,
            f"another live node has this node id, at {evidence.replaced_by}: give this one another with --node-id; it"
            " goes on by itself when that one has been silent for deadAfterMs",
        )
    if evidence.lag_ns > LAG_NS_MAX:
        return Verdict(False, f"the mesh loop runs {evidence.lag_ns // MS} ms late: the machine is overloaded")
    if not evidence.disk_ok:
        return Verdict(False, "the disk of the data root is full or fails")
    if not evidence.clock_ok:
        return Verdict(False, "the clock differs too much from the other nodes'")
    if evidence.mode is Mode.SOLO:
        return Verdict(True)
    oldest_ns = evidence.now_ns - evidence.fresh_ns
    if evidence.mode is Mode.ANY:
        heard = any(at >= 0 and at >= oldest_ns for at in evidence.echoes_ns)
        if heard or evidence.since_ns >= oldest_ns:
            return Verdict(True)
        return Verdict(False, f"no other node has answered for {evidence.fresh_ns // SECOND} s: it is cut off")
    fresh = 1 + sum(1 for at in evidence.echoes_ns if at >= 0 and at >= oldest_ns)
    if 2 * fresh > evidence.voters:
        return Verdict(True)
    answer = verb(fresh, "answers", "answer")
    return Verdict(False, f"only {fresh} of {evidence.voters} voters {answer}: more than half are needed")
