"""Files and folders that are on disk when a call returns: written, synced, and their folder synced."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

__all__ = ["Copied", "copy_file", "hash_file", "remove_tree", "sync_folder", "sync_tree", "write_file"]

_BLOCK = 1024 * 1024


class Copied(NamedTuple):
    """What was read: its length in bytes, and its SHA-256 in hex."""

    length: int
    sha256: str


def copy_file(source: Path, target: Path, *, mode: int, length: int | None = None) -> Copied:
    """Copy a file and sync the copy; its folder is left to ``sync_tree``.

    mode: permission bits of the copy, set before anything is in it. length: no more than so many bytes of it.
    """
    digest, left, total = hashlib.sha256(), length, 0
    with open(source, "rb") as reader, open(target, "xb", opener=_opener(mode)) as writer:
        if sys.platform != "win32":
            os.fchmod(writer.fileno(), mode)  # the mask of the process must not take anything away
        while block := reader.read(_BLOCK if left is None else min(_BLOCK, left)):
            digest.update(block)
            writer.write(block)
            total += len(block)
            left = None if left is None else left - len(block)
        writer.flush()
        os.fsync(writer.fileno())
    return Copied(total, digest.hexdigest())


def hash_file(path: Path) -> Copied:
    """Return length and hash of a file."""
    digest, total = hashlib.sha256(), 0
    with open(path, "rb") as reader:
        while block := reader.read(_BLOCK):
            digest.update(block)
            total += len(block)
    return Copied(total, digest.hexdigest())


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, and sync it and its folder; mode 0600."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(aside, "wb", opener=_opener(0o600)) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Sync the entries of a folder."""
    if sys.platform == "win32":
        return  # Windows cannot open a folder; its rename is durable with the file's own flush
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Sync the entries of a folder and of all below it, from the bottom up."""
    for name, _, _ in os.walk(folder, topdown=False):
        sync_folder(Path(name))


def remove_tree(path: Path) -> None:
    """Remove a folder with everything in it, or a file; it may be gone already."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _opener(mode: int) -> Callable[[str, int], int]:
    return lambda name, flags: os.open(name, flags, mode)
