"""A JSON file of secrets below ``security/`` of a root: readable by its owner only, written by one process at a time.

It is written aside, synced and renamed, so a crash leaves the old content or the new one. Nothing that fails here
quotes the content: it is all secrets.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from relaymesh.core.json_object import members_once
from relaymesh.errors import RelayMeshError
from relaymesh.file_lock import Hold, holding
from relaymesh.plain_file import open_plain
from relaymesh.store.durable import sync_folder, write_file

__all__ = ["SecretFile"]

T = TypeVar("T")

_WAIT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class SecretFile:
    """What one kind of such files is.

    path: below the root. guard: name of the lock in ``run/``. schema: what its member ``schema`` says.
    bytes_max: a longer one is refused unread. wanted: what is expected, for the sentence of an error.
    error: made of the path and the cause.
    """

    path: str
    guard: str
    schema: str
    bytes_max: int
    wanted: str
    error: Callable[[str, str], RelayMeshError]

    def load(self, root: Path, parse: Callable[[dict[str, Any]], T]) -> T | None:
        """Return what ``parse`` makes of the object; None when there is no file.

        parse: raises ValueError for one that it cannot use.

        Raises:
            error: what is there is no such file.
        """
        path = root / self.path
        try:
            with open_plain(path) as file:
                data = file.read(self.bytes_max + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self.problem(root, error) from error
        try:
            content = json.loads(data, object_pairs_hook=members_once) if len(data) <= self.bytes_max else None
            if not isinstance(content, dict) or content.get("schema") != self.schema:
                raise ValueError("schema")
            return parse(content)
        except (ValueError, RecursionError):
            # Not chained: what json says about a document quotes it.
            raise self.problem(root, f"expected {self.wanted}") from None

    def save(self, root: Path, members: dict[str, Any]) -> None:
        """Write the object with these members and its schema; the caller is alone (``alone``).

        Raises:
            error: it cannot be written; the file is as it was.
        """
        path = root / self.path
        try:
            path.parent.parent.mkdir(parents=True, exist_ok=True)
            path.parent.mkdir(mode=0o700, exist_ok=True)  # the one mode that Windows knows as well
            with contextlib.suppress(OSError):
                path.parent.chmod(0o700)
            for left in path.parent.glob(f".{path.name}.*.tmp"):
                left.unlink(missing_ok=True)  # of a writer that was killed: we are alone here
            write_file(path, json.dumps({"schema": self.schema, **members}, indent=2).encode() + b"\n")
            sync_folder(path.parent.parent)
        except OSError as error:
            raise self.problem(root, error) from error

    @contextlib.contextmanager
    def alone(self, root: Path) -> Iterator[None]:
        """Be the only one who changes the file.

        Raises:
            error: another process has been changing it for 30 s.
        """
        try:
            with holding(root / "run" / self.guard, Hold.EXCLUSIVE, wait_s=_WAIT_S) as ours:
                if not ours:
                    raise self.problem(root, f"another process has been changing it for {_WAIT_S:g} s")
                yield
        except OSError as error:
            raise self.problem(root, error) from error

    def problem(self, root: Path, cause: str | OSError) -> RelayMeshError:
        """Return the error about the file of this root."""
        if isinstance(cause, OSError):
            cause = cause.strerror or type(cause).__name__
        return self.error(str(root / self.path), cause)
