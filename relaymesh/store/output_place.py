"""Where a report or an export may not be written: over what a data root lives from.

Such a file takes the place of what was there. One slip of a path (``--out data/relaymesh.db``) would cost the whole
queue, and a file that is dropped into a lane would be taken for work.

    data/relaymesh.db          no      data/reports/x.json, data/alerts/x.json, data/dr/x.json     yes
    data/inbox/high/x.json     no      data/x.json                                                 yes
"""

from __future__ import annotations

import os
from pathlib import Path

from relaymesh.store.root import DATABASE, FOLDERS, IMPORTS, REPLACED

__all__ = ["root_of_own_file"]

_OPEN = frozenset(("reports", "alerts", "dr", "tmp", "trace"))
"""Folders that hold what is made from the root, and not what it is made of."""
_OWN_FOLDERS = frozenset((*FOLDERS, "inbox", "namespaces", IMPORTS, REPLACED)) - _OPEN
_OWN_FILES = ("relaymesh", ".relaymesh", "control-room-layouts.json")
"""How the names of files begin that lie in the root itself."""


def root_of_own_file(path: Path) -> Path | None:
    """Return the data root that a file belongs to, or would if it was written there; None for any other file.

    path: absolute. A folder counts as a root when it has a database, or an audit log that outlived it.
    """
    try:
        real = Path(os.path.realpath(path))
    except ValueError:
        return None  # no file can have this name, and whoever opens it says so
    for folder in real.parents:
        # Those of os.path, for they answer no where a Path raises.
        if os.path.lexists(folder / DATABASE) or os.path.isfile(folder / "audit" / "audit.lock"):
            first, *below = real.relative_to(folder).parts
            # Names are compared as Windows and macOS do.
            name = first.lower()
            own = name in _OWN_FOLDERS if below else name in _OWN_FOLDERS or name.startswith(_OWN_FILES)
            return folder if own else None
    return None
