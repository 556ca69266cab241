"""The folders of the file bus on disk: list, take by rename, read with a bound, put away with an answer beside.

Others write into the lanes, so what lies there is not trusted: entries are named by listing only, judged without
following links, opened so that no link, FIFO or device can stand in for a file, and moved by rename alone.

An answer appears whole and only once: it is written aside, and gets its name by a hard link, which fails when the name
is there. Whoever has made the answer's name has the file's name as well. Files are not synced: after a loss of power
the database still knows what became of them.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from relaymesh.core.ident import is_task_id
from relaymesh.core.inbox import FILE_BYTES_MAX, LANES, Held, Kind, Lane, is_being_written, may_be_unfinished
from relaymesh.store.own_folder import is_own_folder

__all__ = ["LIST_MAX", "Content", "FileOps", "InboxFiles", "Sight", "Unreadable"]

LIST_MAX = 20_000
"""Entries that one listing of a lane looks at. In lexical order among these; the rest with the next listing."""
_ANSWER_BYTES_MAX = 67_108_864 * 2
_OWNER = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}", re.ASCII)
_SEP = os.sep
_GONE = (errno.ENOENT, errno.ENOTDIR)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES, errno.EINVAL)
_OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)  # Windows has none: there the kind was judged just before, and links need a right
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)
_NEW_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_MODE = 0o640


class FileOps:
    """The calls that change a folder. A test passes its own, which ends the process between two of them."""

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def replace(self, source: str, target: str) -> None:
        os.replace(source, target)

    def write_new(self, path: str, data: bytes) -> None:
        """Write a file that must not be there; a link in its place is not followed."""
        with open(os.open(path, _NEW_FLAGS, _MODE), "wb") as file:
            file.write(data)

    def link(self, source: str, target: str) -> None:
        os.link(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def make_folder(self, path: str) -> None:
        os.makedirs(path, exist_ok=True)

    def drop_folder(self, path: str) -> None:
        os.rmdir(path)


@dataclass(frozen=True, slots=True)
class Sight:
    """An entry of a lane."""

    lane: Lane
    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of a file, and whether they may still change."""

    data: bytes
    unfinished: bool


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why a file cannot be read. later: it may be otherwise in a moment. gone: another process has it."""

    code: str
    sentence: str
    later: bool = False
    gone: bool = False


class InboxFiles:
    """The folders of one root, for one owner.

    owner: the name of this process' folder in ``processing``; nobody else may be at work under it
    (relaymesh.store.presence).
    """

    def __init__(self, root: Path, owner: str, ops: FileOps | None = None) -> None:
        # A node id may be two dots; a folder of that name would be the root itself.
        self.owner = owner if _OWNER.fullmatch(owner) else f"_{owner.replace('.', '_')[:60]}"
        assert _OWNER.fullmatch(self.owner)
        self._ops = ops or FileOps()
        # Text, not Path: making one costs more than the rename of the file that it names.
        self._root = os.fspath(root)
        self._inbox = os.path.join(self._root, "inbox")
        self._lanes: dict[Lane, str] = {lane: os.path.join(self._inbox, lane) for lane in LANES}
        self._processing = os.path.join(self._root, "processing")
        self._own = os.path.join(self._processing, self.owner)
        self._made: set[str] = set()

    # -- lanes -------------------------------------------------------------------------------------------------------

    # A lane that is a link, or lies below one, is none: what is there was not handed in, and would be moved away.

    def changed_ns(self, lane: Lane) -> int:
        """Return the instant of the last change of a lane, 0 when it is not there."""
        try:
            return os.stat(self._lanes[lane]).st_mtime_ns if self._is_ours(lane) else 0
        except OSError:
            return 0

    def list_lane(self, lane: Lane) -> tuple[list[Sight], bool]:
        """Return the entries of a lane by name, those that are being written left out, and whether that is all."""
        found: list[Sight] = []
        if not self._is_ours(lane):
            return [], True
        try:
            with os.scandir(self._lanes[lane]) as entries:
                for entry in entries:
                    if len(found) >= LIST_MAX:
                        return sorted(found, key=_by_name), False
                    if not is_being_written(entry.name):
                        found.append(Sight(lane, entry.name, _kind(entry)))
        except OSError:
            return [], True
        return sorted(found, key=_by_name), True

    def waiting(self, lane: Lane, files_max: int = LIST_MAX) -> int:
        """Return how many entries of a lane wait to be taken, counted no further than ``files_max``."""
        if not self._is_ours(lane):
            return 0
        try:
            with os.scandir(self._lanes[lane]) as entries:
                return sum(1 for _ in islice((one for one in entries if not is_being_written(one.name)), files_max))
        except OSError:
            return 0

    def _is_ours(self, lane: Lane) -> bool:
        return is_own_folder(self._inbox) and is_own_folder(self._lanes[lane])

    def take(self, sight: Sight, held: Held) -> bool:
        """Take an entry; False when it is not there any more.

        Raises:
            OSError: it cannot be moved.
        """
        return self._rename(
            f"{self._lanes[sight.lane]}{_SEP}{sight.name}", f"{self._own_folder()}{_SEP}{held.file_name}"
        )

    # -- processing --------------------------------------------------------------------------------------------------

    def held(self, owner: str | None = None) -> Iterator[str]:
        """Yield the names in the folder of an owner, ours by default, in no order."""
        with contextlib.suppress(OSError), os.scandir(os.path.join(self._processing, owner or self.owner)) as entries:
            for entry in entries:
                yield entry.name

    def other_owners(self) -> list[str]:
        """Return the names of the other folders in ``processing``."""
        try:
            with os.scandir(self._processing) as entries:
                return sorted(
                    entry.name
                    for entry in entries
                    if entry.name != self.owner and _OWNER.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
                )
        except OSError:
            return []

    def adopt(self, owner: str, held: Held) -> bool:
        """Take a file over from another owner; False when it is not there any more."""
        source = os.path.join(self._processing, owner, held.file_name)
        return self._rename(source, f"{self._own_folder()}{_SEP}{held.file_name}")

    def drop_owner(self, owner: str) -> None:
        """Remove the folder of an owner that has ended, if it is empty but for what it was writing aside."""
        folder = os.path.join(self._processing, owner)
        with contextlib.suppress(OSError):
            for name in os.listdir(folder):
                if name.startswith(".") and name.endswith(".tmp") and is_task_id(name[1:-4]):
                    self._ops.unlink(os.path.join(folder, name))
            self._ops.drop_folder(folder)

    def remark(self, old: Held, new: Held) -> bool:
        """Give a file of ours another mark or ticket; False when it is not there any more."""
        return self._rename(f"{self._own}{_SEP}{old.file_name}", f"{self._own}{_SEP}{new.file_name}")

    def read(self, held: Held, now_ms: int) -> Content | Unreadable:
        """Read a file of ours; never more than FILE_BYTES_MAX, and nothing but a file that is only here."""
        path = f"{self._own}{_SEP}{held.file_name}"
        try:
            if sys.platform == "win32" and not stat.S_ISREG(os.lstat(path).st_mode):
                return _NOT_A_FILE
            descriptor = os.open(path, _OPEN_FLAGS)
        except OSError as error:
            return _why_not(error)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                return _NOT_A_FILE
            young = may_be_unfinished(found.st_mtime_ns // 1_000_000, now_ms)
            if found.st_nlink > 1:
                # It may be a link to a file that its giver cannot read, and we can.
                sentence = "the file has another name beside this one: hand in a copy"
                return Unreadable("hard_link", sentence, later=young)
            if found.st_size > FILE_BYTES_MAX:
                return _TOO_LARGE
            data = _read_all(descriptor, found.st_size)
            if len(data) > FILE_BYTES_MAX:
                return _TOO_LARGE
            return Content(data, young)
        except OSError as error:
            return _why_not(error)
        finally:
            os.close(descriptor)

    def empty(self, held: Held) -> None:
        """Put an empty file in the place of one of ours whose content is in the database, if it has any.

        Not by writing into it: it may belong to somebody who lets us read it only.

        Raises:
            OSError: the disk refuses.
        """
        path, aside = f"{self._own}{_SEP}{held.file_name}", f"{self._own}{_SEP}.{held.ticket}.tmp"
        try:
            if os.lstat(path).st_size == 0:
                return
        except FileNotFoundError:
            return
        with contextlib.suppress(FileNotFoundError):
            self._ops.unlink(aside)  # of a process that ended just here
        self._ops.write_new(aside, b"")
        self._ops.replace(aside, path)

    # -- done and dead -----------------------------------------------------------------------------------------------

    def put_away(self, held: Held, folder: str, ending: str, answer: bytes) -> str | None:
        """Move a file of ours to ``folder``, with the answer beside; return its name there, None when it is gone.

        ending: of the answer's name, ``.result.json`` or ``.reason.json``. The file keeps its name, or gets its ticket
        in front when another one has that already.

        Raises:
            OSError: the disk refuses. Doing it again goes on where it stopped.
        """
        target = os.path.join(self._root, *folder.split("/"))
        self._make(target)
        source = f"{self._own}{_SEP}{held.file_name}"
        if not os.path.lexists(source):
            return None
        aside = f"{target}{_SEP}.{held.ticket}.tmp"
        for name in (held.name, f"{held.ticket}~{held.name}"):
            place = f"{target}{_SEP}{name}"
            if os.path.lexists(place):
                continue
            beside = f"{place}{ending}"
            if self._publish(aside, beside, answer) or _ticket_in(beside) == held.ticket:
                with contextlib.suppress(FileNotFoundError):
                    self._ops.unlink(aside)  # also that of an owner which ended just here
                return name if self._rename(source, place) else None
        raise FileExistsError(errno.EEXIST, "the name with its ticket is taken", held.name)

    def _publish(self, aside: str, path: str, data: bytes) -> bool:
        """Write an answer so that it appears whole; False when the name is there."""
        if os.path.lexists(path):
            return False
        try:
            self._ops.write_new(aside, data)
        except FileExistsError:  # of an owner that ended while it wrote
            self._ops.unlink(aside)
            self._ops.write_new(aside, data)
        try:
            self._ops.link(aside, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS or os.path.lexists(path):
                raise
            # A disk without hard links: whole, but two owners could answer under one name in the same instant.
            self._ops.rename(aside, path)
        return True

    # -- what they share ---------------------------------------------------------------------------------------------

    def _rename(self, source: str, target: str) -> bool:
        try:
            self._ops.rename(source, target)
        except OSError as error:
            if error.errno in _GONE:
                if os.path.isdir(os.path.dirname(target)):
                    return False
                self._made.clear()  # somebody has removed the folder: make it again next time
            raise
        return True

    def _own_folder(self) -> str:
        self._make(self._own)
        return self._own

    def _make(self, folder: str) -> None:
        if folder not in self._made:
            self._ops.make_folder(folder)
            if len(self._made) > 100:
                self._made.clear()
            self._made.add(folder)


_NOT_A_FILE = Unreadable("not_a_file", "this is no file, but a link, a FIFO, a socket or a device: hand in a file")
_TOO_LARGE = Unreadable(
    "file_too_large", f"the file is larger than {FILE_BYTES_MAX:,} bytes: put the data elsewhere and hand in its name"
)


def _by_name(sight: Sight) -> str:
    return sight.name


def _kind(entry: os.DirEntry[str]) -> Kind:
    try:
        if entry.is_file(follow_symlinks=False):
            return Kind.FILE
        return Kind.FOLDER if entry.is_dir(follow_symlinks=False) else Kind.OTHER
    except OSError:
        return Kind.OTHER


def _why_not(error: OSError) -> Unreadable:
    if error.errno in _GONE:
        return Unreadable("gone", "it is not there any more", gone=True)
    if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
        return _NOT_A_FILE
    why = error.strerror or type(error).__name__
    if isinstance(error, PermissionError) and sys.platform != "win32":
        return Unreadable("unreadable", f"the file cannot be read ({why}): let the group of the inbox read it")
    # On Windows somebody has it open; elsewhere the disk, or our own limit of open files, is at fault.
    return Unreadable("unreadable", f"the file cannot be read ({why})", later=True)


def _read_all(descriptor: int, size: int) -> bytes:
    """Read to the end, but no more than one byte above the bound, however the file grows."""
    parts, room = [], FILE_BYTES_MAX + 1
    ask = min(size + 1, room)
    while room and (part := os.read(descriptor, ask)):
        parts.append(part)
        room -= len(part)
        ask = min(1_048_576, room)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _ticket_in(path: str) -> str | None:
    """Return the ticket that an answer was written for, None when the file is something else."""
    try:
        with open(os.open(path, _OPEN_FLAGS), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            answer = json.loads(file.read(_ANSWER_BYTES_MAX))
    except (OSError, ValueError, RecursionError):
        return None
    ticket = answer.get("ticket") if isinstance(answer, dict) else None
    return ticket if isinstance(ticket, str) else None
