"""One screen, printed: for somebody who only looks, and for terminals that cannot be drawn upon."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.text import Text

from relaymesh.console.draw import Look, once
from relaymesh.console.screen import plain, terminal

if TYPE_CHECKING:
    from relaymesh.status_view import StatusOutcome

__all__ = ["show"]


def show(status: StatusOutcome) -> None:
    """Print how a root stands."""
    console = terminal()
    look = Look(plain=plain(console), clock=time.strftime("%H:%M:%S"))
    console.print(Text("\n").join(once(status, console.width, look)), no_wrap=True, overflow="crop", crop=False)
