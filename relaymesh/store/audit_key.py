"""Whether the key that seals the audit log is the one that it was: its fingerprint is kept in the database, too.

    fingerprint of security/audit-signing.key ──anchored once──▶ cluster_state 'audit_key'
    a key that is made where there are records already ──▶ a row ``audit.key`` (``replaced``) in the chain

So removing ``security/`` while nothing runs is told by both, until somebody restores the key or accepts the new one.
The fingerprint is a hash of 32 random bytes: it gives nothing away.
"""

from __future__ import annotations

import json

from relaymesh.audit.key import fingerprint
from relaymesh.audit.place import Place
from relaymesh.audit.read import Filter, newest
from relaymesh.store.database import Database

__all__ = ["KEY_ACTION", "accept_audit_key", "anchor_audit_key", "audit_key_problem"]

KEY_ACTION = "audit.key"
_READ = "SELECT state_value FROM cluster_state WHERE state_key='audit_key'"
_RESTORE = "restore security/ from a backup or a snapshot"
_ACCEPT = "or, if it is lost for good, keep a copy of audit/ and run `relaymesh audit-verify --accept-key`"


def audit_key_problem(place: Place, database: Database | None) -> str:
    """Return what is wrong with the identity of the key, as a sentence; "" for nothing.

    database: None where it cannot be opened; only the chain is asked then.

    Raises:
        AuditKeyError, OSError: the key or the log cannot be read.
        StoreError
    """
    found, anchored = fingerprint(place.security), None
    if database is not None:
        with database.reading():
            row = database.conn.execute(_READ).fetchone()
        anchored = row[0] if row is not None else None
    if anchored is not None and found is None:
        return f"the key that seals the audit log is gone: {_RESTORE} before anything else is recorded, {_ACCEPT}"
    if anchored is not None:
        changed = anchored != found
    else:
        last = newest(place, Filter(action=KEY_ACTION), 1)
        changed = bool(last) and json.loads(last[0]).get("result") == "replaced"
    if not changed:
        return ""
    return (
        "the key that seals the audit log is not the one that it was, and no rotation was recorded:"
        f" {_RESTORE}, {_ACCEPT}"
    )


def anchor_audit_key(store: Database, *, now_ms: int) -> str:
    """Remember the fingerprint if none is, and nothing is wrong; return what is, as ``audit_key_problem``."""
    place = Place(store.root)
    problem = audit_key_problem(place, store)
    found = fingerprint(place.security)
    if not problem and found is not None:
        with store.reading():
            known = store.conn.execute(_READ).fetchone()
        if known is None:
            with store.write():
                store.conn.execute(
                    "INSERT INTO cluster_state(state_key, state_value, version, updated_at_ms)"
                    " VALUES ('audit_key', ?, 1, ?) ON CONFLICT(state_key) DO NOTHING",
                    (found, now_ms),
                )
    return problem


def accept_audit_key(store: Database, *, now_ms: int) -> tuple[str | None, str | None]:
    """Take the key that is there for the right one; return the former fingerprint and this one."""
    found = fingerprint(Place(store.root).security)
    with store.write():
        row = store.conn.execute(_READ).fetchone()
        store.conn.execute("DELETE FROM cluster_state WHERE state_key='audit_key'")
        if found is not None:
            store.conn.execute(
                "INSERT INTO cluster_state(state_key, state_value, version, updated_at_ms)"
                " VALUES ('audit_key', ?, 1, ?)",
                (found, now_ms),
            )
    return (row[0] if row is not None else None), found
