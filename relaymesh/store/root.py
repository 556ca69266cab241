"""The folder of one data root: where things lie, and how it is made."""

from __future__ import annotations

import re
from pathlib import Path

from relaymesh.store.error import RootReadOnlyError

__all__ = ["DATABASE", "create_layout", "has_database", "normalize_namespace", "scoped_root"]

DATABASE = "relaymesh.db"

_FOLDERS = (
    "meta",
    "payload",
    "processing",
    "inbox/high",
    "inbox/normal",
    "inbox/low",
    "done",
    "dead",
    "retry",
    "agents",
    "audit",
    "security",
    "trace",
    "replication",
    "reports",
    "alerts",
    "dr",
    "tmp",
    "run",
)


def normalize_namespace(name: str) -> str:
    """Return the name as it is used: lower case, ``a-z 0-9 _ - .``, never a path."""
    cleaned = re.sub(r"-+", "-", re.sub(r"[^a-z0-9_.-]", "-", name.strip().lower()))
    if cleaned.startswith("."):
        cleaned = f"ns{cleaned}"
    return cleaned or "default"


def scoped_root(root: Path, namespace: str) -> Path:
    """Return the folder that holds the namespace's data."""
    base = root.absolute()
    return base if namespace == "default" else base / "namespaces" / namespace


def create_layout(root: Path) -> None:
    """Create the folders of a root; one that is there already is left as it is.

    Raises:
        RootReadOnlyError: they cannot be created.
    """
    try:
        for folder in _FOLDERS:
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "security").chmod(0o700)
        (root / "run").chmod(0o700)
    except OSError as error:
        raise RootReadOnlyError(str(root), error.strerror or type(error).__name__) from error


def has_database(root: Path) -> bool:
    """Return whether the root has a database.

    Raises:
        RootReadOnlyError: that cannot be found out.
    """
    try:
        return (root / DATABASE).exists()
    except OSError as error:
        raise RootReadOnlyError(str(root), error.strerror or type(error).__name__) from error
