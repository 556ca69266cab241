"""``dr-automation``: take a snapshot, copy it to a second place, and prove that a root can be made of the copy.

export ──▶ <snapshots>/snapshot-<now> ──(copied, verified)──▶ <offsite>/snapshot-<now>
                                                                 └─(drill)──▶ a temporary root ──▶ health ──▶ gone
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from relaymesh.errors import InputError, RelayMeshError
from relaymesh.file_lock import Hold, holding
from relaymesh.outcome import DisasterReport
from relaymesh.store.database import Database
from relaymesh.store.durable import copy_file, remove_tree, sync_folder, sync_tree, write_file
from relaymesh.store.error import StoreFullError
from relaymesh.store.export import OutputFileError
from relaymesh.store.health import check
from relaymesh.store.output_place import root_of_own_file
from relaymesh.store.payload import NO_SPACE
from relaymesh.store.restore import import_snapshot
from relaymesh.store.snapshot import (
    COPY,
    MANIFEST,
    SnapshotBusyError,
    SnapshotOutputError,
    SnapshotPlaceError,
    export_snapshot,
)
from relaymesh.store.verify import SnapshotDamagedError, read_manifest, verify_snapshot

__all__ = ["KEEP", "KeepError", "Places", "every", "run"]

KEEP: Final = 7
"""Snapshots that are kept in each of the two places, unless the caller says otherwise."""


class KeepError(InputError):
    """A number of snapshots to keep that would keep none."""

    code = "bad_keep"

    def __init__(self, keep: int) -> None:
        super().__init__(keep)
        self.keep = keep

    def __str__(self) -> str:
        return f"{self.keep} snapshots cannot be kept: keep 1 or more"


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Where things go. base: the ``--root`` folder, not scoped by the namespace."""

    base: Path
    namespace: str
    snapshots: Path | None = None
    offsite: Path | None = None
    report: Path | None = None

    @property
    def _home(self) -> Path:
        return self.base / "dr" / self.namespace

    @property
    def snapshot_root(self) -> Path:
        """The folder of the snapshots."""
        return self.snapshots or self._home / "snapshots"

    @property
    def offsite_root(self) -> Path:
        """The folder of the copies."""
        return self.offsite or self._home / "offsite"

    @property
    def report_file(self) -> Path:
        """The file of the last report."""
        return self.report or self._home / "report-latest.json"


def run(
    root: Path,
    places: Places,
    *,
    drill: bool,
    keep: int = KEEP,
    now_ms: Callable[[], int],
) -> DisasterReport:
    """Do one round and write its report; ``drill_ok`` is False only after a drill that failed.

    keep: snapshots that stay in each place, the new one included; older ones go once the new copy is proven.

    Raises:
        KeepError: it would keep none.
        SnapshotBusyError: another round is at work on the second place.
        SnapshotOutputError, SnapshotDamagedError, StoreError, RootError: there is no new copy; the old ones stay.
    """
    if keep < 1:
        raise KeepError(keep)
    if (owner := root_of_own_file(places.report_file.absolute())) is not None:
        raise OutputFileError(str(places.report_file), f"it is a place of the data root {owner} itself")
    for folder in (places.snapshot_root, places.offsite_root):
        if (owner := root_of_own_file(folder.absolute() / "snapshot" / COPY)) is not None:
            raise SnapshotPlaceError(str(folder), str(owner))
    with _alone_in(places.offsite_root):
        return _round(root, places, drill=drill, keep=keep, now_ms=now_ms)


