"""What this node alone knows about one member: evidence, proof, and the state that it acts on.

The state that counts for claims and for people (``shown``) follows the common one to the worse at once, to the better
only after a dwell time, which grows for a member that flaps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from relaymesh.core.mesh.member import BUCKETS, Member, State, id_hash
from relaymesh.core.mesh.tuning import NEVER_NS, SECOND

if TYPE_CHECKING:
    from relaymesh.core.mesh.suspicion import Suspicion

__all__ = ["Peer"]

_HALF_LIFE_NS: Final = 60 * SECOND
_SCORE_UNIT: Final = 1000
_CALM: Final = 3 * _SCORE_UNIT
_DWELL_FACTOR_MAX: Final = 8
_ALIVE: Final = State.ALIVE
_SUSPECT: Final = State.SUSPECT
_DEAD: Final = State.DEAD
_LEFT: Final = State.LEFT


class Peer:
    """One member of the view.

    proof: address at which it has proved its proof_generation, or "". heard_ns: last packet of it after its proof.
    echo_ns: when it last answered a packet of ours, -1 for never. rtt_ns: smoothed time of its answers to probes, -1
    while none is known. welcome: its generation that has taken our proof, -1 for none. shown_due_ns: when the shown
    state becomes ALIVE again, unless something happens.
    """

    __slots__ = (
        "_flaps",
        "bucket",
        "echo_ns",
        "heard_ns",
        "member",
        "proof",
        "proof_generation",
        "rtt_ns",
        "shown",
        "shown_due_ns",
        "shown_since_ns",
        "suspicion",
        "welcome",
    )

    def __init__(self, member: Member, now_ns: int) -> None:
        self.member = member
        self.bucket = id_hash(member.node_id) % BUCKETS
        self.proof = ""
        self.proof_generation = -1
        self.heard_ns = -1
        self.echo_ns = -1
        self.rtt_ns = -1
        self.welcome = -1
        self.suspicion: Suspicion | None = None
        self.shown = member.state
        self.shown_since_ns = now_ns
        self.shown_due_ns = NEVER_NS
        self._flaps: tuple[int, int] | None = None  # score, when

    def answered_in(self, took_ns: int) -> None:
        """It has answered a probe; the eighth part of the news counts, as in TCP."""
        self.rtt_ns = took_ns if self.rtt_ns < 0 else (7 * self.rtt_ns + took_ns) // 8

    def follow(self, now_ns: int, suspect_dwell_ns: int, dead_dwell_ns: int) -> bool:
        """Let the shown state follow the common one; return whether it is held back now.

        While it is held back, ``shown_due_ns`` says until when.
        """
        state = self.member.state
        if state is not _ALIVE:
            self.shown_due_ns = NEVER_NS
            # A refuted DEAD that is suspected again stays DEAD for the rest of its dwell time.
            if state > self.shown or (state is _DEAD and self.shown is _LEFT):
                self.shown = state
                self.shown_since_ns = now_ns
            return False
        if self.shown is _ALIVE:
            return False
        dwell = suspect_dwell_ns if self.shown is _SUSPECT else dead_dwell_ns
        due = self.shown_since_ns + dwell * self._dwell_factor(now_ns)
        if self.shown is _LEFT or now_ns >= due:
            self._flaps = (self._decayed(now_ns) + _SCORE_UNIT, now_ns)
            self.shown = _ALIVE
            self.shown_since_ns = now_ns
            self.shown_due_ns = NEVER_NS
            return False
        self.shown_due_ns = due
        return True

    def _dwell_factor(self, now_ns: int) -> int:
        above = self._decayed(now_ns) - _CALM
        return 1 if above <= 0 else min(_DWELL_FACTOR_MAX, 1 << -(-above // _SCORE_UNIT))

    def _decayed(self, now_ns: int) -> int:
        if self._flaps is None:
            return 0
        score, at_ns = self._flaps
        halvings, rest = divmod(now_ns - at_ns, _HALF_LIFE_NS)
        left = score >> min(halvings, 32)
        return left - left * rest // (2 * _HALF_LIFE_NS)
