#!/usr/bin/env python3
"""Throw packets at the mesh that nobody should believe, for as long as it is told to; print one JSON summary.

Each goes the whole way of a real one: the decoder, and what it lets through into the machine of a node that runs, into
its port for events, and into a gossip tick. Nothing may raise, change what the node believes, or be answered by more
than was sent. At the end the node still has to understand a real packet. The same seed makes the same packets.
"""

import argparse
import collections
import json
import random
import sys
import time

import _scenario

NOW_MS = 1_700_000_000_000
HERE, THERE = "10.0.0.1:17888", "10.0.0.2:17888"
LABEL = "fuzz"


class Target:
    """Node b, which has proved itself to a and a to it, and a tick that listens beside it."""

    def __init__(self, seed):
        from actors.event_port import EventPort
        from relaymesh.core.mesh.event import Flood, Seen
        from relaymesh.core.mesh.member import Member, State
        from relaymesh.core.mesh.packet import Packet
        from relaymesh.core.mesh.silence import Patience
        from relaymesh.core.mesh.swim import Membership
        from relaymesh.core.mesh.tick import Tick
        from relaymesh.core.mesh.tuning import MS, Tuning
        from relaymesh.core.setting_table import Settings
        from relaymesh.wire.mesh_key import KeyRing, MeshKey
        from relaymesh.wire.mesh_packet import Opener, Sealer

        self.ring = KeyRing(MeshKey.derive("the secret of the mesh", LABEL))
        self.now_ns = 0
        self.gate_ns = 0
        self.packet = Packet
        self.nodes = {}
        for number, (name, at, seeds) in enumerate((("a", HERE, [THERE]), ("b", THERE, []))):
            me = Member(name, at, 1, 0, State.ALIVE)
            machine = Membership(me, Tuning(), random.Random(seed + number), 0, seeds)
            self.nodes[at] = (machine, Sealer(self.ring, LABEL, name), Opener(self.ring, LABEL, at))
        self.recorded = []
        self.members = []
        for _ in range(200):
            self.now_ns += 5 * MS
            for at, (machine, _, _) in self.nodes.items():
                self.carry(at, machine.wake(self.now_ns) if self.now_ns >= machine.wake_at_ns else [])
        self.machine, _, self.opener = self.nodes[THERE]
        flood = Flood("tick", THERE, 0, Seen(60_000, 4_096))
        self.tick = Tick(flood, "tick", (HERE,), 3, Patience(), random.Random(seed))
        self.port = EventPort(self.machine, Settings(), self.ring, random.Random(seed), NOW_MS)

    def carry(self, source, effects):
        todo = [(source, one) for one in effects if isinstance(one, self.packet)]
        while todo:
            source, one = todo.pop(0)
            data = self.nodes[source][1].seal(one)
            self.recorded.append((source, data))
            if one.to in self.nodes:
                machine, _, opener = self.nodes[one.to]
                opened = opener.open(self.now_ns, source, data)
                assert isinstance(opened, self.packet), opened
                todo += [
                    (one.to, made) for made in machine.receive(self.now_ns, source, opened) if type(made) is type(one)
                ]

    def state(self):
        """Return all that the node believes, and what it would tell others."""
        machine = self.machine
        peers = tuple(
            (name, peer.member, peer.shown, peer.proof, peer.proof_generation, peer.welcome)
            for name, peer in sorted(machine.view.peers.items())
        )
        news = (len(machine.rumors), machine.rumors.limit)
        heard = (len(self.tick.said), self.tick.accepted, len(self.port._beats))
        return (machine.me, machine.view.digest, tuple(machine.view.parts), machine.view.live, peers, news, heard)

    def forget_heartbeats(self):
        self.tick.said.clear()
        self.tick.accepted = 0
        self.port._beats.clear()

    def throw(self, source, data):
        """Hand one datagram in; return the verdict of the decoder, and how many bytes the answers have."""
        from relaymesh.core.mesh.packet import Kind
        from relaymesh.wire.mesh_event import parse_event, parse_heartbeat

        self.gate_ns += 10_000_000  # only the rate of one source is of another day
        opened = self.opener.open(self.gate_ns, source, data)
        if not isinstance(opened, self.packet):
            return opened.value, 0
        if opened.kind is Kind.EVENT:
            made = self.port.take(NOW_MS, source, opened, data)
            answered = sum(one.size for one in made if one.to == source)
            hops_left, packed = opened.extra
            try:
                event = parse_event(packed)
                beat = parse_heartbeat(event.body) if event.kind == 1 else None
            except ValueError:
                return "bad_event", answered
            on = self.tick.hear(NOW_MS, source, event, beat, hops_left)
            return "event", answered + sum(len(data) for to in on.to if to == source)
        made = self.machine.receive(self.now_ns, source, opened)
        return "opened", sum(one.size for one in made if isinstance(one, self.packet))


