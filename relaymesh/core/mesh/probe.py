"""Asking one member after another whether it is there.

    IDLE ──due──▶ DIRECT: PING ──timeout──▶ INDIRECT: others are asked to ask ──timeout──▶ SUSPECT, IDLE
      ▲            │  └─again─┘                 │  └─PING again─┘                                  │
      └────── end of interval ◀── ANSWERED ◀────┘ an echo of the nonce        end of interval ◀────┘

The question is repeated while the answer is missing, four times in each timeout, but no sooner than a usual answer
takes: a network that loses packets is told from a node that is gone by asking, and not by accusing.

Source: SWIM (Das, Gupta, Motivala 2002), section 3; the interval grows with the local health, as in Lifeguard.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from relaymesh.core.mesh.health import Health
from relaymesh.core.mesh.member import Member
from relaymesh.core.mesh.peer import Peer
from relaymesh.core.mesh.tuning import Tuning

__all__ = ["QUESTIONS", "Probe", "Stage", "pace_ns"]


class Stage(Enum):
    IDLE = 0
    DIRECT = 1
    INDIRECT = 2
    ANSWERED = 3


_DIRECT: Final = Stage.DIRECT
_ANSWERED: Final = Stage.ANSWERED
QUESTIONS: Final = 4
"""In each of the two timeouts. At 30 % loss one question is answered with 49 %: of eight, all but 0.5 % of probes."""
_ROUND_TRIPS: Final = 2
"""So many usual round trips pass before a question is repeated."""


def pace_ns(timeout_ns: int, rtt_ns: int) -> int:
    """Return how long an answer may take before the question is repeated; rtt_ns: the usual time, -1 is not known."""
    return max(timeout_ns // QUESTIONS, _ROUND_TRIPS * rtt_ns)


class Probe:
    """The one probe that a node has running.

    due_ns: when it goes on: with the question once more, or its next stage; others_ns: when others are asked;
    verdict_ns: when a missing answer counts; end_ns: when the next member of the round is due. nonce: 0 when no answer
    is waited for. began_ns: when it was asked first. repeated: more than once since. record: what was held of it then.
    """

    __slots__ = (
        "_health",
        "_pace_ns",
        "asked",
        "began_ns",
        "due_ns",
        "end_ns",
        "nacks",
        "nonce",
        "others_ns",
        "peer",
        "record",
        "repeated",
        "stage",
        "tuning",
        "verdict_ns",
    )

    def __init__(self, tuning: Tuning, health: Health, due_ns: int) -> None:
        self.tuning = tuning
        self._health = health
        self.due_ns = due_ns
        self.end_ns = due_ns
        self.others_ns = due_ns
        self.verdict_ns = due_ns
        self.began_ns = due_ns
        self.repeated = False
        self._pace_ns = 0
        self.stage = Stage.IDLE
        self.peer: Peer | None = None
        self.record: Member | None = None
        self.nonce = 0
        self.asked = 0
        self.nacks = 0

    def begin(self, now_ns: int, peer: Peer, nonce: int, *, between: bool = False) -> None:
        """Ask a member. between: beside the round, which goes on when it would have anyway."""
        factor = self._health.score + 1
        self.stage = _DIRECT
        self.peer = peer
        self.record = peer.member
        self.nonce = nonce
        self.asked = self.nacks = 0
        self.began_ns = now_ns
        timeout_ns = self.tuning.probe_timeout_ns * factor
        self.repeated = False
        self._pace_ns = pace_ns(timeout_ns, peer.rtt_ns)
        self.others_ns = now_ns + timeout_ns
        self.verdict_ns = self.others_ns + timeout_ns
        self.due_ns = min(now_ns + self._pace_ns, self.others_ns)
        if not between:
            self.end_ns = now_ns + self.tuning.probe_interval_ns * factor

    def rest(self, now_ns: int) -> None:
        """There is nobody to ask."""
        self.stage = Stage.IDLE
        self.peer = None
        self.nonce = 0
        self.due_ns = now_ns + self.tuning.probe_interval_ns

    @property
    def stage_end_ns(self) -> int:
        """Until when an answer is waited for in this stage."""
        return self.others_ns if self.stage is _DIRECT else self.verdict_ns

    def ask_again(self, now_ns: int) -> None:
        """The question is repeated."""
        self.repeated = True
        self.due_ns = min(now_ns + self._pace_ns, self.stage_end_ns)

    def ask_others(self, now_ns: int, asked: int) -> None:
        """Others are asked to ask, beside the question once more."""
        self.stage = Stage.INDIRECT
        self.asked = asked
        self.ask_again(now_ns)

    def answered(self, now_ns: int) -> None:
        health = self._health
        if health.score or health.failures:
            health.succeeded()
        self.stage = _ANSWERED
        self.nonce = 0
        self.due_ns = self.end_ns if self.end_ns > now_ns else now_ns

    def missed(self) -> None:
        """Nobody has answered. Who of the helpers did not even say so tells of this node rather than of the member."""
        if self.nacks == 0:
            self._health.worse()
        self.stage = Stage.IDLE
        self.nonce = 0
        self.due_ns = max(self.end_ns, self.verdict_ns)

    def outlived(self) -> bool:
        """Whether the member has renewed its record since it was asked: then others have heard it meanwhile."""
        if self.peer is None or self.record is None:
            return False
        now, then = self.peer.member, self.record
        return (now.generation, now.version) > (then.generation, then.version)

    def abandon(self, now_ns: int) -> None:
        """Start anew: this node did not run, so the missing answer says nothing."""
        self.stage = Stage.IDLE
        self.peer = None
        self.nonce = 0
        self.due_ns = now_ns
