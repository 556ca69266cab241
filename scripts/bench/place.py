"""Where a measurement keeps its data, and how it starts other Pythons.

The data lies under the current directory by default: the folder for temporary files is often in memory, and a figure at
full durability taken there says nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["REPO", "environment", "new_root", "workspace"]

REPO = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def workspace(parent: Path | None) -> Iterator[Path]:
    """Give a new folder under ``parent`` (default: ``tmp`` here), and remove it at the end."""
    base = parent or Path.cwd() / "tmp"
    made = not base.exists()
    base.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=base))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if made:
            with contextlib.suppress(OSError):  # somebody else has put something there
                base.rmdir()


def new_root(folder: Path, durability: str) -> Path:
    """Make an empty data root with this durability set."""
    root = Path(tempfile.mkdtemp(prefix="root-", dir=folder))
    (root / "relaymesh-settings.json").write_text(json.dumps({"durability": durability}), encoding="utf-8")
    return root


def environment() -> dict[str, str]:
    """Return the environment of a child that finds this checkout, and the modules here, without an installation.

    The folder of the scripts comes last: it holds a ``test.py``, which must not stand before the standard library's.
    """
    paths = [str(REPO), os.environ.get("PYTHONPATH", ""), str(REPO / "scripts")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path), "PYTHONSAFEPATH": "1"}


def python(*arguments: str) -> list[str]:
    """Return the command line of this very Python."""
    return [sys.executable, *arguments]