class Attacker:
    """Makes packets. Only ``insider`` knows the key of the mesh, and it has not proved who it is."""

    def __init__(self, target, rng):
        from relaymesh.wire.mesh_key import KeyRing, MeshKey

        self.target, self.rng = target, rng
        self.foreign = [
            (KeyRing(MeshKey.derive("another secret", LABEL)), LABEL),
            (KeyRing(MeshKey.derive("the secret of the mesh", "elsewhere")), "elsewhere"),
            (KeyRing(MeshKey.derive("", LABEL)), LABEL),
            (KeyRing(MeshKey(b"x" * 32, target.ring.primary.key_id)), LABEL),
        ]
        self.sequence = 1

    def source(self):
        return f"10.{self.rng.randrange(1, 250)}.{self.rng.randrange(250)}.9:{self.rng.randrange(1, 65_536)}"

    def real(self):
        return self.rng.choice(self.target.recorded)[1]

    def noise(self):
        return self.rng.randbytes(self.rng.choice((0, 1, 31, 48, 49, 200, 1_400, 1_401, 1_900)))

    def noise_with_a_head(self):
        return self.real()[:32] + self.rng.randbytes(self.rng.randrange(17, 200))

    def mutated(self):
        whole = self.real()
        bent = bytearray(whole)
        while bytes(bent) == whole:
            for _ in range(self.rng.randrange(1, 9)):
                at = self.rng.randrange(len(bent))
                how = self.rng.randrange(4)
                if how == 0:
                    bent[at] ^= 1 << self.rng.randrange(8)
                elif how == 1:
                    bent[at] = self.rng.randrange(256)
                elif how == 2:
                    bent.insert(at, self.rng.randrange(256))
                elif len(bent) > 1:
                    del bent[at]
        return bytes(bent)

    def truncated(self):
        whole = self.real()
        return whole[: self.rng.randrange(len(whole))]

    def extended(self):
        return self.real() + self.rng.randbytes(self.rng.randrange(1, 40))

    def glued(self):
        one, other = self.real(), self.real()
        cut = self.rng.randrange(1, min(len(one), len(other)))
        joined = one[:cut] + other[cut:]
        return joined if joined not in (one, other) else joined[:-1]

    def replayed(self):
        """What b has taken already; a recorded packet of b itself comes from a node with its id, so it is new."""
        mine = [data for source, data in self.target.recorded if source == HERE]
        return self.rng.choice(mine)

    def foreign_key(self):
        from relaymesh.wire.mesh_packet import Sealer

        ring, label = self.rng.choice(self.foreign)
        return Sealer(ring, label, "a").seal(self.a_packet("a"))

    def insider(self):
        """A whole packet of the right key, of a node that nobody knows, or that has the name of the target."""
        name = "b" if self.rng.random() < 0.1 else f"stranger-{self.rng.randrange(50)}"
        return self.sealed(name, self.a_packet(name))

    def insider_body(self):
        """The right key over a body that is none."""
        import msgpack

        name = f"stranger-{self.rng.randrange(50)}"
        whole = self.sealed(name, self.a_packet(name))
        body = msgpack.packb(self.junk(4)) if self.rng.random() < 0.5 else self.bent_body(whole[32:-16])
        data = whole[:32] + body[:1_300]
        return data + self.target.ring.primary.code(data)

    def insider_event(self):
        """The right key over a heartbeat that is too old, or too far ahead."""
        if self.rng.random() < 0.5:
            return self.an_event(NOW_MS - self.rng.choice((200_000, 10**9, NOW_MS - 1)))
        return self.an_event(NOW_MS + self.rng.choice((10**6, 10**12)))

    def insider_event_body(self):
        """The right key over an event that is none, or by chance still one."""
        return self.an_event(NOW_MS, bend=True)

    def an_event(self, at_ms, bend=False):
        from relaymesh.core.mesh.event import Event
        from relaymesh.core.mesh.member import Member, State
        from relaymesh.core.mesh.packet import Kind, Packet, base_bytes, extra_bytes
        from relaymesh.core.mesh.tick import Heartbeat
        from relaymesh.wire.mesh_event import pack_event, pack_heartbeat

        beat = Heartbeat(at_ms, tuple((f"n{number}", NOW_MS) for number in range(self.rng.randrange(9))))
        event = pack_event(Event("x", HERE, 0, self.rng.getrandbits(64), 1, pack_heartbeat(beat)))
        if bend:
            event = self.bent_body(event)
        me = Member("stranger", HERE, 1, 0, State.ALIVE)
        extra = (self.rng.randrange(1, 33), event)
        packet = Packet(THERE, Kind.EVENT, me, 0, 0, (), extra, base_bytes(me) + extra_bytes(Kind.EVENT, extra))
        return self.sealed("stranger", packet)

    def bent_body(self, body):
        bent = bytearray(body)
        for _ in range(self.rng.randrange(1, 6)):
            bent[self.rng.randrange(len(bent))] = self.rng.randrange(256)
        return bytes(bent)

    def junk(self, depth):
        how = self.rng.randrange(8)
        if how < 3 and depth:
            return [self.junk(depth - 1) for _ in range(self.rng.randrange(12))]
        if how == 3 and depth:
            return {self.rng.randrange(9): self.junk(depth - 1)}
        return self.rng.choice(
            (
                None,
                True,
                -1,
                0,
                2**63,
                1.5,
                "",
                "text",
                "\0",
                "ü" * 99,
                b"",
                self.rng.randbytes(8),
                self.rng.randbytes(600),
            )
        )

    def sealed(self, name, packet):
        from relaymesh.wire.mesh_packet import Sealer

        sealer = Sealer(self.target.ring, LABEL, name)
        self.sequence += 1
        sealer.sequence = self.sequence
        return sealer.seal(packet)

    def a_packet(self, name):
        from relaymesh.core.mesh.member import Member, State
        from relaymesh.core.mesh.packet import Kind, Packet, Update, base_bytes, extra_bytes, update_bytes

        rng = self.rng
        generation = rng.choice((1, 2, 2**62))
        me = Member(name, self.source(), generation, rng.choice((0, 7)), rng.choice((State.ALIVE, State.LEFT)))
        about = [
            Member(
                rng.choice(("a", "b", "c")),
                self.source(),
                rng.choice((0, 1, 2, 2**62)),
                2**32 - 1,
                rng.choice(list(State)),
            )
            for _ in range(rng.randrange(4))
        ]
        updates = tuple(Update(one, (rng.getrandbits(64),)) for one in about)
        kind = rng.choice([kind for kind in Kind if kind is not Kind.EVENT])
        extra = {
            Kind.PING: rng.choice((None, 200)),
            Kind.CHALLENGE: rng.choice((None, 200)),
            Kind.ACK: rng.choice((None, rng.getrandbits(64))),
            Kind.PING_REQ: ("a", HERE),
            Kind.SYNC: tuple(rng.getrandbits(64) for _ in range(32)),
            Kind.RECORDS: (rng.getrandbits(32), False),
            Kind.STALE: (2**62, self.source(), int(rng.choice(list(State)))),
        }.get(kind)
        size = base_bytes(me) + sum(map(update_bytes, updates)) + extra_bytes(kind, extra)
        return Packet(THERE, kind, me, rng.getrandbits(64), rng.getrandbits(64), updates, extra, size)


