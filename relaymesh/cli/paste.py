"""A command as somebody can paste it into this terminal, in this folder."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["command_line", "nearest_path", "shell_words"]


def command_line(root: str, namespace: str, words: Sequence[str]) -> str:
    """Return ``relaymesh --root ROOT WORDS`` with the program and the root written as they are found from here."""
    options = ["--root", nearest_path(root)]
    if namespace != "default":
        options += ["--namespace", namespace]
    return shell_words([*_program(), *options, *words])


def nearest_path(path: str) -> str:
    """Return the path relative to the working directory if it lies below it, else absolute."""
    try:
        relative = os.path.relpath(path)
    except ValueError:  # another drive
        return path
    return path if relative.startswith(os.pardir) else relative


def _program() -> list[str]:
    """``relaymesh`` if that starts this installation, else the path to it; a fresh checkout is on no search path."""
    beside = Path(sys.executable).with_name("relaymesh.exe" if sys.platform == "win32" else "relaymesh")
    if not beside.exists():
        return [sys.executable, "-m", "relaymesh"]
    found = shutil.which("relaymesh")
    if found is not None and os.path.samefile(found, beside):
        return ["relaymesh"]
    return [nearest_path(str(beside.with_suffix("") if sys.platform == "win32" else beside))]


def shell_words(words: Sequence[str]) -> str:
    """Return words as they are written on the command line of this system."""
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)
