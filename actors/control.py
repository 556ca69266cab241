"""ControlActor: takes messages from other processes of the machine, and hands them to the actors they are for.

peer ──challenge──▶ thread of the peer ──message──▶ store ──(commit)──▶ answer, sent by the thread that has it
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from pathlib import Path

from actors.address import Address
from actors.base import Actor
from actors.reply import Reply
from relaymesh.errors import ActorError
from relaymesh.net.control import Channel, ControlListener
from relaymesh.wire.codec import Message, encode
from relaymesh.wire.kernel import Ping, Refused

__all__ = ["CONNECTIONS_MAX", "ControlActor"]

log = logging.getLogger("relaymesh.control")

CONNECTIONS_MAX = 32
"""Peers at a time; who comes then is sent away, and goes on without us. Each costs a thread that waits."""


class ControlActor(Actor):
    """Owns the socket and its threads; takes no mail of its own.

    doors: the messages that may come from outside, each with the actor that answers it.
    """

    takes = Ping

    def __init__(self, run: Path, node_id: str, doors: Mapping[type[Message], Address]) -> None:
        super().__init__()
        self._folder = run
        self._node_id = node_id
        self._doors = {kind.HEAD: address for kind, address in doors.items()}
        self._listener: ControlListener | None = None
        self._peers: set[Channel] = set()
        self._lock = threading.Lock()

    def started(self) -> None:
        self._listener = ControlListener(self._folder, self._node_id)
        threading.Thread(target=self._accept, args=(self._listener,), name="control", daemon=True).start()

    def receive(self, message: Ping) -> bool:
        return True

    def stopping(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        with self._lock:
            peers = list(self._peers)
        for peer in peers:
            peer.close()

    def crashed(self) -> None:
        self.stopping()

    def _accept(self, listener: ControlListener) -> None:
        while (peer := listener.accept()) is not None:
            with self._lock:
                welcome = len(self._peers) < CONNECTIONS_MAX and self._listener is listener
                if welcome:
                    self._peers.add(peer)
            if not welcome:
                peer.close()
                continue
            try:
                threading.Thread(
                    target=self._serve, args=(peer, listener.key), name="control-peer", daemon=True
                ).start()
            except RuntimeError:  # no more threads
                self._forget(peer)

    def _serve(self, peer: Channel, key: bytes) -> None:
        try:
            if not peer.prove_second(key):
                return
            peer.wait_for(None)
            while True:
                self._hear(peer, peer.recv_bytes())
        except (OSError, EOFError):
            pass  # it has gone, or says more than it may
        except Exception:
            log.exception("a peer could not be served")
        finally:
            self._forget(peer)

    def _hear(self, peer: Channel, data: bytes) -> None:
        head = data[: 3 + (data[1] & 0x1F)] if len(data) > 1 else b""
        address = self._doors.get(head)
        if address is None:
            peer.send_bytes(encode(Refused("not_taken")))
            return
        answer = _Answer(peer)
        try:
            address.ask_into(data, answer)
        except ActorError as error:
            answer.fail(error)

    def _forget(self, peer: Channel) -> None:
        peer.close()
        with self._lock:
            self._peers.discard(peer)


class _Answer(Reply):
    """An answer that goes to a peer, sent by the thread that settles it: one thread less to wake."""

    __slots__ = ("_peer",)

    def __init__(self, peer: Channel) -> None:
        super().__init__()
        self._peer = peer

    def _settle(self, value: object, error: BaseException | None) -> bool:
        if not super()._settle(value, error):
            return False
        if error is not None or not isinstance(value, Message):
            # Told by its code only: who asked goes another way, and meets the error itself there.
            value = Refused(str(getattr(error, "code", "internal")))
        try:
            self._peer.send_bytes(encode(value))
        except OSError:
            self._peer.close()  # gone, or does not read: it is not waited for
        return True
