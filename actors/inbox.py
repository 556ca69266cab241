"""InboxActor: takes in files that programs hand in, and puts the answers beside them.

What to do with a file is decided in ``relaymesh.core.inbox``, and done by ``relaymesh.inbox``. This actor brings the
time, as ``relaymesh.core.look`` says: a look four times a second, which costs one stat a lane; everything else in
pieces of 500 files, two of them on their way to the StoreActor at a time. When the disk refuses, it rests for a second.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, assert_never

from actors.address import Address
from actors.base import Actor
from actors.reply import Reply
from actors.store_needs import NodeFacts
from actors.timer import Timers
from relaymesh.audit import AuditTrail
from relaymesh.core.ident import Ids
from relaymesh.core.look import INBOX_LOOK_NS, InboxLook, InboxLooks
from relaymesh.errors import ActorError, RelayMeshError
from relaymesh.inbox.intake import Batch, Intake
from relaymesh.inbox_gate import InboxGate
from relaymesh.store.inbox_files import InboxFiles
from relaymesh.store.message_files import MessageFiles
from relaymesh.store.node_row import live_nodes
from relaymesh.store.presence import is_alive
from relaymesh.store.store import Store
from relaymesh.wire.codec import encode
from relaymesh.wire.inbox import InboxGoOn, InboxTick
from relaymesh.wire.store import StoreAnswer, SubmitTasks

__all__ = ["InboxActor"]

log = logging.getLogger("relaymesh.inbox")

IN_FLIGHT_MAX = 2
"""Batches that wait for their commit."""
_GO_ON = encode(InboxGoOn())


@dataclass(frozen=True, slots=True)
class _Sent:
    batch: Batch
    reply: Reply


class InboxActor(Actor):
    """See the module."""

    takes = InboxTick | InboxGoOn

    def __init__(
        self,
        facts: NodeFacts,
        timers: Timers,
        store: Address,
        now_ms: Callable[[], int],
        audit: AuditTrail,
        *,
        keeps_messages: bool = False,
    ) -> None:
        super().__init__()
        self._facts = facts
        self._timers = timers
        self._store = store
        self._now_ms = now_ms
        self._audit = audit
        self._keeps_messages = keeps_messages
        self._messages: MessageFiles | None = None
        self._sent: deque[_Sent] = deque()
        self._data_version = -1
        self._looks = InboxLooks()
        self._going_on = False
        self._messages_due = True

    def started(self) -> None:
        facts = self._facts
        self._reads = Store.open(facts.root, namespace=facts.namespace, now_ms=self._now_ms())
        self._ids = Ids(self._now_ms, random.Random(random.SystemRandom().getrandbits(128)))
        gate = InboxGate(self._reads, self.now_ms, self.mono_ns)
        self._intake = Intake(InboxFiles(facts.root, facts.node_id), self._reads, self, self._audit, gate=gate)
        self._intake.recover()
        if self._keeps_messages:
            self._messages = MessageFiles(self._reads)
            self._messages.find()
            self._messages.repair()
        self._timers.every(INBOX_LOOK_NS, self.address, InboxTick(), key="look")

    def stopping(self) -> None:
        self._timers.cancel(self.address, "look")
        self._reads.close()

    def crashed(self) -> None:
        if hasattr(self, "_reads"):
            self._reads.close()

    def receive(self, message: Any) -> None:
        match message:
            case InboxTick():
                look = self._looks.tick()
                if look is not None:
                    self._try(lambda: self._look(look))
            case InboxGoOn():
                self._going_on = False
                if not self._looks.resting:
                    self._try(self._work)
            case _:
                assert_never(message)

    # IntakeNeeds.

    def now_ms(self) -> int:
        return self._now_ms()

    def mono_ns(self) -> int:
        return self._timers.now_ns()

    def new_ticket(self) -> str:
        return self._ids.task()

    def known_agents(self) -> Iterable[str]:
        known = set(self._facts.pools)
        with self._reads.reading():
            for node in live_nodes(self._reads.conn, self._facts.root / "run", now_ms=self._now_ms()):
                known.update(node.capabilities.pools)
        return known

    # The pieces.

    def _try(self, piece: Callable[[], None]) -> None:
        try:
            piece()
        except RelayMeshError as error:
            log.warning("the inbox rests for a second (%s): %s", error.code, error)
            self._looks.trouble()
        except OSError as error:  # of message files, which are no more than a picture of the database
            log.warning("the message files rest for a second, the disk refused: %s", error)
            self._looks.trouble()
        trouble = self._intake.trouble()
        if trouble is not None:
            log.warning("the inbox rests for a second, the disk refused: %s", trouble)
            self._looks.trouble()

    def _look(self, look: InboxLook) -> None:
        if look.adopts and self._intake.adopt(self._is_gone):
            self._looks.adopted()  # there may be more of the same owner
        if self._intake.waits or self._messages is not None:
            with self._reads.reading():
                version = self._reads.data_version()
            if version != self._data_version:
                self._data_version = version
                self._intake.changed()
                self._messages_due = True
                if self._messages is not None:
                    self._messages.changed()
        if self._messages is not None and look.repairs:
            self._messages.repair()
            self._messages_due = True
        was_shut = self._intake.shut
        self._intake.look()
        self._work()
        if self._intake.shut and not was_shut:
            log.warning("files wait in the inbox, the admission gate is shut: `relaymesh health` says why")

    def _work(self) -> None:
        self._take_answers()
        if self._looks.resting:
            return
        while len(self._sent) < IN_FLIGHT_MAX and self._intake.has_more() and not self._intake.troubled:
            self._send(self._intake.batch())
        more = self._intake.deliver()
        if self._messages is not None and self._messages_due:
            self._messages_due = self._messages.piece()
            more |= self._messages_due
        if (more or (self._intake.has_more() and len(self._sent) < IN_FLIGHT_MAX)) and not self._going_on:
            self._go_on()

    def _send(self, batch: Batch) -> None:
        if not batch.entries:
            return
        try:
            reply = self._store.ask_later(SubmitTasks(batch.tasks))
        except RelayMeshError:
            self._intake.uncertain(batch)
            raise
        self._sent.append(_Sent(batch, reply))
        reply.on_settled(self._answered)

    def _answered(self, _: Reply) -> None:
        """Called in the thread of the store."""
        self.address.offer_bytes(_GO_ON)

    def _take_answers(self) -> None:
        while self._sent and self._sent[0].reply.settled:
            sent = self._sent.popleft()
            try:
                answer = sent.reply.wait(0)
            except (RelayMeshError, ActorError) as error:
                # Perhaps it is on disk all the same: the files are looked up before they are tried again.
                log.info("a batch of the inbox was not acknowledged (%s): %s", error.code, error)
                self._intake.uncertain(sent.batch)
                self._looks.trouble()
            else:
                assert isinstance(answer, StoreAnswer)
                self._intake.committed(sent.batch, answer.results)

    def _go_on(self) -> None:
        self._going_on = self.address.offer_bytes(_GO_ON)

    def _is_gone(self, owner: str) -> bool:
        run = self._facts.root / "run"
        alive = is_alive(run, owner, self._facts.host)
        if alive is not None:
            return not alive
        # Of another machine, or without a lock. Should it live after all, nothing is done twice.
        with self._reads.reading():
            return owner not in {node.node_id for node in live_nodes(self._reads.conn, run, now_ms=self._now_ms())}
