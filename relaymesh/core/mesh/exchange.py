"""A question and its answer between two nodes as one step: for simulations, where it must be exact.

    PING ──▶ answerer: heard the asker        ACK ──▶ asker: was answered, heard the answerer

That is all that a PING and its ACK do when each node has proved itself to the other, each holds the very record that
the other has of itself, neither has news to pass on, their views have equal digests, and the answer comes before the
asker asks again. Then neither packet has anything in it that depends on the time of its sending, and all they
leave behind are times, the end of the probe, and a point of health. Who calls this answers for three things: nobody has
news, and all views are equal; the packets will arrive at these times; and until then neither node hears news, changes
its view, stops or is stopped. See ``chaos/sim/quiet.py``. What the two nodes know of each other is looked at here.
"""

from __future__ import annotations

from typing import Final

from relaymesh.core.mesh.peer import Peer
from relaymesh.core.mesh.probe import QUESTIONS, Stage, pace_ns
from relaymesh.core.mesh.swim import Membership

__all__ = ["exchange"]

_ANSWERED: Final = Stage.ANSWERED


def exchange(asker: Membership, peer: Peer, answerer: Membership, now_ns: int, asked_ns: int, answered_ns: int) -> int:
    """Let a member that ``ask_next`` has returned be asked now and answer; return how many bytes that took.

    asked_ns, answered_ns: when PING and ACK arrive, on the clocks of the nodes that they arrive at. Returns 0, and has
    done nothing, when the two packets would say more than themselves, or the answer would come too late.
    """
    outbox, health, tuning = asker.outbox, asker.health, asker.tuning
    theirs, me = peer.member, outbox.me
    back = answerer.view.peers.get(me.node_id)
    took_ns = answered_ns - now_ns
    timeout_ns, interval_ns = tuning.probe_timeout_ns, tuning.probe_interval_ns
    unwell = health.score or health.failures
    if unwell:
        timeout_ns *= health.score + 1
        interval_ns *= health.score + 1
    if (
        back is None
        or back.member is not me
        or theirs is not answerer.outbox.me
        # The same text as in the record, or it is not worth a look.
        or peer.proof is not theirs.address
        or back.proof is not me.address
        or peer.proof_generation != theirs.generation
        or back.proof_generation != me.generation
        or (took_ns >= timeout_ns // QUESTIONS and took_ns >= min(timeout_ns, pace_ns(timeout_ns, peer.rtt_ns)))
    ):
        return 0
    if peer.welcome == theirs.generation:
        size = outbox.welcome_bytes
    else:
        size = outbox.ping_bytes(peer)
        peer.welcome = peer.proof_generation
    outbox.nonce()  # of the question
    # Two that ask each other at the same time are done one after the other.
    if back.heard_ns < asked_ns:
        back.heard_ns = asked_ns
    if peer.heard_ns < answered_ns:
        peer.heard_ns = answered_ns
    # Other answers have come before now: those to questions beside the probe are not done ahead.
    peer.echo_ns = asker.last_echo_ns = answered_ns
    rtt_ns = peer.rtt_ns
    peer.rtt_ns = took_ns if rtt_ns < 0 else (7 * rtt_ns + took_ns) // 8
    # As ``begin``, ``answered`` and ``plan``, without the calls.
    if unwell:
        health.succeeded()
    probe, due_ns = asker.probe, now_ns + interval_ns
    probe.stage = _ANSWERED
    probe.due_ns = probe.end_ns = due_ns
    asker.wake_at_ns = due_ns if due_ns < asker.other_due_ns else asker.other_due_ns
    return size + answerer.outbox.base_bytes
