"""Where the parts of the audit trail of a root lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Place"]


@dataclass(frozen=True, slots=True)
class Place:
    """The files of one scoped root."""

    root: Path

    @property
    def log(self) -> Path:
        """The rows since the last rotation."""
        return self.root / "audit" / "audit.log"

    @property
    def lock(self) -> Path:
        """Whose turn it is, and the head."""
        return self.root / "audit" / "audit.lock"

    @property
    def segments(self) -> Path:
        """The folder of what was rotated out."""
        return self.root / "audit" / "segments"

    @property
    def security(self) -> Path:
        """The folder of the key."""
        return self.root / "security"

    def plain(self, number: int) -> Path:
        """A segment that waits to be compressed."""
        return self.segments / f"audit-{number:08d}.jsonl"

    def packed(self, number: int) -> Path:
        """A compressed segment."""
        return self.segments / f"audit-{number:08d}.jsonl.gz"

    def index(self, number: int) -> Path:
        """What a compressed segment holds, so that a query need not read it."""
        return self.segments / f"audit-{number:08d}.idx"
