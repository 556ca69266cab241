"""Keys as they are pressed, and a way to be woken while waiting for them; a module for each kind of system."""

from __future__ import annotations

import sys
from typing import Protocol

__all__ = ["Keyboard", "open_keyboard"]


class Keyboard(Protocol):
    """Reads keys. Between ``take`` and ``give_back`` nothing that is typed is echoed, and no line is waited for."""

    def take(self) -> None:
        """Begin to read single keys."""

    def give_back(self) -> None:
        """Leave the terminal as it was; more than once does no harm."""

    def wait(self, timeout_s: float) -> list[str]:
        """Return the keys that were pressed, after ``wake`` or in the end of the timeout none.

        Raises EOFError when the terminal is gone.
        """

    def wake(self) -> None:
        """End a wait; from any thread, and from a signal handler."""

    def close(self) -> None:
        """Give back, and free what was taken."""


def open_keyboard() -> Keyboard:
    """Return the keyboard of this system."""
    if sys.platform == "win32":
        from relaymesh.console.keyboard_windows import WindowsKeyboard

        return WindowsKeyboard()
    else:
        from relaymesh.console.keyboard_posix import PosixKeyboard

        return PosixKeyboard(sys.stdin.fileno())
