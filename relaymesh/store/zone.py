"""Time zones by name, from the files of the system or the package tzdata (Windows has none of its own)."""

from __future__ import annotations

from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from relaymesh.core.nearest import did_you_mean, quoted
from relaymesh.errors import InputError

__all__ = ["UnknownZoneError", "zone_of"]


class UnknownZoneError(InputError):
    """There is no time zone of this name on this machine. ``hint`` names the nearest one, or is empty."""

    code = "unknown_zone"

    def __init__(self, zone: str, hint: str = "") -> None:
        super().__init__(zone, hint)
        self.zone, self.hint = zone, hint

    def __str__(self) -> str:
        return f"there is no time zone {quoted(self.zone)}{self.hint or ': write it like Europe/Berlin, or UTC'}"


@lru_cache(maxsize=64)
def zone_of(name: str) -> ZoneInfo:
    """Return the zone.

    Raises:
        UnknownZoneError
    """
    try:
        return ZoneInfo(name)
    # Of a name that leads out of the folder of zones, or that no file can have.
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UnknownZoneError(name[:80], did_you_mean(name[:80], sorted(available_timezones()))) from error
