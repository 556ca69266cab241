"""A file of seeds, read again when it changes; and a thread that keeps its addresses current.

    file changed? ──▶ read, tell bad lines ──▶ host names looked up, again every minute ──▶ tell(addresses)

What is told is the whole list, in place of what was told before; a list that did not change is not told again.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal

from relaymesh.core.mesh.seed import Seed, Seeds, merge_seeds, parse_seeds
from relaymesh.errors import InputError
from relaymesh.net.resolve import Resolver

__all__ = ["FILE_BYTES_MAX", "LOOK_S", "SeedFile", "SeedFileError", "SeedWatch"]

FILE_BYTES_MAX: Final = 262_144
"""A longer file is refused."""
LOOK_S: Final = 2.0
"""Time between two looks at the file."""

_NAMES_SHOWN_MAX: Final = 3

_Facts = tuple[int, int, int] | None


class SeedFileError(InputError):
    """A file of seeds cannot be read."""

    code = "seeds_file"

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(path, cause)
        self.path, self.cause = path, cause

    def __str__(self) -> str:
        return f"the file of seeds {self.path} cannot be read ({self.cause}): name a text file of HOST:PORT lines"


class SeedFile:
    """One file. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._facts: _Facts | Literal["never"] = "never"

    def read(self) -> Seeds:
        """Return what the file says.

        Raises:
            SeedFileError: it is missing, no file, too long, or no text.
        """
        try:
            facts = self.path.stat()
            if not stat.S_ISREG(facts.st_mode) and not stat.S_ISDIR(facts.st_mode):
                # To open a pipe would wait for somebody to write, and a device may never end.
                self._facts = _of(facts)
                raise SeedFileError(str(self.path), "it is a pipe or a device")
            with open(self.path, "rb") as file:
                data = file.read(FILE_BYTES_MAX + 1)
        except OSError as error:
            self._facts = None
            raise SeedFileError(str(self.path), error.strerror or type(error).__name__) from error
        self._facts = _of(facts)
        if len(data) > FILE_BYTES_MAX:
            raise SeedFileError(str(self.path), f"it is longer than {FILE_BYTES_MAX // 1024} KiB")
        try:
            return parse_seeds(data.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise SeedFileError(str(self.path), "it is not UTF-8 text") from error

    def changed(self) -> bool:
        """Whether the file is another one than at the last ``read``; one stat."""
        try:
            facts = self.path.stat()
        except OSError:
            return self._facts is not None
        return self._facts != _of(facts)


def _of(facts: os.stat_result) -> _Facts:
    return facts.st_mtime_ns, facts.st_size, facts.st_ino


class SeedWatch:
    """Tells the addresses of seeds, of options and of a file, until it is closed.

    tell: gets the whole list; from a thread of this object, and from nobody else. say: gets one sentence about what is
    wrong with the file, when that changes, and one about names that nobody knows, when there is another one.
    look_s: time between two looks.
    """

    def __init__(
        self,
        seeds: Sequence[Seed],
        file: Path | None,
        *,
        tell: Callable[[tuple[str, ...]], None],
        say: Callable[[str], None],
        resolver: Resolver | None = None,
        look_s: float = LOOK_S,
    ) -> None:
        self._given = tuple(seeds)
        self._file = None if file is None else SeedFile(file)
        self._from_file: tuple[Seed, ...] = ()
        self._tell = tell
        self._say = say
        self._resolver = resolver or Resolver()
        self._look_s = look_s
        self._told: tuple[str, ...] | None = None
        self._said = ""
        self._unknown: tuple[str, ...] = ()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relaymesh-seeds", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop; returns when nothing more will be told."""
        self._over.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()
        self._resolver.close()

    def _run(self) -> None:
        while True:
            self.look()
            # The first answers of name servers come within moments: told when they are there, not at the next look.
            if self._resolver.wait(self._look_s) and not self._over.is_set():
                self.look()
            if self._over.wait(self._look_s):
                return

    def look(self) -> None:
        """Look at the file and at what is known of names, and tell what changed; the thread calls this."""
        if self._file is not None and self._file.changed():
            self._read(self._file)
        seeds = merge_seeds(self._given, self._from_file)
        self._resolver.forget(seeds)
        addresses = self._resolver.addresses(seeds)
        if addresses != self._told:
            self._told = addresses
            self._tell(addresses)
        unknown = self._resolver.unknown(seeds)
        if set(unknown) - set(self._unknown):
            names = ", ".join(unknown[:_NAMES_SHOWN_MAX])
            more = f" and {len(unknown) - _NAMES_SHOWN_MAX} more" if len(unknown) > _NAMES_SHOWN_MAX else ""
            self._say(f"no address is known of {names}{more}: check the names of these seeds; they are asked for again")
        self._unknown = unknown

    def _read(self, file: SeedFile) -> None:
        try:
            found = file.read()
        except SeedFileError as error:
            # What it said last stays good: an editor may be replacing it at this moment.
            self._complain(str(error))
            return
        self._from_file = found.entries
        self._complain(_sentence(file.path, found))

    def _complain(self, sentence: str) -> None:
        if sentence != self._said:
            self._said = sentence
            if sentence:
                self._say(sentence)


def _sentence(path: Path, found: Seeds) -> str:
    if not found.faulty:
        return ""
    listed = "; ".join(str(fault) for fault in found.faults)
    more = f"; and {found.faulty - len(found.faults)} more" if found.faulty > len(found.faults) else ""
    return f"{path}: the other seeds are used, but not these: {listed}{more}"
