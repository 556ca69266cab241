"""The whole root: snapshots, disaster recovery, purge, compact, schema."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from relaymesh.argument import check_text, check_whole_number
from relaymesh.door.base import Door

if TYPE_CHECKING:
    from relaymesh.outcome import (
        CompactOutcome,
        DisasterReport,
        PurgeOutcome,
        RollbackOutcome,
        SchemaMigrationRow,
        SnapshotExportOutcome,
        SnapshotImportOutcome,
    )
    from relaymesh.payload_key import PayloadKeys

__all__ = ["Keeps"]


class Keeps(Door):
    """What is done to a root as a whole."""

    def snapshot_export(self, out: str | Path) -> SnapshotExportOutcome:
        """Copy the root to a folder while nodes work on it; an older snapshot there is replaced.

        Raises:
            SnapshotPlaceError, SnapshotBusyError, SnapshotOutputError, StoreError: there is no new snapshot.
        """
        from relaymesh.store.snapshot import export_snapshot

        return export_snapshot(self._readable(), Path(out), now_ms=self._now_ms())

    def snapshot_import(self, source: str | Path) -> SnapshotImportOutcome:
        """Put a snapshot in the place of the root; what was there is kept below ``replaced/``, the newest three.

        Raises:
            SnapshotMissingError, SnapshotDamagedError, SnapshotPlaceError: the snapshot cannot be used.
            SchemaTooNewError: a later release wrote it.
            RootInUseError: a node or another program works on the root; close this client's iterators, too.
            StoreError, RootError: the disk refused; the root is as it was, or the next to open it finishes the import.
        """
        from relaymesh.store.restore import import_snapshot

        self.close()
        return import_snapshot(self.root, Path(source), namespace=self.namespace, now_ms=self._now_ms())

    def dr_automation(
        self,
        *,
        snapshot_root: str | Path | None = None,
        offsite_root: str | Path | None = None,
        report_out: str | Path | None = None,
        drill: bool = False,
        keep: int = 7,
    ) -> DisasterReport:
        """Take a snapshot, copy it to a second place, verify the copy; drill: make a root of it and check its health.

        The folders and the report are below ``dr/`` of the root, unless others are named. keep: snapshots that stay.

        Raises:
            SnapshotBusyError, SnapshotOutputError, StoreError, RootError: there is no new copy; older ones stay.
        """
        from relaymesh.disaster import Places, run

        base = self.root if self.namespace == "default" else self.root.parents[1]
        places = Places(
            base=base,
            namespace=self.namespace,
            snapshots=None if snapshot_root is None else Path(snapshot_root).absolute(),
            offsite=None if offsite_root is None else Path(offsite_root).absolute(),
            report=None if report_out is None else Path(report_out).absolute(),
        )
        return run(self.root, places, drill=drill, keep=keep, now_ms=self._now_ms)

    def purge(
        self,
        *,
        done_retention_days: int = 7,
        dead_retention_days: int = 7,
        idempotency_ttl_days: int = 7,
        dry_run: bool = False,
    ) -> PurgeOutcome:
        """Remove what is older, in pieces that hold the writer for a moment each; dry_run: only count it.

        A task whose idempotency key is still held stays. What a crash interrupts is finished by the next purge.
        """
        from relaymesh.store import cleanup

        check_whole_number("done_retention_days", done_retention_days)
        check_whole_number("dead_retention_days", dead_retention_days)
        check_whole_number("idempotency_ttl_days", idempotency_ttl_days)
        return (cleanup.preview if dry_run else cleanup.purge)(
            self._writable(create=False),
            done_days=done_retention_days,
            dead_days=dead_retention_days,
            key_days=idempotency_ttl_days,
            now_ms=self._now_ms(),
            files_are_messages=self._config().bus_mode == "files",
        )

    def compact(self) -> CompactOutcome:
        """Give free pages, the log and payload files that no row names back to the file system."""
        from relaymesh.store.cleanup import compact

        return compact(self._writable(create=False), now_ms=self._now_ms())

    @property
    def payload_keys(self) -> PayloadKeys:
        """The keys that texts are encrypted with at rest: ``status``, ``rotate``, ``remove``."""
        from relaymesh.payload_key import PayloadKeys

        return PayloadKeys(self)

    def schema_migrations(self, limit: int = 50) -> list[SchemaMigrationRow]:
        """Return the migrations that were applied to the database, newest first; applies none."""
        from relaymesh.store.rollback import applied_migrations

        check_whole_number("limit", limit)
        return applied_migrations(self.root, limit)

    def schema_rollback(self, version: str) -> RollbackOutcome:
        """Take the newest migration back, for a return to the release before; the next start applies it again.

        Raises:
            UnknownMigrationError, NotReversibleError, RootInUseError: nothing was changed.
        """
        from relaymesh.store.rollback import roll_back

        check_text("version", version)
        self.close()
        return roll_back(self.root, version)
