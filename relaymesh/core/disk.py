"""When a disk is short of room."""

from __future__ import annotations

__all__ = ["short_of_disk"]


def short_of_disk(free_bytes: int, min_free_bytes: int) -> bool:
    """Whether less is free than must be. free_bytes: negative when unknown; min_free_bytes: 0 when nobody cares."""
    return min_free_bytes > 0 and 0 <= free_bytes < min_free_bytes
