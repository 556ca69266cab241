"""Whether a root can be used. One that is missing or broken is an answer, not an error.

    live     the database answers, and nothing stands still: else starting the node anew may help
    ready    all of that, the folders can be written, the settings can be read, the disk has room: else send no work

Writes one counter, to see that the disk takes a write.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from relaymesh.audit.key import AuditKeyError, load_secret
from relaymesh.audit.place import Place
from relaymesh.core.disk import short_of_disk
from relaymesh.core.stall import STALL_MS
from relaymesh.errors import RelayMeshError
from relaymesh.node_view import HealthOutcome
from relaymesh.store.audit_key import anchor_audit_key, audit_key_problem
from relaymesh.store.counter import add_counter
from relaymesh.store.database import Database
from relaymesh.store.disk import free_disk_bytes
from relaymesh.store.error import KeyringError
from relaymesh.store.own_folder import is_own_folder
from relaymesh.store.progress import stalled_ms
from relaymesh.store.reseal import ring_of
from relaymesh.store.root import DATABASE, GOSSIP_KEYS, refuse_emptied
from relaymesh.store.schema_check import missing_part

__all__ = ["check", "key_problems", "place_problems"]

# Reads every page: a second for a gigabyte, which is too long for a look. Of a larger one only the edges are read.
_CHECKED_BYTES_MAX = 134_217_728
_SECRETS = ("audit-signing.key", "gossip-keys.json", "payload-keys.json")
_FOLDERS = {
    "inbox": ("inbox/high", "inbox/normal", "inbox/low"),
    "processing": ("processing",),
    "meta": ("meta",),
    "payload": ("payload",),
    "audit": ("audit",),
}
_OTHERS = ("run", "security")
"""Folders that a node cannot do without, and that the answer has no member for."""


@dataclass(frozen=True, slots=True)
class _Database:
    """What the database said. stalled_ms: 0 when it could not be asked."""

    reads: bool = False
    writes: bool = False
    stalled_ms: int = 0
    problem: str = ""


def check(root: Path, *, now_ms: int, min_free_disk_bytes: int = 0, file_problems: Sequence[str] = ()) -> HealthOutcome:
    """Return what works and what does not.

    min_free_disk_bytes: the setting, 0 when nobody cares.
    file_problems: why files that an operator wrote cannot be used.
    """
    folders = {name: all(_usable(root / path) for path in paths) for name, paths in _FOLDERS.items()}
    folders["inbox"] &= not _linked(root)
    closed = os.path.lexists(root) and not os.access(root, os.X_OK)
    database = _Database() if closed else _database(root, now_ms)
    free_bytes = free_disk_bytes(root)
    pressure = short_of_disk(free_bytes, min_free_disk_bytes)
    stalled = database.stalled_ms >= STALL_MS
    if closed:  # nothing else can be said about it
        problems = [
            f"{root} is a file, and a data root is a folder: choose another --root"
            if root.is_file()
            else f"the data root {root} cannot be entered: run this as the user of its nodes"
        ]
    else:
        problems = place_problems(root)
        problems += [database.problem] if database.problem else []
        problems += file_problems
    if pressure:
        problems.append(f"{free_bytes} bytes are free, and minFreeDiskBytes asks for {min_free_disk_bytes}: make room")
    if stalled:
        problems.append(
            f"work is ready and slots are free, but nothing has moved for {database.stalled_ms // 1000} s:"
            " start the nodes anew, and look at their logs"
        )
    usable = database.reads and database.writes
    ready = not problems and usable
    return HealthOutcome(
        ok=ready,
        db_ok=usable,
        inbox_dir_ok=folders["inbox"],
        processing_dir_ok=folders["processing"],
        meta_dir_ok=folders["meta"],
        payload_dir_ok=folders["payload"],
        audit_dir_ok=folders["audit"],
        disk_free_bytes=free_bytes,
        min_free_disk_bytes=min_free_disk_bytes,
        disk_pressure=pressure,
        checked_at=datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        live=database.reads and not stalled,
        ready=ready,
        stalled=stalled,
        stalled_ms=database.stalled_ms,
        problems=tuple(problems),
    )


def place_problems(root: Path) -> list[str]:
    """Return what is wrong with the folders of a root, and with the files of its keys; only reads."""
    problems = [_folder_problem(root, name) for name in _FOLDERS]
    problems += [_trouble(root, name) for name in _OTHERS if os.path.lexists(root / name) and not _usable(root / name)]
    return [*filter(None, problems), *_keys(root / "security")]


def key_problems(root: Path, *, now_ms: int) -> list[str]:
    """Return what is wrong with the keys as the database knows them: missing, or other ones; only reads."""
    with (
        contextlib.suppress(RelayMeshError),
        contextlib.closing(Database.open(root, now_ms=now_ms, create=False)) as store,
    ):
        with store.reading():
            keyring = _keyring(store)
        try:
            identity = audit_key_problem(Place(root), store)
        except (AuditKeyError, OSError, ValueError):
            identity = ""  # it cannot be read: that has a sentence of its own
        return [*filter(None, (keyring, identity))]
    return []


def _folder_problem(root: Path, name: str) -> str:
    if name == "inbox" and (linked := _linked(root)):
        return (
            f"the folder {linked} is a link, and nothing is taken from where it leads: put a folder in its place"
            " (remove the link, then `relaymesh init`)"
        )
    return next((_trouble(root, path) for path in (name, *_FOLDERS[name]) if not _usable(root / path)), "")


def _trouble(root: Path, path: str) -> str:
    if os.path.isdir(root / path):
        return f"the folder {path} cannot be written: check its owner and its mode"
    if os.path.lexists(root / path):
        return f"{path} is no folder: move it away, then `relaymesh init` makes the folder"
    return f"the folder {path} is missing: `relaymesh init` makes what is missing"


def _linked(root: Path) -> str:
    """Return the first folder of the inbox that is a link, "" when none is; files are never taken through one."""
    for path in ("inbox", *_FOLDERS["inbox"]):
        if os.path.isdir(root / path) and not is_own_folder(root / path):
            return path
    return ""


def _keys(security: Path) -> Iterator[str]:
    """What is wrong with the keys: one that cannot be used, or that others than its owner may read or write."""
    try:
        load_secret(security)
    except RelayMeshError as error:
        yield str(error)
    except OSError as error:
        yield f"the key of the audit log cannot be read ({error.strerror}): let this user read it"
    if (security.parent / GOSSIP_KEYS).exists():
        from relaymesh.store.gossip_ring import GossipRingError, load_ring

        try:
            load_ring(security.parent)
        except GossipRingError as error:
            yield str(error)
    if os.name == "nt":
        return
    for name in _SECRETS:
        try:
            mode = (security / name).stat().st_mode
        except OSError:
            continue
        if mode & 0o077:
            yield f"security/{name} is open to others than its owner (mode {mode & 0o777:o}): set it to 600"


def _keyring(store: Database) -> str:
    """Return what is wrong with the keys that texts are encrypted with, "" when nothing is."""
    try:
        ring_of(store)
    except KeyringError as error:
        return str(error)
    return ""


def _usable(folder: Path) -> bool:
    return os.path.isdir(folder) and os.access(folder, os.R_OK | os.W_OK)


def _database(root: Path, now_ms: int) -> _Database:
    try:
        refuse_emptied(root)
    except RelayMeshError as error:
        return _Database(problem=str(error))
    if os.path.isdir(root / DATABASE):
        return _Database(problem=f"{DATABASE} is a folder: move it away, and put the file back or restore a snapshot")
    if not os.path.isfile(root / DATABASE):
        return _Database(problem="there is no database here: check --root, or make one with `relaymesh init`")
    if not os.access(root / DATABASE, os.W_OK):
        return _Database(problem="the database cannot be written: check the owner and the mode of its file")
    reads, stalled = False, 0
    try:
        store = Database.open(root, now_ms=now_ms, create=False)
        try:
            with store.reading():
                answer = "ok"
                if (root / DATABASE).stat().st_size <= _CHECKED_BYTES_MAX:
                    (answer,) = store.conn.execute("PRAGMA quick_check(1)").fetchone()
                lacking = missing_part(store.conn) if answer == "ok" else ""
            keyring = _keyring(store)
            if answer != "ok":
                # SQLite says in a first line which of its databases it is about: there is one.
                return _Database(problem=f"the database is damaged ({answer.splitlines()[-1]}): restore a snapshot")
            if lacking:
                return _Database(problem=f"the database lacks its {lacking}, somebody changed it: restore a snapshot")
            with store.snapshot():
                stalled = stalled_ms(store.conn, root / "run", now_ms=now_ms)
            reads = True
            key_problem = _key_identity(store, now_ms)
            with store.write():  # the write lock can be had, and the disk takes a write
                add_counter(store.conn, "health_checks", 1)
            wrong = "; ".join(filter(None, (keyring, key_problem)))
            return _Database(reads=True, writes=True, stalled_ms=stalled, problem=wrong)
        finally:
            store.close()
    except RelayMeshError as error:
        return _Database(reads=reads, stalled_ms=stalled, problem=str(error))


def _key_identity(store: Database, now_ms: int) -> str:
    try:
        return anchor_audit_key(store, now_ms=now_ms)
    except (AuditKeyError, OSError, ValueError):
        return ""  # it cannot be read: that has a sentence of its own
