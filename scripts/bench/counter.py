"""Instructions that this thread has run, counted by the processor: the same on a busy machine as on a quiet one.

Time on a shared machine says more about its other tenants than about a change of a few per cent; the count of
instructions of the same work differs by less than one. It leaves out what waits, and what a cache miss costs.

Source: perf_event_open(2).
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

__all__ = ["InstructionCounter"]

_SYSCALLS = {"x86_64": 298, "aarch64": 241}
_ATTRIBUTE_BYTES = 120
_HARDWARE, _INSTRUCTIONS = 0, 1
_EXCLUDE_KERNEL, _EXCLUDE_HYPERVISOR = 1 << 5, 1 << 6


class InstructionCounter:
    """Counts for the thread that made it; ``read`` returns None where the system does not let us count."""

    def __init__(self) -> None:
        self._fd = _open()

    def read(self) -> int | None:
        """Return the instructions since it was made, without those of the kernel."""
        if self._fd is None:
            return None
        (count,) = struct.unpack("Q", os.read(self._fd, 8))
        return int(count)

    def close(self) -> None:
        """Stop counting."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _open() -> int | None:
    number = _SYSCALLS.get(platform.machine())
    if sys.platform != "linux" or number is None:
        return None
    attribute = bytearray(_ATTRIBUTE_BYTES)
    flags = _EXCLUDE_KERNEL | _EXCLUDE_HYPERVISOR
    struct.pack_into("IIQQQQQ", attribute, 0, _HARDWARE, _ATTRIBUTE_BYTES, _INSTRUCTIONS, 0, 0, 0, flags)
    buffer = (ctypes.c_char * _ATTRIBUTE_BYTES).from_buffer(attribute)
    # This thread (0), on any processor (-1), in no group (-1).
    fd = ctypes.CDLL(None, use_errno=True).syscall(number, buffer, 0, -1, -1, 0)
    return fd if fd >= 0 else None
