"""Text and files that a command is told to read: an argument, ``@FILE``, a path, or ``-`` for stdin."""

from __future__ import annotations

import os
import sys
from typing import BinaryIO

from relaymesh.errors import InputError

__all__ = ["NotReadableError", "NotTextError", "open_bytes", "read_bytes", "text_of"]


class NotTextError(InputError):
    """What should be text is not UTF-8."""

    code = "not_utf8"

    def __init__(self, where: str, offset: int) -> None:
        super().__init__(where, offset)
        self.where, self.offset = where, offset

    def __str__(self) -> str:
        return f"{self.where} is not UTF-8 text (byte {self.offset}): convert it or encode it; nothing was stored"


class NotReadableError(InputError):
    """A file that was named cannot be read."""

    code = "not_readable"

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(path, cause)
        self.path, self.cause = path, cause

    def __str__(self) -> str:
        if not self.path:
            return "the name of the file is empty: name one after the @, or write @@ for text that starts with @"
        if self.path == "-":
            return f"stdin cannot be read ({self.cause}): give the command something to read, or name a file"
        return f"{self.path} cannot be read ({self.cause}): check the path and its permissions"


def text_of(argument: str, *, bytes_max: int) -> str:
    """Return the payload that ``--input`` names.

    ``-`` reads stdin, ``@PATH`` a file, ``@@...`` is text that starts with one ``@``, anything else is the text itself.
    Reads a little more than ``bytes_max``, so that what is too large is seen to be, and no more.

    Raises:
        NotTextError: not UTF-8.
        NotReadableError: the file cannot be read.
    """
    if argument == "-" or (argument.startswith("@") and not argument.startswith("@@")):
        path = argument.removeprefix("@")
        data = read_bytes(path, bytes_max=bytes_max + 4)
        where = "stdin" if path == "-" else path
    else:
        text = argument[1:] if argument.startswith("@@") else argument
        # Words of the command line that are not UTF-8 arrive as lone surrogates.
        data, where = os.fsencode(text), "--input"
    if len(data) > bytes_max:
        # Only the length matters now; a character may be cut in two.
        return data.decode("utf-8", "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotTextError(where, error.start) from error


def read_bytes(path: str, *, bytes_max: int) -> bytes:
    """Return at most ``bytes_max`` bytes of the file, or of stdin for ``-``.

    Raises:
        NotReadableError: the file cannot be read.
    """
    with open_bytes(path) as file:
        try:
            return file.read(bytes_max)
        except OSError as error:
            raise NotReadableError(path, error.strerror or type(error).__name__) from error


def open_bytes(path: str) -> BinaryIO:
    """Open the file for reading, or stdin for ``-``.

    Raises:
        NotReadableError: the file cannot be opened.
    """
    if path == "-" and sys.stdin is None:  # so Python starts when stdin is closed
        raise NotReadableError(path, "it is closed")
    try:
        # closefd: leaving the ``with`` must not take stdin away from whoever reads next.
        return open(sys.stdin.fileno(), "rb", closefd=False) if path == "-" else open(path, "rb")
    except (OSError, ValueError) as error:
        raise NotReadableError(path, getattr(error, "strerror", None) or "it cannot be opened") from error
