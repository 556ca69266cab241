"""Taking opinions of others in: which are news, which start or confirm a doubt, which are about this node.

about us, alive in a later generation elsewhere ──▶ Conflicted        about us otherwise ──▶ refute: version + 1
about us, gone in a later generation ──▶ a generation above that; Unopposed, if we had given way to it
older than what is held ──▶ nothing       newer ──▶ held, passed on
DEAD about a member that seems alive here ──▶ SUSPECT first: it gets the shortest time to refute
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from relaymesh.core.mesh.effect import Changed, Conflicted, Effect, HeldBack, Pruned, Renewed, Unopposed, make_changed
from relaymesh.core.mesh.health import Health
from relaymesh.core.mesh.member import Member, State, id_hash
from relaymesh.core.mesh.namesake import Namesake
from relaymesh.core.mesh.packet import Update, make_update
from relaymesh.core.mesh.peer import Peer
from relaymesh.core.mesh.rumor import Rumors, transmit_limit
from relaymesh.core.mesh.suspicion import Suspicion
from relaymesh.core.mesh.tuning import NEVER_NS, Tuning
from relaymesh.core.mesh.view import View

__all__ = ["GENERATION_MAX", "VERSION_MAX", "Opinions"]

VERSION_MAX: Final = (1 << 32) - 1
GENERATION_MAX: Final = (1 << 63) - 1
_ALIVE: Final = State.ALIVE
_SUSPECT: Final = State.SUSPECT
_DEAD: Final = State.DEAD


class Opinions:
    """What this node thinks of all members, itself included.

    due_ns: when ``settle`` has something to do. counts: refutations, suspicions, verdicts, recoveries held back,
    opinions of others that were merged, … namesake: the other node of this one's id.
    """

    __slots__ = (
        "_health",
        "_held_back",
        "_peers",
        "_suspects",
        "counts",
        "due_ns",
        "namesake",
        "rumors",
        "tuning",
        "view",
    )

    def __init__(self, view: View, rumors: Rumors, health: Health, tuning: Tuning) -> None:
        self.view = view
        self.rumors = rumors
        self.counts: Counter[str] = Counter()
        self.namesake = Namesake()
        self.due_ns = NEVER_NS
        self._health = health
        self.tuning = tuning
        self._peers = view.peers
        self._suspects: dict[str, Peer] = {}
        self._held_back: dict[str, Peer] = {}

    @property
    def conflict(self) -> Member | None:
        """The live node that has this one's id and the better right to it; None for none."""
        return self.namesake.other

    def hear(self, now_ns: int, update: Update, out: list[Effect], *, proven_self: bool = False) -> Peer | None:
        """Take one opinion in; return the member that it is about, if that is another node that is known.

        proven_self: the member itself says so, and has proved who it is.
        """
        theirs, accusers = update
        node_id = theirs.node_id
        peer = self._peers.get(node_id)
        if peer is None:
            if node_id == self.view.me.node_id:
                self._about_me(now_ns, theirs, out)
                return None
            return self._unknown(now_ns, update, out, proven_self)
        ours = peer.member
        if theirs is ours:
            if accusers:
                self._accuse(peer, accusers)
            return peer
        if theirs.order <= ours.order:
            if theirs.order == ours.order:
                if theirs.address < ours.address:
                    self.counts["merged"] += 1
                    self._adopt(now_ns, peer, make_update(Update, (theirs, ())), out)
                elif accusers:
                    self._accuse(peer, accusers)
            return peer
        state = theirs.state
        if state is _SUSPECT:
            self.counts["merged"] += 1
            self._adopt(now_ns, peer, update, out)
            self.view.ask_soon(peer)
        elif state is not _DEAD or self._believe(now_ns, peer, update, out):
            self.counts["merged"] += 1
            self._adopt(now_ns, peer, make_update(Update, (theirs, ())) if accusers else update, out)
        return peer

    def suspect(self, now_ns: int, peer: Peer, out: list[Effect]) -> None:
        """This node's own probe of the member failed."""
        accuser = (id_hash(self.view.me.node_id),)
        if peer.member.state is _ALIVE:
            self.counts["suspicions"] += 1
            self._adopt(now_ns, peer, Update(peer.member.but(State.SUSPECT), accuser), out)
        elif peer.member.state is _SUSPECT:
            self._accuse(peer, accuser)

    def accusation(self, peer: Peer) -> Update:
        """Return what is held against a member, to be told to it."""
        return Update(peer.member, peer.suspicion.accusers if peer.suspicion else ())

    def settle(self, now_ns: int, out: list[Effect]) -> None:
        """Do what is due: verdicts about suspects, and recoveries whose dwell time is over."""
        due_ns = NEVER_NS
        frozen = self._health.frozen(now_ns)
        for peer in list(self._suspects.values()):
            suspicion = peer.suspicion
            assert suspicion is not None
            deadline = suspicion.deadline_ns
            if frozen and now_ns >= deadline:
                deadline = max(deadline, suspicion.started_ns + self.tuning.dead_after_ns)
                if now_ns < deadline:
                    due_ns = min(due_ns, now_ns + self.tuning.probe_interval_ns, deadline)
                    continue
            if now_ns >= deadline:
                self.counts["verdicts"] += 1
                self._adopt(now_ns, peer, make_update(Update, (peer.member.but(_DEAD), ())), out)
            else:
                due_ns = min(due_ns, deadline)
        for peer in list(self._held_back.values()):
            if now_ns >= peer.shown_due_ns:
                self._show(now_ns, peer, peer.member.state, out)
            if peer.shown_due_ns != NEVER_NS:
                due_ns = min(due_ns, peer.shown_due_ns)
        self.due_ns = due_ns

    def stood_still(self, by_ns: int) -> None:
        """Move all verdicts: nobody was heard while this node did not run."""
        for peer in self._suspects.values():
            assert peer.suspicion is not None
            peer.suspicion.shift(by_ns)
        self.namesake.stood_still(by_ns)

    def renew(self, member: Member, out: list[Effect]) -> None:
        """Change this node's own record."""
        self.view.me = member
        out.append(Renewed(member))
        self.rumors.put(Update(member))

    def prune(self, now_ns: int, older_than_ns: int, limit: int, out: list[Effect]) -> int:
        """Forget members that have been gone for so long; return how many."""
        pruned = self.view.prune(now_ns, older_than_ns, limit)
        for member in pruned:
            self.rumors.drop(member.node_id)
            self._held_back.pop(member.node_id, None)
        if pruned:
            self.counts["pruned"] += len(pruned)
            out.append(Pruned(tuple(pruned)))
        return len(pruned)

    def _unknown(self, now_ns: int, update: Update, out: list[Effect], proven_self: bool) -> Peer | None:
        theirs = update.member
        if theirs.gone:
            return None  # nothing to tell it from a member that was pruned
        if self.view.buried(theirs):
            if not proven_self:
                return None
            self.view.dig_up(theirs)
        if len(self.view.peers) >= self.tuning.members_max - 1:
            self.counts["refused"] += 1
            return None
        self.counts["merged"] += 1
        peer = self.view.add(theirs, now_ns)
        self.rumors.limit = transmit_limit(self.view.live + 1)
        if theirs.state is State.SUSPECT:
            self._doubt(now_ns, peer, update.accusers)
        self.rumors.put(update)
        out.append(Changed(theirs, peer.shown, None))
        return peer

    def _believe(self, now_ns: int, peer: Peer, update: Update, out: list[Effect]) -> bool:
        """Whether a report of death counts now; if not, it is a doubt that soon becomes one."""
        ours, theirs = peer.member, update.member
        if ours.gone:
            return True
        doubted = peer.suspicion is not None and (ours.generation, ours.version) == (theirs.generation, theirs.version)
        if doubted:
            assert peer.suspicion is not None
            if now_ns >= peer.suspicion.settled_ns:
                return True
        else:
            self._adopt(now_ns, peer, Update(theirs.but(_SUSPECT), update.accusers), out)
            assert peer.suspicion is not None
        peer.suspicion.reported_dead()
        self.due_ns = min(self.due_ns, peer.suspicion.deadline_ns)
        return False

    def _accuse(self, peer: Peer, accusers: tuple[int, ...]) -> None:
        suspicion = peer.suspicion
        if suspicion is not None and accusers is not suspicion.accusers and suspicion.confirm(accusers):
            self.due_ns = min(self.due_ns, suspicion.deadline_ns)
            self.rumors.put(Update(peer.member, suspicion.accusers))

    def _doubt(self, now_ns: int, peer: Peer, accusers: tuple[int, ...]) -> None:
        peer.suspicion = Suspicion(
            now_ns,
            accusers,
            members=self.view.live + 1,
            interval_ns=self.tuning.probe_interval_ns,
            ceiling_ns=self.tuning.dead_after_ns,
        )
        self._suspects[peer.member.node_id] = peer
        self.due_ns = min(self.due_ns, peer.suspicion.deadline_ns)

    def _adopt(self, now_ns: int, peer: Peer, update: Update, out: list[Effect]) -> None:
        member, accusers = update
        old = peer.member
        if self.view.replace(peer, member):
            self.rumors.limit = transmit_limit(self.view.live + 1)
        if peer.suspicion is not None:
            peer.suspicion = None
            del self._suspects[member.node_id]
        if member.state is _SUSPECT:
            self._doubt(now_ns, peer, accusers)
        self.rumors.put(update)
        started = old.generation != member.generation
        if started:
            # What it has proved it has proved in its former run: a packet of that may be an old one.
            peer.proof = ""
            peer.proof_generation = -1
        self._show(now_ns, peer, old.state, out, generation_changed=started)

    def _show(
        self, now_ns: int, peer: Peer, old: State, out: list[Effect], *, generation_changed: bool = False
    ) -> None:
        old_shown = peer.shown
        member = peer.member
        if peer.follow(now_ns, self.tuning.suspect_dwell_ns, self.tuning.dead_dwell_ns):
            if member.node_id not in self._held_back:
                self.counts["held_back"] += 1
                out.append(HeldBack(member, peer.shown))
            self._held_back[member.node_id] = peer
            if peer.shown_due_ns < self.due_ns:
                self.due_ns = peer.shown_due_ns
        elif self._held_back:
            self._held_back.pop(member.node_id, None)
        if member.state is not old or peer.shown is not old_shown or generation_changed:
            out.append(make_changed(Changed, (member, peer.shown, old)))

    def rise_above(self, generation: int, out: list[Effect]) -> None:
        """Take the next generation: that one of this node's id is gone. Nothing is above ``GENERATION_MAX``."""
        me = self.view.me
        if generation >= GENERATION_MAX or me.state is State.LEFT:
            return
        self.renew(Member(me.node_id, me.address, generation + 1, 0, State.ALIVE), out)
        other = self.namesake.forget()
        if other is not None:
            self.counts["successions"] += 1
            out.append(Unopposed(other))

    def _about_me(self, now_ns: int, theirs: Member, out: list[Effect]) -> None:
        me, rival = self.view.me, self.namesake.other
        if me.state is State.LEFT or theirs.generation < me.generation:
            return
        if rival is not None and theirs.generation < rival.generation:
            return  # of before the one that we gave way to
        elsewhere = theirs.address != me.address
        if theirs.generation > me.generation:
            if theirs.state.gone or not elsewhere:
                # Not elsewhere: an earlier run of this node, of which nothing was kept on the disk.
                self.rise_above(theirs.generation, out)
            else:
                self._yield_to(now_ns, theirs, out)
        elif elsewhere and theirs.state is State.ALIVE:
            if theirs.address < me.address:
                self._yield_to(now_ns, theirs, out)
        elif rival is not None and theirs.address == rival.address:
            # Of equal generations: whether it lives is not for us to refute.
            if theirs.state.gone:
                self.rise_above(theirs.generation, out)
            else:
                self._yield_to(now_ns, theirs, out)
        elif theirs.version < VERSION_MAX and (theirs.version, theirs.state) > (me.version, State.ALIVE):
            self.counts["refutations"] += 1
            if theirs.state is not State.ALIVE:
                self._health.worse()
            self.renew(Member(me.node_id, me.address, me.generation, theirs.version + 1, State.ALIVE), out)

    def _yield_to(self, now_ns: int, other: Member, out: list[Effect]) -> None:
        if self.namesake.lives(now_ns, other):
            self.counts["conflicts"] += 1
            out.append(Conflicted(other))
