"""Keys from a Windows console: msvcrt, asked 20 times a second, because nothing there can be waited for together."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import msvcrt
    import threading
    import time
    from typing import Final

    __all__ = ["WindowsKeyboard"]

    _POLL_S: Final = 0.05
    _PLAIN: Final = {
        "\r": "enter",
        "\n": "enter",
        "\t": "tab",
        "\x1b": "escape",
        "\x08": "backspace",
        "\x7f": "backspace",
        " ": "space",
        "\x03": "interrupt",
        "\x0c": "redraw",
    }
    # The second half of what an extended key sends.
    _EXTENDED: Final = {
        "H": "up",
        "P": "down",
        "K": "left",
        "M": "right",
        "G": "home",
        "O": "end",
        "I": "page_up",
        "Q": "page_down",
        "S": "delete",
        "\x0f": "backtab",
    }

    class WindowsKeyboard:
        """The keyboard of the console of this process."""

        def __init__(self) -> None:
            self._woken = threading.Event()

        def take(self) -> None:
            """Begin to read: ``getwch`` needs no mode."""

        def give_back(self) -> None:
            """Nothing was changed."""

        def wait(self, timeout_s: float) -> list[str]:
            """Return the keys that were pressed."""
            until = time.monotonic() + timeout_s
            while not msvcrt.kbhit():
                left = until - time.monotonic()
                if left <= 0:
                    return []
                if self._woken.wait(min(_POLL_S, left)):
                    self._woken.clear()
                    return []
            keys = []
            while msvcrt.kbhit():
                mark = msvcrt.getwch()
                if mark in ("\x00", "\xe0"):
                    name = _EXTENDED.get(msvcrt.getwch())
                else:
                    name = _PLAIN.get(mark, mark if mark.isprintable() else None)
                keys += [name] if name is not None else []
            return keys

        def wake(self) -> None:
            """End a wait."""
            self._woken.set()

        def close(self) -> None:
            """Nothing was opened."""
