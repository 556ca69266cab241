"""Membership of a mesh, sans-IO: who is there, who is gone, and what to tell whom.

packet, source ──▶ swim.Membership.receive ──▶ packets to send, changes to act on
wake_at_ns is due ──▶ swim.Membership.wake ──┘

member.py      what all nodes agree on about one member, and which of two opinions wins
packet.py      what travels, and how many bytes it takes
tuning.py      intervals and limits
peer.py        what this node alone knows about one member: evidence, proof, dwell times
view.py        the table of members with its digests
rumor.py       news that wait to be passed on
suspicion.py   how long a suspect may answer
health.py      how far this node trusts its own judgement
proof.py       who really is where it says: echoes of nonces
sync.py        repairing what the news missed
repair.py      when views are compared, and how much is answered to whom
probe.py       asking one member after another
upkeep.py      joining, looking for who came back, asking for others
outbox.py      the packets of one node
swim.py        the machine that puts these together
exchange.py    a question and its answer as one step, for simulations
window.py      which packets were seen before        guard.py   what is dropped before it is parsed
hint.py        where somebody may be found, unproven      label.py      which mesh a node belongs to
placement.py   who of several nodes does one thing   liveness.py  whether this node may work
event.py       news over several hops                  tick.py    a process that says it is there, listens, and ends
seed.py        where to look first, as it is written   key_seen.py  who holds and uses which key
local.py       whether the worker of a node may take steps
silence.py     the same by heartbeats alone: for commands that gossip once, and as ceilings of the machine's verdicts
"""
