"""The terminal while the console has it: the other screen, no cursor; given back whatever happens."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Final

from rich.console import Console as Terminal
from rich.text import Text

__all__ = ["Screen", "can_draw", "plain", "terminal"]

_SIZE: Final = (80, 24)


def terminal() -> Terminal:
    """Return a console on stdout that shows what it is given and nothing else: no markup, no emoji, no highlighting."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        with contextlib.suppress(OSError, ValueError):
            reconfigure(errors="backslashreplace")  # a name that the terminal has no letters for
    return Terminal(markup=False, emoji=False, highlight=False, soft_wrap=False)


def plain(console: Terminal) -> bool:
    """Whether only ASCII can be shown."""
    return not (console.encoding or "").lower().startswith("utf")


def can_draw() -> bool:
    """Whether the terminal can be drawn upon: a dumb one has no way back to its first line."""
    return os.environ.get("TERM", "").lower() not in ("dumb", "unknown") and _is_terminal()


def _is_terminal() -> bool:
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


class Screen:
    """A context manager: the other screen is shown within, and what was there before comes back after."""

    def __init__(self) -> None:
        self.console = terminal()
        self.plain = plain(self.console)
        self._taken = False

    def size(self) -> tuple[int, int]:
        """Return columns and lines; 80 by 24 where nobody knows."""
        with contextlib.suppress(OSError, ValueError):
            width, height = os.get_terminal_size(sys.stdout.fileno())
            if width > 0 and height > 0:
                return width, height
        return _SIZE

    def __enter__(self) -> Screen:
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back()

    def take(self) -> None:
        """Show the other screen."""
        self._taken = True
        self.console.set_alt_screen(True)
        self.console.show_cursor(False)

    def give_back(self) -> None:
        """Show what was there before; more than once does no harm."""
        if self._taken:
            self._taken = False
            with contextlib.suppress(OSError):  # the terminal is gone
                self.console.show_cursor(True)
                self.console.set_alt_screen(False)

    def draw(self, lines: Sequence[Text], width: int, height: int) -> None:
        """Replace what is shown. The lines are no wider and no more than the terminal."""
        self.console.size = (width, height)
        self.console.update_screen(Text("\n", end="").join(lines))
