"""Bring stored texts under the active key after a rotation, in small pieces, while others work.

    payload-key-rotate ──▶ a key more in the ring ──▶ cluster_state: payload_reseal = "<kid> 0"
    piece: read some steps, seal anew (files as well) ──▶ one transaction: each column over the value that was read,
                                                          and "<kid> <last row id>"
    no more rows ──▶ "<kid> done"

How far it came is committed with the rows, so a crash at any point costs one piece. A text that somebody replaced in
between is looked at again. Plain texts are sealed as well when the settings say that texts are encrypted. Old files go
with the next sweep; log lines keep the key that they were written with.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

from relaymesh.store.error import SealError
from relaymesh.store.keyring import Keyring, load_keyring, rotate_keyring
from relaymesh.store.payload import SEALED, PayloadMissingError
from relaymesh.store.seal import KEYRING, PayloadKeyringMissingError, has_sealed
from relaymesh.store.store import Store
from relaymesh.wire.sealed import head

__all__ = ["Leftover", "Reseal", "leftover", "pending", "ring_of", "rotate"]

log = logging.getLogger("relaymesh.reseal")

_STATE = "payload_reseal"
_DONE = "done"
_FILES_KEPT = 256
_SAVE = """
INSERT INTO cluster_state(state_key, state_value, version, updated_at_ms) VALUES (?, ?, 1, ?)
ON CONFLICT(state_key) DO UPDATE SET state_value=excluded.state_value, version=version+1,
    updated_at_ms=excluded.updated_at_ms
"""
_PAGE = """
SELECT id, step_id, task_id, map_parent IS NOT NULL, payload, payload_path, result_payload, result_path, map_template,
    map_item FROM steps WHERE id>? ORDER BY id LIMIT ?
