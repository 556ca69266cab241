"""Frames on a pipe between a node and a worker process, and handing the pipe to a new process.

A frame is four bytes of length, big-endian, and then one message of ``relaymesh.wire.codec``. The pipe is private to
the two processes: its ends are inherited by number (POSIX) or by handle (Windows) and by nobody else, so that what a
user's program prints, or starts, never gets in between.
"""

from __future__ import annotations

import os
import struct
import sys
from typing import BinaryIO, Final

from relaymesh.wire.codec import MESSAGE_BYTES_MAX, MalformedMessageError, Message, decode, encode

__all__ = ["FrameReader", "export_fd", "import_fd", "write_message"]

_LENGTH: Final = struct.Struct(">I")


class FrameReader:
    """Reads messages from one end of a pipe."""

    def __init__(self, fd: int) -> None:
        self._file: BinaryIO = open(fd, "rb", buffering=256 * 1024)  # noqa: SIM115 - closed by close

    def read(self) -> Message | None:
        """Wait for the next message; None is the end of the pipe, also in the middle of a frame.

        Raises:
            MessageError: these bytes are no message of ours; what follows cannot be trusted either.
        """
        header = self._file.read(_LENGTH.size)
        if len(header) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack(header)
        if length > MESSAGE_BYTES_MAX:
            raise MalformedMessageError(f"a frame of {length} bytes is above the limit of {MESSAGE_BYTES_MAX}")
        data = self._file.read(length)
        return decode(data) if len(data) == length else None

    def close(self) -> None:
        self._file.close()


def write_message(fd: int, message: Message) -> None:
    """Write one message, waiting for room.

    Raises:
        OSError: the other end is gone.
        ValueError: the message is above the limit; the caller splits what can be that large.
    """
    data = encode(message)
    if len(data) > MESSAGE_BYTES_MAX:
        raise ValueError(f"a message of {len(data)} bytes is above the limit of {MESSAGE_BYTES_MAX}")
    view = memoryview(_LENGTH.pack(len(data)) + data)
    while view:
        view = view[os.write(fd, view) :]


def export_fd(fd: int) -> int:
    """Return the number that the new process needs for ``import_fd``; pass it in ``pass_fds`` or the handle list."""
    if sys.platform == "win32":
        import msvcrt

        handle = msvcrt.get_osfhandle(fd)
        os.set_handle_inheritable(handle, True)
        return handle
    else:
        return fd


def import_fd(number: int, flags: int) -> int:
    """Take over an inherited end (``flags``: os.O_RDONLY or os.O_WRONLY) and hand it down to nobody."""
    if sys.platform == "win32":
        import msvcrt

        os.set_handle_inheritable(number, False)
        return msvcrt.open_osfhandle(number, flags | os.O_BINARY)
    else:
        os.set_inheritable(number, False)
        return number
