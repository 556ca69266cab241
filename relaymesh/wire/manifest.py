"""``manifest.json`` of a snapshot: what is in it, and by which hashes that can be proven.

The first six members are those that other programs know. ``sha256`` is the hash of the manifest without itself, so that
a changed number is found as well as a changed file.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import PurePosixPath

import msgspec

__all__ = ["FORMAT", "MANIFEST_BYTES_MAX", "Manifest", "SnapshotFile", "decode_manifest", "encode_manifest"]

FORMAT = "relaymesh.snapshot.v1"
MANIFEST_BYTES_MAX = 512 * 1024 * 1024
"""A longer manifest is refused: some three million files."""


class SnapshotFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file. path: below the snapshot's root, with slashes. mode: permission bits, 0o600 for what is private."""

    path: str
    bytes: int
    sha256: str
    mode: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a snapshot is. bytes: of all files together. missing_payloads: named by rows and not there at the export."""

    schema_version: str = FORMAT
    created_at: str
    source_root: str
    snapshot_root: str
    file_count: int
    bytes: int
    created_at_ms: int
    namespace: str
    database_schema: int
    cluster_epoch: int
    lease_epoch_max: int
    release: str
    missing_payloads: tuple[str, ...] = ()
    files: tuple[SnapshotFile, ...]
    sha256: str = ""


_DECODER = msgspec.json.Decoder(Manifest)


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the file's content, its own hash filled in."""
    sealed = msgspec.structs.replace(manifest, sha256=_digest(manifest))
    return msgspec.json.format(msgspec.json.encode(sealed), indent=2) + b"\n"


def decode_manifest(data: bytes) -> Manifest:
    """Return the manifest.

    Raises:
        ValueError: it is not one, or was changed; the text says what is wrong.
    """
    try:
        manifest = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"it cannot be read: {error}") from error
    if manifest.schema_version != FORMAT:
        raise ValueError(f"its format is {manifest.schema_version!r}, this release reads {FORMAT!r}")
    if manifest.sha256 != _digest(manifest):
        raise ValueError("it was changed: its own hash does not fit")
    if manifest.file_count != len(manifest.files) or manifest.bytes != sum(file.bytes for file in manifest.files):
        raise ValueError("its sums do not fit its list of files")
    seen: set[str] = set()
    for file in manifest.files:
        if not _is_inside(file.path) or file.path in seen:
            raise ValueError(f"the path {file.path[:120]!r} cannot be in a snapshot")
        seen.add(file.path)
    return manifest


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    if not parts or ".." in parts or path.startswith("/") or path != "/".join(parts) or "\0" in path:
        return False
    return os.name != "nt" or not ({":", "\\"} & set(path))


def _digest(manifest: Manifest) -> str:
    return hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(manifest, sha256=""))).hexdigest()
