"""The folder of one data root: where things lie, and how it is made."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from pathlib import Path

from relaymesh.core.namespace import namespace_fault, normalize_namespace
from relaymesh.errors import RootError, UsageError
from relaymesh.store.error import DatabaseGoneError, RootReadOnlyError, path_too_long
from relaymesh.store.own_folder import is_own_folder

__all__ = [
    "DATABASE",
    "FOLDERS",
    "GOSSIP_KEYS",
    "IMPORTS",
    "REPLACED",
    "NamespaceError",
    "RootFolderError",
    "RootIsFileError",
    "create_layout",
    "has_database",
    "normalize_namespace",
    "refuse_emptied",
    "refuse_file",
    "scoped_root",
    "signs_gossip",
]

DATABASE = "relaymesh.db"
GOSSIP_KEYS = "security/gossip-keys.json"
"""The keys of the mesh (relaymesh.store.gossip_ring); when it is there gossip is signed, whatever the settings say."""
IMPORTS = ".import"
"""Where an import prepares what comes in, and keeps its journal."""
REPLACED = "replaced"
"""Where imports keep what was there before."""

_LANES = ("inbox/high", "inbox/normal", "inbox/low")
_LANE_MODE = 0o2770
"""Programs that share the folder's group may hand in files, and these get its group, so that the node can read them."""
_PASSAGE_MODE = 0o010
_LOG_BYTES_READ = 1_048_576
FOLDERS = (
    "meta",
    "payload",
    "processing",
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
"""Folders of a root beside the lanes of its inbox."""


class RootIsFileError(RootError):
    """Where the data root is to be there is a file, at its path or above it."""

    code = "root_is_file"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path} is a file, and a data root is a folder: choose another --root"


class RootFolderError(RootError):
    """In the place of a folder of the root there is something else."""

    code = "root_folder"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path} is no folder, and the data root needs one there: move it away and try again"


class NamespaceError(UsageError):
    """A namespace cannot have this name."""

    code = "bad_namespace"

    def __init__(self, namespace: str, fault: str) -> None:
        super().__init__(namespace, fault)
        self.namespace, self.fault = namespace, fault

    def __str__(self) -> str:
        shown = self.namespace if len(self.namespace) <= 40 else f"{self.namespace[:40]}…"
        return f'the namespace "{shown}" {self.fault}: choose another --namespace'


def scoped_root(root: Path, namespace: str) -> Path:
    """Return the folder that holds the namespace's data. namespace: as it is normalized.

    Raises:
        NamespaceError: some system that we run on has no folder of that name.
    """
    fault = namespace_fault(namespace)
    if fault is not None:
        raise NamespaceError(namespace, fault)
    base = root.absolute()
    return base if namespace == "default" else base / "namespaces" / namespace


def signs_gossip(root: Path, secret: str) -> bool:
    """Whether gossip of a scoped root is signed: by the setting ``gossipSharedSecret``, or by its keys; one stat."""
    return bool(secret) or (root / GOSSIP_KEYS).exists()


def create_layout(root: Path) -> None:
    """Create the folders of a root; one that is there already is left as it is.

    Whatever the umask, the group may write into the lanes of the inbox and nowhere else. On Windows, where modes say
    nothing, all of them have the access list of the folder above.

    Raises:
        RootIsFileError, RootFolderError: a file is in the way.
        RootPathTooLongError: there could be no database in it.
        RootReadOnlyError: they cannot be created.
    """
    refuse_file(root)
    too_long = path_too_long(str(root / DATABASE))
    if too_long is not None:
        raise too_long
    try:
        for folder in ("", "inbox"):
            _make_folder(root / folder, _PASSAGE_MODE)
        with contextlib.suppress(FileExistsError):
            (root / "security").mkdir(mode=0o700)  # the one mode that Windows knows as well: for its owner alone
        for folder in FOLDERS:
            _make_folder(root / folder)
        for lane in _LANES if is_own_folder(root / "inbox") else ():  # none in a folder that a link leads to
            _make_folder(root / lane, _LANE_MODE, shared=True)
        (root / "security").chmod(0o700)
        (root / "run").chmod(0o700)
    except OSError as error:
        # Who may write but does not own a folder cannot set its mode: then it is that folder that has to be named.
        path = error.filename if error.errno == errno.EPERM and error.filename else root
        raise RootReadOnlyError(str(path), error.strerror or type(error).__name__) from error


def _make_folder(path: Path, mode: int = 0, *, shared: bool = False) -> None:
    """Make a folder with this mode and what the umask leaves; only one that is shared may be written by others."""
    if path.is_dir():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir():
            raise RootFolderError(str(path)) from None
        return  # another process was faster, and it sets the mode
    if sys.platform != "win32":
        path.chmod(mode if shared else (stat.S_IMODE(path.stat().st_mode) & ~0o022) | mode)


def has_database(root: Path) -> bool:
    """Return whether the root has a database.

    Raises:
        RootIsFileError: it cannot have one, because a file is in the way.
        RootReadOnlyError: that cannot be found out.
    """
    try:
        if (root / IMPORTS / "journal.json").exists():
            # An import was interrupted, or is at work just now: nobody may see half of it.
            from relaymesh.store.restore import finish_import

            finish_import(root)
        if (root / DATABASE).exists():
            return True
        refuse_file(root)
        return False
    except OSError as error:
        raise RootReadOnlyError(str(root), error.strerror or type(error).__name__) from error


def refuse_emptied(root: Path) -> None:
    """Do nothing if the root has a database with something in it, or never had a task.

    A full disk, a careless copy or a wrong ``rm`` leaves a root without its database. Whoever opened it next would make
    an empty one, and all work would seem never to have been handed in. The audit log tells the two apart. It is read
    only where there is no database, so this costs nothing otherwise.

    Raises:
        DatabaseGoneError
    """
    database = root / DATABASE
    if _size(database) or not _names_tasks(root / "audit"):
        return
    if _size(database):  # made meanwhile, by another process
        return
    raise DatabaseGoneError(str(database))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _names_tasks(audit: Path) -> bool:
    """Whether the log has a row about a task among its first, or so many rows that some were rotated out."""
    try:
        with open(audit / "audit.log", "rb") as log:
            if b'"task_id":"' in log.read(_LOG_BYTES_READ):
                return True
        return any((audit / "segments").iterdir())
    except OSError:
        return False


def refuse_file(root: Path) -> None:
    """Do nothing if the root is a folder, or could be made one.

    Raises:
        RootIsFileError: the nearest thing that is there, at its path or above it, is no folder.
    """
    for path in (root, *root.parents):
        try:
            # One look: between two another process may make the folder.
            mode = os.stat(path).st_mode
        except (OSError, ValueError):
            continue
        if not stat.S_ISDIR(mode):
            raise RootIsFileError(str(path))
        return
