"""What the commands about a whole root answer: snapshots, the disaster drill, schema versions, purge, compact.

As ``relaymesh.view``, and apart from it because a command that looks at tasks need not load these.
"""

from __future__ import annotations

from relaymesh.view import View

__all__ = [
    "AuditIntegrityOutcome",
    "CompactOutcome",
    "DisasterReport",
    "KeyringCountOutcome",
    "KeyringOutcome",
    "PayloadKeyUse",
    "PurgeOutcome",
    "RollbackOutcome",
    "SchemaMigrationRow",
    "SiemExportOutcome",
    "SnapshotChange",
    "SnapshotDiffOutcome",
    "SnapshotExportOutcome",
    "SnapshotImportOutcome",
    "SnapshotVerifyOutcome",
]


class SnapshotExportOutcome(View, frozen=True, kw_only=True):
    """A snapshot that was written."""

    output_dir: str
    snapshot_root: str
    file_count: int
    total_bytes: int
    created_at_ms: int


class SnapshotImportOutcome(View, frozen=True, kw_only=True):
    """A snapshot that was put in the place of a root."""

    input_dir: str
    snapshot_root: str
    restored_files: int
    restored_bytes: int
    restored_at_ms: int


class SnapshotVerifyOutcome(View, frozen=True, kw_only=True):
    """Whether a snapshot is whole. problems: the first 100; problem_count: all of them."""

    input_dir: str
    ok: bool
    file_count: int
    total_bytes: int
    database_schema: int
    cluster_epoch: int
    created_at_ms: int
    missing_payloads: int
    problem_count: int
    problems: tuple[str, ...]


class SnapshotChange(View, frozen=True, kw_only=True):
    """One thing that two snapshots do not have alike. change: ``added``, ``removed`` or ``changed``."""

    kind: str
    name: str
    change: str
    before: str | None
    after: str | None


class SnapshotDiffOutcome(View, frozen=True, kw_only=True):
    """What B has other than A. Counts are complete; changes are the first of each kind."""

    a: str
    b: str
    identical: bool
    tasks_added: int
    tasks_removed: int
    tasks_changed: int
    steps_added: int
    steps_removed: int
    steps_changed: int
    payloads_added: int
    payloads_removed: int
    payloads_changed: int
    settings_changed: int
    files_added: int
    files_removed: int
    files_changed: int
    changes: tuple[SnapshotChange, ...]


class DisasterReport(View, frozen=True, kw_only=True, rename=lambda name: name):
    """One run of ``dr-automation``; printed and stored in snake_case."""

    namespace: str
    timestamp: str
    snapshot_output: str
    snapshot_root: str
    snapshot_files: int
    snapshot_bytes: int
    offsite_output: str
    drill_enabled: bool
    drill_ok: bool
    drill_message: str
    drill_root: str


class SchemaMigrationRow(View, frozen=True, kw_only=True):
    """One migration that was applied to a root."""

    version: str
    description: str
    checksum: str
    applied_at_ms: int
    success: bool


class RollbackOutcome(View, frozen=True, kw_only=True):
    """What taking a migration back came to."""

    version: str
    statements: int
    removed_migration_row: bool


class PurgeOutcome(View, frozen=True, kw_only=True):
    """What was purged, or would be. Days of done messages, dead and retried messages, idempotency keys."""

    done_directories_purged: int
    dead_files_purged: int
    retry_files_purged: int
    idempotency_rows_purged: int


class CompactOutcome(View, frozen=True, kw_only=True):
    """What compacting gave back to the file system."""

    database_bytes_before: int
    database_bytes_after: int
    log_bytes_before: int
    log_bytes_after: int
    payload_files_removed: int
    payload_bytes_removed: int


class KeyringOutcome(View, frozen=True, kw_only=True):
    """The payload keys of a root. active_kid: "" and total_keys 0 where none was made yet."""

    active_kid: str
    total_keys: int
    key_file: str


class PayloadKeyUse(View, frozen=True, kw_only=True):
    """How many texts lie under one payload key. kid: ``?`` for texts whose key cannot be found out."""

    kid: str
    active: bool
    texts: int


class KeyringCountOutcome(KeyringOutcome, frozen=True, kw_only=True):
    """And how many texts are not under the active key: under older ones, or in clear text."""

    under_old_keys: int
    in_clear_text: int
    keys: tuple[PayloadKeyUse, ...]


class AuditIntegrityOutcome(View, frozen=True, kw_only=True):
    """Whether the audit log is as it was written.

    broken_line: the first record that is not, from 1 for the oldest that is kept, 0 for none; one more than there are
        when records were cut off the end.
    reason: empty, ``invalid_json``, ``prev_hash_mismatch``, ``hash_mismatch`` or ``signature_mismatch``.
    legacy_rows: records without a hash. tail_hash: of the last record that was checked.
    """

    ok: bool
    total_rows: int
    checked_rows: int
    legacy_rows: int
    broken_line: int
    reason: str
    tail_hash: str


class SiemExportOutcome(View, frozen=True, kw_only=True):
    """How many audit records were written to ``output_path``."""

    namespace: str
    output_path: str
    exported: int
