"""The auth file: read, kept up to date, and what is told when a change of it cannot be used.

    start   a file that is missing, open to others or wrong is refused: the listener does not start
    later   looked at before each request, at the cost of one stat; one that cannot be used changes nothing: who was
            known stays known, ``alerts/auth.json`` says why, and ``health`` is not ready until it is mended

The file holds secrets, so it must be its owner's alone (0600); where modes say nothing (Windows) that is not checked.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
import threading
from pathlib import Path
from typing import Final

import msgspec

from relaymesh.audit import AuditTrail
from relaymesh.core.json_object import RepeatedMemberError, members_once
from relaymesh.core.plural import counted
from relaymesh.core.principal import Principals, WrongPrincipalError, parse_principals
from relaymesh.errors import RootError
from relaymesh.settings.aside import replace_file

__all__ = ["ALERT", "AuthFile", "AuthFileError", "auth_problem", "read_auth_file"]

log = logging.getLogger("relaymesh.auth")

ALERT: Final = Path("alerts", "auth.json")
_BYTES_MAX: Final = 1_048_576
_FRESH_NS: Final = 2_000_000_000
_LOAD: Final = "runtime.auth.load"

Stamp = tuple[int, ...]


class AuthFileError(RootError):
    """The auth file cannot be used."""

    code = "bad_auth_file"

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(path, cause)
        self.path, self.cause = path, cause

    def __str__(self) -> str:
        return f"the auth file {self.path} cannot be used ({self.cause}): mend it"


class Alert(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A change of the auth file cannot be used. path: of the file; cause: holds no secret."""

    path: str
    cause: str
    since_ms: int


_ALERT_DECODER = msgspec.json.Decoder(Alert)


def read_auth_file(path: Path) -> Principals:
    """Return who is known.

    Raises:
        AuthFileError: missing, unreadable, open to others, larger than 1 MiB, or not what it has to be.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[Principals, Stamp]:
    try:
        # A FIFO would be waited for; what was opened is what is judged.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            os.close(descriptor)
            raise AuthFileError(str(path), "it is no file")
        with open(descriptor, "rb") as file:
            if os.name != "nt" and found.st_mode & 0o077:
                mode = f"{stat.S_IMODE(found.st_mode):o}"
                raise AuthFileError(str(path), f"others than its owner may use it, its mode is {mode}: chmod 600 it")
            data = file.read(_BYTES_MAX + 1)
    except OSError as error:
        raise AuthFileError(str(path), error.strerror or type(error).__name__) from error
    if len(data) > _BYTES_MAX:
        raise AuthFileError(str(path), f"larger than {_BYTES_MAX} bytes")
    try:
        return parse_principals(json.loads(data.decode("utf-8-sig"), object_pairs_hook=members_once)), _stamp_of(found)
    except json.JSONDecodeError as error:
        cause = f"not valid JSON at line {error.lineno}, column {error.colno}"
    except WrongPrincipalError as error:
        cause = str(error)
    except RepeatedMemberError:  # not its name: a token may stand in the wrong place
        cause = "a member stands there twice"
    except (ValueError, RecursionError):  # not UTF-8, a number of thousands of digits, or too deep
        cause = "it is no JSON that can be read"
    # Without the cause as an exception: it quotes the file.
    raise AuthFileError(str(path), cause) from None


class AuthFile:
    """Who is known by a file that may change while a listener runs. Thread-safe.

    Raises:
        AuthFileError: the file cannot be used at the start.
    """

    def __init__(self, path: Path, root: Path, audit: AuditTrail) -> None:
        self._path = path
        self._root = root
        self._audit = audit
        self._turn = threading.Lock()
        self._problem: str | None = None
        self._seen: object = None
        self._known, self._seen = _read(path)
        self._tell("ok")
        self._clear_alert()

    def principals(self, now_ms: int) -> Principals:
        """Return who is known now."""
        with self._turn:
            stamp = _stamp(self._path)
            if stamp != self._seen:
                self._look(stamp, now_ms)
            return self._known

    def _look(self, stamp: Stamp, now_ms: int) -> None:
        # A file that was changed a moment ago may change again under the same stamp: it is read once more.
        fresh = abs(now_ms * 1_000_000 - stamp[0]) <= _FRESH_NS
        try:
            known, stamp = _read(self._path)
        except AuthFileError as error:
            self._seen = None if fresh else stamp
            if self._problem != error.cause:
                self._problem = error.cause
                log.error("who may enter stays as it was: %s", error)
                self._tell("error", error.cause)
                self._raise_alert(error.cause, now_ms)
            return
        self._seen = None if fresh else stamp
        if known == self._known and self._problem is None:
            return
        self._known, self._problem = known, None
        log.info("the auth file was read again, it names %s", counted(len(known), "principal"))
        self._tell("reloaded")
        self._clear_alert()

    def _tell(self, result: str, cause: str | None = None) -> None:
        details: dict[str, object] = {"config": str(self._path), "principals": len(self._known)}
        if cause is not None:
            details["error"] = cause
        self._audit.record(_LOAD, actor="runtime", resource="runtime/auth", result=result, details=details)

    def _raise_alert(self, cause: str, now_ms: int) -> None:
        alert = Alert(path=str(self._path), cause=cause, since_ms=now_ms)
        with contextlib.suppress(OSError):
            replace_file(self._root / ALERT, msgspec.json.format(msgspec.json.encode(alert)) + b"\n", private=False)

    def _clear_alert(self) -> None:
        with contextlib.suppress(OSError):
            (self._root / ALERT).unlink(missing_ok=True)


def auth_problem(root: Path) -> str | None:
    """Return what is wrong with an auth file that a listener of the root uses, or None; for ``health``."""
    try:
        with open(root / ALERT, "rb") as file:
            alert = _ALERT_DECODER.decode(file.read(_BYTES_MAX))
    except (OSError, ValueError):
        return None
    try:
        read_auth_file(Path(alert.path))
    except AuthFileError as error:
        return f"{error}; the listeners go on with what they knew (no listener uses it: remove {root / ALERT})"
    return None  # mended; the listener takes it with the next request


def _stamp(path: Path) -> Stamp:
    try:
        return _stamp_of(os.stat(path))
    except OSError as error:
        return (0, error.errno or 0)


def _stamp_of(found: os.stat_result) -> Stamp:
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
