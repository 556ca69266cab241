"""Put new entries of a folder in the place of old ones, such that a crash at any point is finished by the next caller.

    work/new/<entry>   what comes in, complete and synced
    work/journal.json  written last: from here on the swap goes forward only
    target/<entry>  ──▶ aside/<entry>,   work/new/<entry> ──▶ target/<entry>

Each step is one rename within a file system. Which of them were done can be read from the folders: an entry has come in
when it is no longer in ``work/new``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from relaymesh.store.durable import remove_tree, sync_folder, write_file

__all__ = ["JOURNAL", "Swap", "begin", "finish"]

JOURNAL = "journal.json"


class Swap(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is swapped. Paths are relative to the target folder.

    leaving: entries that go. arriving: entries that come. aside: the folder that takes what goes. note: what whoever
    began it wants to know at its end.
    """

    leaving: tuple[str, ...]
    arriving: tuple[str, ...]
    aside: str
    note: dict[str, object] = {}


_DECODER = msgspec.json.Decoder(Swap)


def begin(work: Path, swap: Swap) -> None:
    """Write the journal; everything that comes in lies in ``work/new`` and is synced."""
    write_file(work / JOURNAL, msgspec.json.encode(swap))


def finish(target: Path, work: Path, tell: Callable[[Swap], None] = lambda _: None) -> Swap | None:
    """Do what is left of a swap; return it, or None when none is pending.

    tell: called when all has come in; a second time when the process is killed right after it.

    Raises:
        OSError: the file system refused; call it again.
        msgspec.DecodeError: the journal is not one of ours.
    """
    try:
        swap = _DECODER.decode((work / JOURNAL).read_bytes())
    except FileNotFoundError:
        return None
    new, aside = work / "new", target / swap.aside
    aside.mkdir(parents=True, exist_ok=True)
    for entry in dict.fromkeys((*swap.leaving, *swap.arriving)):
        arrives = entry in swap.arriving
        if arrives and not os.path.lexists(new / entry):
            continue  # it has come in
        if os.path.lexists(target / entry):
            os.rename(target / entry, _free(aside / entry))
        if arrives:
            os.rename(new / entry, target / entry)
    for folder in (aside, aside.parent, new, target):
        sync_folder(folder)
    tell(swap)
    (work / JOURNAL).unlink()
    sync_folder(work)
    remove_tree(work)
    return swap


def _free(path: Path) -> Path:
    """Return a name that is not taken: an entry that somebody made between a crash and now is kept as well."""
    number = 2
    found = path
    while os.path.lexists(found):
        found = path.with_name(f"{path.name}.{number}")
        number += 1
    return found
