"""`relaymesh top` in a real pseudo-terminal, and what its screen shows, as far as these tests need to know it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_CONTROL = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")
_FRAME = re.compile(r"\x1b\[1;1H")
_LINE = re.compile(r"\x1b\[\d+;1H")
PATIENCE_S = 30.0


class Session:
    """One process on a terminal of its own. ``screen()`` is what stands there now; ``raw`` all that was written."""

    def __init__(
        self,
        root: Path,
        *words: str,
        width: int = 80,
        height: int = 24,
        env: Mapping[str, str] | None = None,
        script: Path | None = None,
    ) -> None:
        self.master, self.terminal = pty.openpty()
        self.raw = ""
        self._set_size(width, height)
        self.modes_before = termios.tcgetattr(self.terminal)
        plain = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR")}
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(root)]
            if script
            else [sys.executable, "-m", "relaymesh", "--root", str(root), *words],
            stdin=self.terminal,
            stdout=self.terminal,
            stderr=self.terminal,
            start_new_session=True,
            preexec_fn=_own_terminal,
            env={**plain, "TERM": "xterm-256color", "PYTHONUTF8": "1", **(env or {})},
        )

    def _set_size(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def resize(self, width: int, height: int) -> None:
        self._set_size(width, height)
        self.process.send_signal(signal.SIGWINCH)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def read(self, wait_s: float = 0.05) -> None:
        with contextlib.suppress(OSError):
            while select.select([self.master], [], [], wait_s)[0]:
                data = os.read(self.master, 65536)
                if not data:
                    return
                self.raw += data.decode("utf-8", "replace")
                wait_s = 0.0

    def screen(self) -> list[str]:
        """Return the lines of the last frame that is whole: each begins with a jump to its place."""
        frames = [frame for frame in _FRAME.split(self.raw) if frame.count("\x1b[") >= 3]
        if not frames:
            return [""]
        lines = _LINE.split(frames[-1])
        return [_CONTROL.sub("", line).rstrip() for line in lines]

    def until(self, *words: str, without: str = "", within_s: float = PATIENCE_S) -> list[str]:
        """Return the screen as soon as it has all words and not the other one."""
        until = time.monotonic() + within_s
        while True:
            self.read()
            text = "\n".join(self.screen())
            if all(word in text for word in words) and not (without and without in text):
                return self.screen()
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.raw[-3000:]!r}"
            assert time.monotonic() < until, f"never saw {words} without {without!r}:\n{text}"

    def until_that(self, right: Callable[[list[str]], bool]) -> None:
        """Return as soon as the screen is right."""
        until = time.monotonic() + PATIENCE_S
        while not right(self.screen()):
            self.read()
            assert time.monotonic() < until, self.screen()

    def ended(self) -> int:
        """Return the exit status; check that the terminal is as it was before."""
        until = time.monotonic() + PATIENCE_S
        while self.process.poll() is None and time.monotonic() < until:
            self.read()
        self.read()
        status = self.process.wait(timeout=1)
        if "\x1b[?1049h" in self.raw:
            assert self.raw.rfind("\x1b[?1049l") > self.raw.rfind("\x1b[?1049h"), "the other screen was left standing"
            assert self.raw.rfind("\x1b[?25h") > self.raw.rfind("\x1b[?25l"), "the cursor stayed hidden"
        assert _modes(termios.tcgetattr(self.terminal)) == _modes(self.modes_before), "the terminal was not restored"
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for end in (self.master, self.terminal):
            with contextlib.suppress(OSError):
                os.close(end)


def _modes(attributes: list[Any]) -> list[Any]:
    return attributes[:4]


def _own_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