def _round(root: Path, places: Places, *, drill: bool, keep: int, now_ms: Callable[[], int]) -> DisasterReport:
    at_ms = now_ms()
    database = Database.open(root, namespace=places.namespace, now_ms=at_ms, create=False)
    try:
        taken = export_snapshot(database, _fresh(places.snapshot_root, f"snapshot-{at_ms}"), now_ms=at_ms)
    finally:
        database.close()
    snapshot = Path(taken.output_dir)
    offsite = _copy(snapshot, places.offsite_root / snapshot.name)
    ok, message, drilled = _drill(offsite, places, now_ms) if drill else (True, "skipped", "")
    report = DisasterReport(
        namespace=places.namespace,
        timestamp=_instant(at_ms),
        snapshot_output=taken.output_dir,
        snapshot_root=taken.snapshot_root,
        snapshot_files=taken.file_count,
        snapshot_bytes=taken.total_bytes,
        offsite_output=str(offsite),
        drill_enabled=drill,
        drill_ok=ok,
        drill_message=message,
        drill_root=drilled,
    )
    with _writing(places.report_file):
        places.report_file.parent.mkdir(parents=True, exist_ok=True)
        write_file(places.report_file, msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
        if ok:
            for folder in (places.snapshot_root, places.offsite_root):
                _drop_old(folder, keep)
    return report


def every(interval_ms: int, over: threading.Event) -> Iterator[None]:
    """Yield at once, then at the interval from start to start, until ``over`` is set; what is late is not caught up."""
    interval_s = max(1.0, interval_ms / 1000)
    at_s = time.monotonic()
    while not over.is_set():
        yield
        at_s = max(at_s + interval_s, time.monotonic())
        over.wait(at_s - time.monotonic())


@contextmanager
def _alone_in(offsite: Path) -> Iterator[None]:
    """Keep other rounds away from the second place, and drop what one that was killed left there."""
    with _writing(offsite), holding(offsite / ".dr.guard", Hold.EXCLUSIVE) as ours:
        if not ours:
            raise SnapshotBusyError(str(offsite))
        for pattern in (".drill-*", ".snapshot-*.partial"):
            for left in offsite.glob(pattern):
                remove_tree(left)
        yield


def _copy(snapshot: Path, target: Path) -> Path:
    """Copy a snapshot and prove the copy; it gets its name when it is complete."""
    target = _fresh(target.parent, target.name)
    aside = target.with_name(f".{target.name}.partial")
    with _writing(target):
        remove_tree(aside)
        aside.mkdir(parents=True)
        manifest = read_manifest(snapshot)
        (aside / COPY).mkdir(mode=0o700)
        for file in manifest.files:
            (aside / COPY / file.path).parent.mkdir(parents=True, exist_ok=True)
            copy_file(snapshot / COPY / file.path, aside / COPY / file.path, mode=file.mode & 0o777)
        copy_file(snapshot / MANIFEST, aside / MANIFEST, mode=0o600)
        sync_tree(aside)
        verified = verify_snapshot(aside)
        if not verified.ok:
            raise SnapshotDamagedError(str(aside), verified.problems[0])
        os.rename(aside, target)
        sync_folder(target.parent)
    return target


def _drill(offsite: Path, places: Places, now_ms: Callable[[], int]) -> tuple[bool, str, str]:
    """Make a root of the copy and look at its health; return whether it is well, what to say, and where it was."""
    # Where the copy lies there is room for it; a temporary folder of the system may be small, and kept in memory.
    root = Path(tempfile.mkdtemp(prefix=".drill-", dir=places.offsite_root))
    try:
        import_snapshot(root, offsite, namespace=places.namespace, now_ms=now_ms())
        well = check(root, now_ms=now_ms()).ok
        return well, "restore_ok" if well else "restore_health_failed", str(root)
    except RelayMeshError:
        return False, "restore_health_failed", str(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _drop_old(folder: Path, keep: int) -> None:
    """Drop all but the newest snapshots; only what is named as ours, and nothing that is a link."""
    ours = [
        path
        for path in folder.iterdir()
        if path.name.removeprefix("snapshot-").replace("-", "").isdigit()
        and path.name.startswith("snapshot-")
        and path.is_dir()
        and not path.is_symlink()
    ]
    ours.sort(key=lambda path: [int(part) for part in path.name.removeprefix("snapshot-").split("-") if part])
    for path in ours[:-keep]:
        remove_tree(path)


def _fresh(folder: Path, name: str) -> Path:
    """Return a path in the folder that is not taken yet."""
    number, path = 1, folder / name
    while path.exists():
        number += 1
        path = folder / f"{name}-{number}"
    return path


class _writing:
    """Turns what a disk refuses into our errors."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError):
            if error.errno in NO_SPACE:
                raise StoreFullError from error
            raise SnapshotOutputError(str(self._path), error.strerror or type(error).__name__) from error


def _instant(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
