"""Names for tasks, steps, messages and leases: a prefix and a UUIDv7 that sorts by creation.

::

    tsk_018bcfe5-6800-7a3f-9c41-5d0c8e7b21aa
        └── 48 bits ──┘ │  │        74 bits: random at the first id of a millisecond, then
         wall time, ms  │  variant  raised by a random step for each further id
                        version 7

    same ms, or the clock went back ──▶ keep the ms, raise the 74 bits ──(full)──▶ ms + 1
    later ms ─────────────────────────▶ fresh 74 bits

So the ids of one generator grow strictly, whatever the clock does, and two generators that never heard of each other
collide with a chance of about 2^-73 per pair within one millisecond.

Source: RFC 9562, section 6.2, method 2 (monotonic random). Ours starts with the top bit of the 74 clear, so that there
is always room to count.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Final

__all__ = ["Ids", "is_task_id", "is_trace_id", "sole_step_id", "trace_of", "workflow_step_id"]

_HIGH_BITS: Final = 26
_LOW_BITS: Final = 48
_LOW_MAX: Final = (1 << _LOW_BITS) - 1

_TASK_ID: Final = re.compile(r"tsk_[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TRACE_ID: Final = re.compile(r"(?!0{32})[0-9a-f]{32}")


class Ids:
    """A source of fresh ids; not to be shared between threads.

    now_ms: wall time in ms since the Unix epoch, 48 bits.
    rng: give every generator its own; equal seeds and clocks give equal ids.
    """

    __slots__ = ("_high", "_low", "_ms", "_now_ms", "_prefix", "_random_bits")

    def __init__(self, now_ms: Callable[[], int], rng: random.Random) -> None:
        self._now_ms = now_ms
        self._random_bits = rng.getrandbits
        self._ms = -1
        self._high = 0
        self._low = 0
        self._prefix = ""

    def task(self) -> str:
        return "tsk_" + self._uuid7()

    def message(self) -> str:
        return "msg_" + self._uuid7()

    def lease(self) -> str:
        """Return a lease token."""
        return "lease_" + self._uuid7()

    def trace_id(self) -> str:
        """Return 32 hex digits, never all zero (W3C trace context)."""
        return f"{self._random_bits(128) or 1:032x}"

    def _uuid7(self) -> str:
        ms = self._now_ms()
        if ms > self._ms:
            self._start(ms)
        else:
            # A random step keeps the next id from being guessed out of this one.
            self._low += 1 + self._random_bits(32)
            if self._low > _LOW_MAX:
                self._carry()
        return f"{self._prefix}{self._low:012x}"

    def _start(self, ms: int) -> None:
        self._ms = ms
        self._high = self._random_bits(_HIGH_BITS - 1)
        self._low = self._random_bits(_LOW_BITS)
        self._write_prefix()

    def _carry(self) -> None:
        self._low &= _LOW_MAX
        self._high += 1
        if self._high >> _HIGH_BITS:
            self._start(self._ms + 1)
        else:
            self._write_prefix()

    def _write_prefix(self) -> None:
        """Write all but the last group: it stays the same for thousands of ids, and writing it costs most."""
        ms, high = self._ms, self._high
        version_group, variant_group = 0x7000 | high >> 14, 0x8000 | high & 0x3FFF
        self._prefix = f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-{version_group:04x}-{variant_group:04x}-"


def sole_step_id(task_id: str) -> str:
    """Return the id of a single-step task's step: it has the UUID of its task."""
    return "stp_" + task_id[4:]


def workflow_step_id(task_id: str, name: str) -> str:
    """Return the step id of the workflow step that the file calls ``name``."""
    return f"stp_{task_id}_{name}"


def is_task_id(text: str) -> bool:
    """Say whether the text has the form of a task id: ``tsk_`` and a lower-case UUID of any version."""
    return _TASK_ID.fullmatch(text) is not None


def is_trace_id(text: str) -> bool:
    """Say whether the text is a trace id: 32 lower-case hex digits, not all zero."""
    return _TRACE_ID.fullmatch(text) is not None


def trace_of(task_id: str, traceparent: str = "") -> str:
    """Return the trace id of a task: that of the W3C trace context it came with, else the digits of its own id."""
    if traceparent and is_trace_id(traceparent[3:35]):
        return traceparent[3:35]
    digits = task_id[4:].replace("-", "")
    return digits if _TRACE_ID.fullmatch(digits) else f"{1:032x}"
