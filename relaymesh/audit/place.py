"""Where the parts of the audit trail of a root lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Place"]


@dataclass(frozen=True, slots=True)
class Place:
    """The files of one scoped root. Paths are made once: a third of what a small batch cost went into making them.

    log: the rows since the last rotation. lock: whose turn it is, and the head. segments: the folder of what was
    rotated out. security: the folder of the key.
    """

    root: Path
    log: Path = field(init=False)
    lock: Path = field(init=False)
    segments: Path = field(init=False)
    security: Path = field(init=False)

    def __post_init__(self) -> None:
        folder = self.root / "audit"
        for name, path in (
            ("log", folder / "audit.log"),
            ("lock", folder / "audit.lock"),
            ("segments", folder / "segments"),
            ("security", self.root / "security"),
        ):
            object.__setattr__(self, name, path)

    def plain(self, number: int) -> Path:
        """A segment that waits to be compressed."""
        return self.segments / f"audit-{number:08d}.jsonl"

    def packed(self, number: int) -> Path:
        """A compressed segment."""
        return self.segments / f"audit-{number:08d}.jsonl.gz"

    def index(self, number: int) -> Path:
        """What a compressed segment holds, so that a query need not read it."""
        return self.segments / f"audit-{number:08d}.idx"
