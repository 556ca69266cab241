"""Bytes of a terminal to names of keys: ``a``, ``C``, ``enter``, ``tab``, ``backtab``, ``escape``, ``page_down`` ...

A lone escape is the key itself or the beginning of a sequence; only time tells. Whoever reads waits a moment and then
calls ``flush``. What is no key that anybody knows is dropped, never passed on in pieces: the end of an unknown sequence
must not look like a letter that was typed.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["PENDING_BYTES_MAX", "KeyDecoder"]

PENDING_BYTES_MAX: Final = 64
"""Bytes of one unfinished sequence; a longer one is dropped up to its end."""

_CONTROL: Final = {
    0x03: "interrupt",
    0x04: "interrupt",
    0x08: "backspace",
    0x09: "tab",
    0x0A: "enter",
    0x0C: "redraw",
    0x0D: "enter",
    0x20: "space",
    0x7F: "backspace",
}
_SEQUENCES: Final = {
    "[A": "up",
    "[B": "down",
    "[C": "right",
    "[D": "left",
    "OA": "up",
    "OB": "down",
    "OC": "right",
    "OD": "left",
    "[H": "home",
    "[F": "end",
    "OH": "home",
    "OF": "end",
    "[1~": "home",
    "[4~": "end",
    "[7~": "home",
    "[8~": "end",
    "[5~": "page_up",
    "[6~": "page_down",
    "[Z": "backtab",
    "[3~": "delete",
}
_COMPLETE: Final = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.)", re.DOTALL)
_BEGUN: Final = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|O)?", re.DOTALL)


class KeyDecoder:
    """Takes bytes as they come, in pieces of any size."""

    def __init__(self) -> None:
        self._pending = b""
        self._skipping = False

    @property
    def pending(self) -> bool:
        """Whether something is unfinished, for which ``flush`` should be called after a moment."""
        return bool(self._pending)

    def feed(self, data: bytes) -> list[str]:
        """Return the keys that are complete now."""
        keys: list[str] = []
        for at in range(len(data)):
            keys += self._take(data[at : at + 1])
        return keys

    def flush(self) -> list[str]:
        """Return the key of what is unfinished: nothing more came."""
        pending, self._pending, self._skipping = self._pending, b"", False
        return ["escape"] if pending == b"\x1b" else []

    def _take(self, byte: bytes) -> list[str]:
        if self._skipping:
            # Of a sequence that was too long: its last byte ends it.
            self._skipping = not 0x40 <= byte[0] <= 0x7E
            return []
        if not self._pending:
            return self._begin(byte)
        if self._pending[:1] != b"\x1b":
            return self._within_character(byte)
        if self._pending == b"\x1b" and byte not in (b"[", b"O"):
            self._pending = b""
            # Escape, and then another key: one that was typed fast, or a key with Alt, which nobody uses here.
            return ["escape", *self._begin(byte)]
        self._pending += byte
        if _COMPLETE.fullmatch(self._pending):
            name = _SEQUENCES.get(self._pending[1:].decode("latin-1"))
            self._pending = b""
            return [name] if name is not None else []
        if not _BEGUN.fullmatch(self._pending):
            self._pending = b""  # no sequence at all
        elif len(self._pending) >= PENDING_BYTES_MAX:
            self._pending, self._skipping = b"", True
        return []

    def _begin(self, byte: bytes) -> list[str]:
        number = byte[0]
        if number in _CONTROL:
            return [_CONTROL[number]]
        if number == 0x1B or number >= 0xC2:
            self._pending = byte
            return []
        return [byte.decode("ascii")] if 0x21 <= number < 0x7F else []

    def _within_character(self, byte: bytes) -> list[str]:
        if not 0x80 <= byte[0] <= 0xBF:
            self._pending = b""
            return self._begin(byte)
        self._pending += byte
        first = self._pending[0]
        if len(self._pending) < (2 if first < 0xE0 else 3 if first < 0xF0 else 4):
            return []
        text, self._pending = self._pending.decode("utf-8", "ignore"), b""
        return [text] if text.isprintable() and text else []
