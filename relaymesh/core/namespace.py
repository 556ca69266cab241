"""Names of namespaces: what is written becomes a folder's name, and never a path."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["NAMESPACE_CHARS_MAX", "namespace_fault", "normalize_namespace"]

NAMESPACE_CHARS_MAX: Final = 100
"""A folder's name that every disk takes, with room for the paths below it on systems that bound these."""

# Names of devices on Windows, with any ending; a root may be moved there from anywhere.
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.ASCII)


def normalize_namespace(name: str) -> str:
    """Return the name as it is used: lower case, ``a-z 0-9 _ - .``, never a path."""
    cleaned = re.sub(r"-+", "-", re.sub(r"[^a-z0-9_.-]", "-", name.strip().lower()))
    if cleaned.startswith("."):
        cleaned = f"ns{cleaned}"
    return cleaned or "default"


def namespace_fault(normalized: str) -> str | None:
    """Return why no folder can have this name on some system that we run on, or None when one can."""
    if len(normalized) > NAMESPACE_CHARS_MAX:
        return f"has {len(normalized)} characters, and {NAMESPACE_CHARS_MAX} are the most"
    if _DEVICE.fullmatch(normalized):
        return "is the name of a device on Windows"
    return None
