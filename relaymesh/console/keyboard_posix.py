"""Keys from a POSIX terminal: termios for single keys, a pipe to be woken by."""

from __future__ import annotations

import sys

if sys.platform != "win32":
    import contextlib
    import os
    import select
    import termios
    import tty
    from typing import Any

    from relaymesh.core.console_key import KeyDecoder

    __all__ = ["PosixKeyboard"]

    _READ_BYTES = 1_024
    _ESCAPE_S = 0.05
    """How long a lone escape waits for the rest of a sequence."""

    class PosixKeyboard:
        """The keyboard of one terminal. descriptor: of the terminal, open for reading."""

        def __init__(self, descriptor: int) -> None:
            self._descriptor = descriptor
            self._before: list[Any] | None = None
            self._decoder = KeyDecoder()
            self._woken, self._waker = os.pipe()
            for end in (self._woken, self._waker):
                os.set_blocking(end, False)

        def take(self) -> None:
            """Begin to read single keys; Ctrl-C and Ctrl-Z stay signals."""
            if self._before is None:
                self._before = termios.tcgetattr(self._descriptor)
                tty.setcbreak(self._descriptor, termios.TCSANOW)

        def give_back(self) -> None:
            """Leave the terminal as it was."""
            before, self._before = self._before, None
            if before is not None:
                with contextlib.suppress(termios.error):  # it is gone
                    # What was typed and not read is dropped: it was for us, not for the shell.
                    termios.tcsetattr(self._descriptor, termios.TCSAFLUSH, before)

        def wait(self, timeout_s: float) -> list[str]:
            """Return the keys that were pressed. Raises EOFError when the terminal is gone."""
            if self._decoder.pending:
                timeout_s = min(timeout_s, _ESCAPE_S)
            ready, _, _ = select.select([self._descriptor, self._woken], [], [], max(0.0, timeout_s))
            if self._woken in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._woken, _READ_BYTES)
            if self._descriptor not in ready:
                return self._decoder.flush() if self._decoder.pending and not ready else []
            try:
                data = os.read(self._descriptor, _READ_BYTES)
            except OSError as error:
                raise EOFError from error
            if not data:
                raise EOFError
            return self._decoder.feed(data)

        def wake(self) -> None:
            """End a wait."""
            with contextlib.suppress(OSError):  # it is full of the same, or closed
                os.write(self._waker, b"w")

        def close(self) -> None:
            """Give back, and close the pipe."""
            self.give_back()
            waker, self._waker = self._waker, -1
            if waker >= 0:
                os.close(waker)
                os.close(self._woken)
