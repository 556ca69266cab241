"""The files that the demo reads, and what may be wrong with them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from relaymesh.errors import InputError

__all__ = ["FILES_MAX", "FILE_BYTES_MAX", "TOTAL_BYTES_MAX", "Source", "SourceError", "Sources", "read_sources"]

FILES_MAX = 100
FILE_BYTES_MAX = 1_048_576
TOTAL_BYTES_MAX = 16_777_216

TEXTS = Path(__file__).parent / "texts"
"""The texts that are used when no folder is named."""


class SourceError(InputError):
    """The folder cannot be used; nothing was started."""

    code = "demo_input"

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)


@dataclass(frozen=True, slots=True)
class Source:
    """One text. name: of its file, for people; whatever of it is no text is escaped."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Sources:
    """The texts, by name, and the names of the files that were left out because they are no text."""

    texts: tuple[Source, ...]
    left_out: tuple[str, ...]


def read_sources(folder: Path) -> Sources:
    """Read the files that lie directly in the folder; those whose name begins with a dot do not count.

    Raises:
        SourceError: there is no such folder, no text in it, too much, or it cannot be read.
    """
    texts: list[Source] = []
    left_out: list[str] = []
    room = TOTAL_BYTES_MAX
    for path in _files(folder):
        data = _read(path)
        name = _shown(path.name)
        room -= len(data)
        if room < 0:
            raise SourceError(
                f"the files in {folder} together exceed {TOTAL_BYTES_MAX:,} bytes, the limit of the demo: "
                "name a folder with less in it"
            )
        text = _text(data)
        if text is None:
            left_out.append(name)
        else:
            texts.append(Source(name, text))
    if not texts:
        what = "only files that are not UTF-8 text" if left_out else "no files"
        raise SourceError(f"{folder} has {what}: name a folder with text files directly in it")
    return Sources(tuple(texts), tuple(left_out))


def _files(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            found = sorted(Path(entry.path) for entry in entries if not entry.name.startswith(".") and entry.is_file())
    except FileNotFoundError:
        raise SourceError(f"there is no folder {folder}: name one with text files in it") from None
    except NotADirectoryError:
        raise SourceError(f"{folder} is no folder: name the folder that it lies in") from None
    except OSError as error:
        raise SourceError(f"{folder} cannot be read ({error.strerror}): check its permissions") from error
    if len(found) > FILES_MAX:
        raise SourceError(
            f"{folder} has {len(found):,} files, the demo takes at most {FILES_MAX}: name a folder with fewer"
        )
    return found


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror}): check its permissions") from error
    if len(data) > FILE_BYTES_MAX:
        raise SourceError(f"{path} has more than {FILE_BYTES_MAX:,} bytes, the limit of the demo: take it out")
    return data


def _text(data: bytes) -> str | None:
    """Return the text, or None for what is none: a zero byte stands in images and programs, not in texts."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _shown(name: str) -> str:
    """Return a file name as text that can be stored: what is not UTF-8 in it arrives as lone surrogates."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
