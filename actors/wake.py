"""WakeActor: lets other processes of the machine say that they committed something."""

from __future__ import annotations

import threading
from pathlib import Path

from actors.address import Address
from actors.base import Actor
from relaymesh.net.wake import WakeListener
from relaymesh.wire.codec import encode
from relaymesh.wire.kernel import Ping
from relaymesh.wire.store import PollStore

__all__ = ["WakeActor"]


class WakeActor(Actor):
    """Owns the socket and the thread that waits on it; takes no mail of its own."""

    takes = Ping

    def __init__(self, run: Path, node_id: str, store: Address) -> None:
        super().__init__()
        self._folder = run
        self._node_id = node_id
        self._store = store
        self._listener: WakeListener | None = None

    def started(self) -> None:
        self._listener = WakeListener(self._folder, self._node_id)
        threading.Thread(target=_listen, args=(self._listener, self._store), name="wake", daemon=True).start()

    def receive(self, message: Ping) -> bool:
        return True

    def stopping(self) -> None:
        if self._listener is not None:
            self._listener.close()

    def crashed(self) -> None:
        self.stopping()


def _listen(listener: WakeListener, store: Address) -> None:
    data = encode(PollStore(hint=True))
    while listener.wait():
        # A wake-up for which there is no room is no loss: the store is busy, so it looks soon anyway.
        if store.depth < 64:
            store.tell_bytes(data)
