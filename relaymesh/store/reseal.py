"""Bring stored texts under the active key after a rotation, in small pieces, while others work.

    payload-key-rotate ──▶ a key more in the ring ──▶ cluster_state: payload_reseal = where a pass over all begins
    piece: read some rows, seal anew (files as well) ──▶ one transaction: each column over the value that was read,
                                                         and how far that came
    no more rows ──▶ done

How far it came is committed with the rows, so a crash at any point costs one piece. A text that somebody replaced in
between is looked at again. Plain texts are sealed as well when the settings say that texts are encrypted. Old files go
with the next sweep. Which texts there are stands in ``relaymesh.store.sealed_row``.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from relaymesh.store.counter import PAYLOAD_RESEALED
from relaymesh.store.error import KeyringError, SealError
from relaymesh.store.keyring import Keyring, load_keyring, rotate_keyring
from relaymesh.store.payload import PayloadMissingError
from relaymesh.store.seal import KEYRING, PayloadKeyringMissingError, check_keyring, has_sealed
from relaymesh.store.sealed_row import TABLES, Table, Text, key_of, table_named

if TYPE_CHECKING:
    from relaymesh.store.database import Database
    from relaymesh.store.store import Store

__all__ = ["Reseal", "pending", "ring_of", "rotate"]

log = logging.getLogger("relaymesh.reseal")

_STATE = "payload_reseal"
_FILES_KEPT: Final = 256
_SAVE = """
INSERT INTO cluster_state(state_key, state_value, version, updated_at_ms) VALUES (?, ?, 1, ?)
ON CONFLICT(state_key) DO UPDATE SET state_value=excluded.state_value, version=version+1,
    updated_at_ms=excluded.updated_at_ms
