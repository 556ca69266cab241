"""What can be asked of the keys that the texts of a root are encrypted with; ``Client.payload_keys`` is one of these.

status     which keys there are, and how many texts lie under each
rotate     one more, which all encrypt with from now on
remove     one that nothing is encrypted with any more
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relaymesh.argument import check_text
from relaymesh.outcome import KeyringCountOutcome, KeyringOutcome, PayloadKeyUse
from relaymesh.store.reseal import ring_of, rotate
from relaymesh.store.seal import KEYRING

if TYPE_CHECKING:
    from relaymesh.door.base import Door
    from relaymesh.store.keyring import Keyring
    from relaymesh.store.store import Store

__all__ = ["PayloadKeys"]


class PayloadKeys:
    """The payload keys of one root, by the client that opened it. Keys themselves are never returned."""

    def __init__(self, client: Door) -> None:
        self._client = client

    def status(self, *, count: bool = False) -> KeyringOutcome:
        """Return which keys there are; count: also how many texts lie under each, which reads every row.

        Raises:
            KeyringError: the keyring is missing, damaged, or another one than the root was encrypted with.
        """
        store = self._client._writable(create=False)
        ring = ring_of(store)
        if not count:
            return _outcome(store, ring)
        from relaymesh.store.key_use import count_use

        use = count_use(store)
        clear = use.pop("", 0)
        active, kids = ("", ()) if ring is None else (ring.active, tuple(ring.keys))
        names = [*kids, *sorted(set(use) - set(kids))]
        return KeyringCountOutcome(
            active_kid=active,
            total_keys=len(kids),
            key_file=str(store.root / KEYRING),
            under_old_keys=use.total() - use[active],
            in_clear_text=clear,
            keys=tuple(PayloadKeyUse(kid=kid, active=kid == active, texts=use[kid]) for kid in names),
        )

    def rotate(self) -> KeyringOutcome:
        """Add a key and encrypt with it from now on. Nodes bring what is stored under it, a piece at a time.

        Raises:
            KeyringError: the keyring is as it was.
        """
        client = self._client
        store = client._writable(create=False)
        outcome = _outcome(store, rotate(store, now_ms=client._now_ms()))
        self._record("payload.key.rotate", outcome)
        return outcome

    def remove(self, kid: str) -> KeyringOutcome:
        """Remove a key for good, which is not the active one and which no text of the root is encrypted with.

        Raises:
            NoSuchPayloadKeyError, PayloadKeyInUseError, KeyringError: the keyring is as it was.
        """
        from relaymesh.store.key_use import remove_key

        check_text("kid", kid)
        client = self._client
        store = client._writable(create=False)
        outcome = _outcome(store, remove_key(store, kid, now_ms=client._now_ms()))
        self._record("payload.key.remove", outcome, removed_kid=kid)
        return outcome

    def _record(self, action: str, outcome: KeyringOutcome, **more: object) -> None:
        self._client.audit.record(
            action,
            actor=self._client._actor,
            resource="runtime/security",
            result="ok",
            details={
                "active_kid": outcome.active_kid,
                "total_keys": outcome.total_keys,
                "key_file": outcome.key_file,
                **more,
            },
        )


def _outcome(store: Store, ring: Keyring | None) -> KeyringOutcome:
    active, total = ("", 0) if ring is None else (ring.active, len(ring.keys))
    return KeyringOutcome(active_kid=active, total_keys=total, key_file=str(store.root / KEYRING))
