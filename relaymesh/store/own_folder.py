"""Whether a folder of a root is one itself: a link in its place leads to files that are not ours to move or remove."""

from __future__ import annotations

import os
import stat

__all__ = ["is_own_folder"]

# A junction of Windows, which is no link to lstat there; the name is in ``stat`` on that system only.
_JUNCTION = 0xA0000003


def is_own_folder(path: str | os.PathLike[str]) -> bool:
    """Return whether there is a folder at a path, neither a link nor a junction to another."""
    try:
        facts = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(facts.st_mode) and getattr(facts, "st_reparse_tag", 0) != _JUNCTION