"""


class _Place(NamedTuple):
    """How far a pass has come: behind which row of which table, under which key. Behind the last table it is done."""

    kid: str
    table: int = 0
    after: tuple[str | int, ...] = TABLES[0].begin

    @property
    def done(self) -> bool:
        return self.table >= len(TABLES)

    def text(self) -> str:
        return json.dumps({"kid": self.kid, "table": "" if self.done else TABLES[self.table].name, "after": self.after})


class _Change(NamedTuple):
    """A text of a row, and what its columns are to hold."""

    text: Text
    value: str | bytes | None
    path: str | None


def ring_of(store: Database) -> Keyring | None:
    """Return the keyring of a root, None when it has none yet and needs none.

    Raises:
        KeyringError: it is missing, damaged, or another one than this root was encrypted with.
    """
    path = str(store.root / KEYRING)
    ring = load_keyring(store.root)
    if ring is not None:
        check_keyring(store.conn, ring, path)
    elif has_sealed(store.conn):
        raise PayloadKeyringMissingError(path)
    return ring


def rotate(store: Store, *, now_ms: int) -> Keyring:
    """Add a key, make it the active one, and ask for everything to be brought under it.

    Raises:
        KeyringError: the keyring is as it was.
        StoreError: the key was added; nodes bring texts under it all the same.
    """
    ring_of(store)
    ring = rotate_keyring(store.root, now_ms)
    with store.write():
        store.conn.execute(_SAVE, (_STATE, _Place(ring.active).text(), now_ms))
    return ring


def pending(store: Store) -> Keyring | None:
    """Return the keyring when something may lie under an older key than its active one, else None.

    Raises:
        KeyringError: the keyring cannot be used.
    """
    ring = load_keyring(store.root)
    if ring is None:
        return None
    at = _place(store)
    if at.kid == ring.active:
        return None if at.done else ring
    # A rotation that was killed before it could ask; a ring of one key has never been rotated.
    return ring if len(ring.keys) > 1 else None


class Reseal:
    """One pass over all texts, or the rest of one. keyring: its active key is the one that they are brought under."""

    def __init__(self, store: Store, keyring: Keyring) -> None:
        self._store = store
        self._active = keyring.active
        # The copies of a map step have one file, and come one after the other.
        self._files: OrderedDict[tuple[str, str, str], str] = OrderedDict()
        self.changed = self.unread = self.files_left = 0

    def piece(self, rows: int, *, now_ms: int) -> int | None:
        """Look at so many rows of a table; return how many it were, None when all has been looked at.

        Raises:
            KeyringError: the keyring cannot be used. StoreError, OSError: the next piece begins where this one did.
        """
        store = self._store
        if store.payloads.seal.current().active != self._active:
            return None  # rotated again: a new pass goes over everything
        at = _place(store)
        if at.kid != self._active:
            at = _Place(self._active)
        if at.done:
            return None
        table = TABLES[at.table]
        with store.reading():
            page = store.conn.execute(table.page, (*at.after, rows)).fetchall()
        sealing = store.payloads.seal.on()
        wanted = [(row[: len(table.key)], self._changes(table, row, sealing)) for row in page]
        after, before = at.after, self.changed
        with store.write():
            for key, changes in wanted:
                if not all(self._apply(table, key, change) for change in changes):
                    break  # somebody was quicker: look at it again
                after = key
            following = at.table + 1
            begin = TABLES[following].begin if following < len(TABLES) else ()
            place = _Place(self._active, at.table, after) if page else _Place(self._active, following, begin)
            store.conn.execute(_SAVE, (_STATE, place.text(), now_ms))
            if self.changed > before:
                store.add_counter(PAYLOAD_RESEALED, self.changed - before)
        return None if place.done else len(page)

    def _changes(self, table: Table, row: tuple[Any, ...], sealing: bool) -> list[_Change]:
        return [change for text in table.texts(row) if (change := self._change(text, sealing)) is not None]

    def _change(self, text: Text, sealing: bool) -> _Change | None:
        payloads, path = self._store.payloads, text.path
        if path and (known := self._files.get((text.kind, text.owner, path))) is not None:
            return _Change(text, None, known)
        kid = key_of(payloads, text)
        if kid is None or kid == self._active or (kid == "" and not sealing):
            return None
        try:
            opened = payloads.text(text.kind, text.owner, text.value, path) or ""
            if text.path_column is None:
                return _Change(text, payloads.seal.seal(text.kind, text.owner, opened), None)
            kept = payloads.keep_sealed(text.kind, text.owner, opened)
        except (PayloadMissingError, SealError) as error:
            if isinstance(error, KeyringError) and kid == "":
                raise
            if not self.unread:
                log.warning("a text is not brought under the key %s and left as it is: %s", self._active, error)
            self.unread += 1
            return None
        if path and kept.path:
            self._files[text.kind, text.owner, path] = kept.path
            while len(self._files) > _FILES_KEPT:
                self._files.popitem(last=False)
        return _Change(text, kept.value, kept.path)

    def _apply(self, table: Table, key: tuple[Any, ...], change: _Change) -> bool:
        conn, text = self._store.conn, change.text
        this_row = " AND ".join(f"{column}=?" for column in table.key)
        if text.path_column is None:
            sql = f"UPDATE {table.name} SET {text.column}=? WHERE {this_row} AND {text.column} IS ?"
            done = conn.execute(sql, (change.value, *key, text.value)).rowcount
        else:
            new_path = change.path or ("" if text.path_column == "payload_path" else None)
            guard = f"{this_row} AND {text.column} IS ? AND {text.path_column} IS ?"
            sql = f"UPDATE {table.name} SET {text.column}=?, {text.path_column}=? WHERE {guard}"
            done = conn.execute(sql, (change.value, new_path, *key, text.value, text.path)).rowcount
        if done and text.task_id is not None:
            # The task's own copy of the result, from before its outputs were encrypted: readers put it together.
            conn.execute("UPDATE tasks SET result_payload=NULL, result_hash=NULL WHERE task_id=?", (text.task_id,))
        self.changed += done
        self.files_left += bool(done and text.path)
        return done == 1


def _place(store: Store) -> _Place:
    with store.reading():
        row = store.conn.execute("SELECT state_value FROM cluster_state WHERE state_key=?", (_STATE,)).fetchone()
    try:
        match json.loads(row[0]) if row is not None else None:
            case {"kid": str(kid), "table": str(name), "after": [*after]}:
                number = table_named(name)
                if number == len(TABLES) or len(after) == len(TABLES[number].key):
                    return _Place(kid, number, tuple(after))
    except ValueError:
        pass  # somebody has written there: begin anew
    return _Place("")