"""


# kind and owner of its place; the columns it may be in; what they hold
_Text = tuple[str, str, str, str | None, str | bytes | None, str | None]


class _Change(NamedTuple):
    """One text of a row: the columns it is in, what they held, and what they are to hold."""

    value: str
    path: str | None
    old: tuple[str | bytes | None, str | None]
    new: tuple[str | bytes | None, str | None]


def ring_of(store: Store) -> Keyring | None:
    """Return the keyring of a root, None when it has none yet and needs none.

    Raises:
        PayloadKeyringMissingError, PayloadKeyringError
    """
    ring = load_keyring(store.root)
    if ring is None and has_sealed(store.conn):
        raise PayloadKeyringMissingError(str(store.root / KEYRING))
    return ring


def rotate(store: Store, *, now_ms: int) -> Keyring:
    """Add a key, make it the active one, and ask for everything to be brought under it.

    Raises:
        PayloadKeyringMissingError, PayloadKeyringError: the keyring is as it was.
        StoreError: the key was added; nodes bring texts under it all the same.
    """
    ring_of(store)
    ring = rotate_keyring(store.root, now_ms)
    with store.write():
        store.conn.execute(_SAVE, (_STATE, f"{ring.active} 0", now_ms))
    return ring


def pending(store: Store) -> Keyring | None:
    """Return the keyring when something may lie under an older key than its active one, else None.

    Raises:
        SealError: the keyring cannot be used.
    """
    ring = load_keyring(store.root)
    if ring is None:
        return None
    kid, at = _state(store)
    if kid == ring.active:
        return ring if at != _DONE else None
    # A rotation that was killed before it could ask; a ring of one key has never been rotated.
    return ring if len(ring.keys) > 1 else None


class Reseal:
    """One pass over all steps, or the rest of one. keyring: its active key is the one that texts are brought under."""

    def __init__(self, store: Store, keyring: Keyring) -> None:
        self._store = store
        self._active = keyring.active
        self._head = head(keyring.active)
        # The copies of a map step have one file, and come one after the other.
        self._files: OrderedDict[tuple[str, str, str], str] = OrderedDict()
        self.changed = self.unread = self.files_left = 0

    def piece(self, rows: int, *, now_ms: int) -> int | None:
        """Look at so many steps; return how many it were, None when there are no more.

        Raises:
            SealError: the keyring cannot be used. StoreError, OSError: the next piece begins where this one did.
        """
        store = self._store
        if store.payloads.seal.current().active != self._active:
            return None  # rotated again: a new pass goes over everything
        kid, at = _state(store)
        after = int(at) if kid == self._active and at != _DONE else 0
        with store.reading():
            page = store.conn.execute(_PAGE, (after, rows)).fetchall()
        sealing = store.payloads.seal.on()
        wanted = [(row[0], row[2], self._changes(row, sealing)) for row in page]
        with store.write():
            for row_id, task_id, changes in wanted:
                if not all(self._apply(row_id, task_id, change) for change in changes):
                    break  # somebody was quicker: look at it again
                after = row_id
            store.conn.execute(_SAVE, (_STATE, f"{self._active} {after if page else _DONE}", now_ms))
        return len(page) or None

    def _changes(self, row: tuple[Any, ...], sealing: bool) -> list[_Change]:  # as _PAGE selects it
        _, step_id, _, is_copy, payload, payload_path, output, output_path, over, item = row
        origin = step_id.rsplit("[", 1)[0] if is_copy else step_id
        texts: tuple[_Text, ...] = (
            ("payload", origin, "payload", "payload_path", payload, payload_path),
            ("output", step_id, "result_payload", "result_path", output, output_path),
            ("map", step_id, "map_template", None, over, None),
            ("item", step_id, "map_item", None, item, None),
        )
        return [change for text in texts if (change := self._change(text, sealing)) is not None]

    def _change(self, text_at: _Text, sealing: bool) -> _Change | None:
        kind, owner, column, path_column, value, path = text_at
        payloads = self._store.payloads
        if not path and (value is None or (isinstance(value, bytes) and value.startswith(self._head))):
            return None
        is_sealed = path.endswith(SEALED) if path else isinstance(value, bytes)
        if not is_sealed and not sealing:
            return None
        try:
            if path and (known := self._files.get((kind, owner, path))) is not None:
                return _Change(column, path_column, (value, path), (None, known))
            if is_sealed and path and payloads.begins_with(path, self._head):
                return None
            text = payloads.text(kind, owner, value, path) or ""
            if path_column is None:
                return _Change(column, None, (value, None), (payloads.seal.seal(kind, owner, text), None))
            kept = payloads.keep_sealed(kind, owner, text)
        except (PayloadMissingError, SealError) as error:
            if not self.unread:
                log.warning("a text is not brought under the key %s and left as it is: %s", self._active, error)
            self.unread += 1
            return None
        if path and kept.path:
            self._files[kind, owner, path] = kept.path
            while len(self._files) > _FILES_KEPT:
                self._files.popitem(last=False)
        return _Change(column, path_column, (value, path), (kept.value, kept.path))

    def _apply(self, row_id: int, task_id: str, change: _Change) -> bool:
        conn = self._store.conn
        if change.path is None:
            sql = f"UPDATE steps SET {change.value}=? WHERE id=? AND {change.value} IS ?"
            done = conn.execute(sql, (change.new[0], row_id, change.old[0])).rowcount
        else:
            new_path = change.new[1] or ("" if change.path == "payload_path" else None)
            guard = f"id=? AND {change.value} IS ? AND {change.path} IS ?"
            sql = f"UPDATE steps SET {change.value}=?, {change.path}=? WHERE {guard}"
            done = conn.execute(sql, (change.new[0], new_path, row_id, *change.old)).rowcount
        if done and change.value == "result_payload":
            # The task's own copy of the result, from before its outputs were encrypted: readers put it together.
            conn.execute("UPDATE tasks SET result_payload=NULL, result_hash=NULL WHERE task_id=?", (task_id,))
        self.changed += done
        self.files_left += bool(done and change.old[1])
        return done == 1


@dataclass(frozen=True, slots=True)
class Leftover:
    """How many texts of steps lie under another key than the active one, and in clear text; log lines apart."""

    old: int
    clear: int
    old_lines: int


def leftover(store: Store, keyring: Keyring | None) -> Leftover:
    """Count what is not under the active key; reads every row, and the beginning of every encrypted file."""
    begins = head(keyring.active) if keyring is not None else b"\0"
    old = clear = after = 0
    while True:
        with store.reading():
            page = store.conn.execute(_PAGE, (after, 512)).fetchall()
        if not page:
            break
        after = page[-1][0]
        for _, _, _, _, payload, payload_path, output, output_path, over, item in page:
            for value, path in ((payload, payload_path), (output, output_path), (over, None), (item, None)):
                if path:
                    sealed = path.endswith(SEALED)
                    old += sealed and not store.payloads.begins_with(path, begins)
                    clear += not sealed
                else:
                    old += isinstance(value, bytes) and not value.startswith(begins)
                    clear += isinstance(value, str)
    with store.reading():
        (lines,) = store.conn.execute(
            "SELECT count(*) FROM attempt_logs WHERE typeof(text)='blob' AND substr(text, 1, ?)<>?",
            (len(begins), begins),
        ).fetchone()
    return Leftover(old, clear, lines)


def _state(store: Store) -> tuple[str, str]:
    with store.reading():
        row = store.conn.execute("SELECT state_value FROM cluster_state WHERE state_key=?", (_STATE,)).fetchone()
    kid, _, at = (row[0] if row is not None else "").partition(" ")
    return kid, at