OUTSIDER = ("noise", "noise_with_a_head", "mutated", "truncated", "extended", "glued", "replayed", "foreign_key")
INSIDER = ("insider", "insider_body", "insider_event", "insider_event_body")


def fuzz(seed, budget_s):
    """Return the summary. It has passed unless ``message`` says something."""
    target = Target(seed)
    attacker = Attacker(target, random.Random(seed))
    thrown, verdicts = collections.Counter(), collections.Counter()
    answered = 0
    summary = {"script": "mesh_fuzz", "passed": False, "message": "", "seed": seed, "budgetSeconds": budget_s}
    before = target.state()
    until = time.monotonic() + budget_s
    while time.monotonic() < until:
        name = attacker.rng.choice(OUTSIDER + INSIDER)
        data, source = getattr(attacker, name)(), attacker.source()
        if name == "replayed" and attacker.rng.random() < 0.5:
            source = HERE
        try:
            verdict, reply_bytes = target.throw(source, data)
        except Exception as error:
            summary["message"] = f"{name}: {type(error).__name__}: {error}"
        else:
            answered += reply_bytes > 0
            if name == "insider_event_body":
                target.forget_heartbeats()  # one that was bent into another good one is rightly believed
            if name in OUTSIDER and verdict in ("opened", "event", "bad_event"):
                summary["message"] = f"{name}: was taken"
            elif reply_bytes > len(data):
                summary["message"] = f"{name}: {len(data)} bytes were answered by {reply_bytes}"
            elif target.state() != before:
                summary["message"] = f"{name}: what the node believes has changed"
            verdicts[verdict] += 1
        thrown[name] += 1
        if summary["message"]:
            summary["packet"] = data.hex()
            break
    if not summary["message"] and not still_there(target):
        summary["message"] = "a real packet was not answered any more"
    summary["passed"] = not summary["message"]
    counts = {"packets": sum(thrown.values()), "answered": answered}
    return {**summary, **counts, "thrown": dict(sorted(thrown.items())), "verdicts": dict(sorted(verdicts.items()))}


def still_there(target):
    """Whether a still gets an answer from b."""
    from relaymesh.core.mesh.packet import Kind, Packet, base_bytes

    machine, sealer, _ = target.nodes[HERE]
    ping = Packet(THERE, Kind.PING, machine.me, 7, 0, (), None, base_bytes(machine.me))
    opened = target.opener.open(target.gate_ns, HERE, sealer.seal(ping))
    if not isinstance(opened, Packet):
        return False
    return any(getattr(one, "kind", None) is Kind.ACK for one in target.machine.receive(target.now_ns, HERE, opened))


def main():
    parser = argparse.ArgumentParser(prog="mesh_fuzz", description=__doc__, allow_abbrev=False)
    parser.add_argument("--budget", type=float, default=60.0, metavar="SECONDS", help="default 60")
    parser.add_argument("--seed", type=int, default=1, help="default 1")
    options = parser.parse_args()
    summary = fuzz(options.seed, options.budget)
    print(json.dumps(summary, indent=2))
    sys.exit(0 if summary["passed"] else 1)


if __name__ == "__main__":
    _scenario.enter()
    main()
