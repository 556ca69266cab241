"""How many texts lie under which payload key, and the removal of a key that nothing needs any more.

    rotated, all texts brought under the new key, the old one rested ──▶ counted: none ──▶ its fingerprint goes,
                                                                                            then the key

In this order, so that a crash in between leaves a key too many and never one too few. After that rest nothing comes
under an old key: every process looks at the keyring before each text that it encrypts. A snapshot brings its own.
"""

from __future__ import annotations

from collections import Counter

from relaymesh.core.payload_key import rest_ms
from relaymesh.errors import InputError
from relaymesh.file_lock import Hold, holding
from relaymesh.store.error import StoreIOError
from relaymesh.store.keyring import Keyring, remove_from_keyring
from relaymesh.store.reseal import pending, ring_of
from relaymesh.store.seal import forget_key
from relaymesh.store.sealed_row import key_of, pages
from relaymesh.store.snapshot import PAYLOAD_GUARD
from relaymesh.store.store import Store

__all__ = ["NoSuchPayloadKeyError", "PayloadKeyInUseError", "count_use", "remove_key"]


class NoSuchPayloadKeyError(InputError):
    """The keyring holds no such key."""

    code = "payload_key_not_found"

    def __init__(self, kid: str) -> None:
        super().__init__(kid)
        self.kid = kid

    def __str__(self) -> str:
        return f"the keyring holds no key {self.kid}: `relaymesh payload-key-status --count` lists them"


class PayloadKeyInUseError(InputError):
    """The key is needed. why: ends the sentence that it cannot be removed."""

    code = "payload_key_in_use"

    def __init__(self, kid: str, why: str) -> None:
        super().__init__(kid, why)
        self.kid, self.why = kid, why

    def __str__(self) -> str:
        return f"the key {self.kid} stays: {self.why}; nothing was changed"


def count_use(store: Store) -> Counter[str]:
    """Return how many texts lie under each kid, under "" those in clear text; reads every row, and files' beginnings.

    ``?``: encrypted, and it cannot be found out with which key.
    """
    use: Counter[str] = Counter()
    for page in pages(store):
        for text in page:
            kid = key_of(store.payloads, text)
            if kid is not None:
                use[kid] += 1
    return use


def remove_key(store: Store, kid: str, *, now_ms: int) -> Keyring:
    """Remove an old key from the keyring for good; return what is left.

    Raises:
        NoSuchPayloadKeyError, PayloadKeyInUseError, KeyringError: nothing was changed.
    """
    ring = ring_of(store)
    if ring is None or kid not in ring.keys:
        raise NoSuchPayloadKeyError(kid[:120])
    if kid == ring.active:
        raise PayloadKeyInUseError(kid, "it is the active one, rotate first")
    if pending(store) is not None:
        raise PayloadKeyInUseError(kid, "texts are still being brought under the active one, which a running node does")
    left_ms = rest_ms(ring.active, now_ms)
    if left_ms:
        why = f"it was the active one until a moment ago, try again in {-(-left_ms // 1000)} s"
        raise PayloadKeyInUseError(kid, why)
    try:
        # A snapshot takes the keyring after the database: it must not find a key gone that its image needs.
        with holding(store.root / "run" / PAYLOAD_GUARD, Hold.EXCLUSIVE) as ours:
            if not ours:
                raise PayloadKeyInUseError(kid, "a snapshot is being made or files are being removed, try again later")
            use = count_use(store)
            if use[kid] or use["?"]:
                raise PayloadKeyInUseError(
                    kid, f"{use[kid] or use['?']} texts need it or may need it, rotate once more"
                )
            with store.write():
                forget_key(store.conn, kid)
            left = remove_from_keyring(store.root, kid)
    except OSError as error:
        raise StoreIOError(type(error).__name__) from error
    if left is None:
        raise PayloadKeyInUseError(kid, "the keyring has just been changed by somebody else")
    return left
