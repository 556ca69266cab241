"""The keys that the texts of a root are encrypted with: which there are, and a new one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relaymesh.outcome import KeyringOutcome
    from relaymesh.store.store import Store

__all__ = ["key_status", "rotate_keys"]


def key_status(store: Store, *, count: bool) -> KeyringOutcome:
    """Return which payload keys there are; count: also how much is not under the active one.

    Raises:
        SealError: the keyring cannot be used.
    """
    from relaymesh.outcome import KeyringCountOutcome, KeyringOutcome
    from relaymesh.store.reseal import leftover, ring_of
    from relaymesh.store.seal import KEYRING

    ring = ring_of(store)
    active, total = (ring.active, len(ring.keys)) if ring is not None else ("", 0)
    file = str(store.root / KEYRING)
    if not count:
        return KeyringOutcome(active_kid=active, total_keys=total, key_file=file)
    left = leftover(store, ring)
    return KeyringCountOutcome(
        active_kid=active,
        total_keys=total,
        key_file=file,
        under_old_keys=left.old,
        in_clear_text=left.clear,
        log_lines_under_old_keys=left.old_lines,
    )


def rotate_keys(store: Store, *, now_ms: int) -> KeyringOutcome:
    """Add a payload key and make it the active one.

    Raises:
        SealError: the keyring is as it was.
    """
    from relaymesh.outcome import KeyringOutcome
    from relaymesh.store.reseal import rotate
    from relaymesh.store.seal import KEYRING

    ring = rotate(store, now_ms=now_ms)
    return KeyringOutcome(active_kid=ring.active, total_keys=len(ring.keys), key_file=str(store.root / KEYRING))
