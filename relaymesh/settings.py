"""The settings of one root: ``relaymesh-settings.json``, read once at start.

Keys are those of the reference; a file with an unknown key or a wrong type is refused with its path, so that a misspelt
limit is not ignored. A value below its floor is raised to the floor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from relaymesh.core.retry import RetryPolicy
from relaymesh.errors import RootError

__all__ = ["SETTINGS_FILE", "Settings", "SettingsError", "load_settings"]

SETTINGS_FILE = "relaymesh-settings.json"
_FILE_BYTES_MAX = 1_048_576


class SettingsError(RootError):
    """The settings file cannot be used; nothing was changed."""

    code = "bad_settings"

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(path, cause)
        self.path, self.cause = path, cause

    def __str__(self) -> str:
        return f"the settings file {self.path} is not valid ({self.cause}): mend or remove it"


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What an operator may set.

    lease_timeout_ms: how long a lease lasts without renewal; equal for all nodes of a root. 100 and up, sane from
    2,000. max_attempts, base_backoff_ms, max_backoff_ms: the retry policy of agents that have none of their own.
    retry_dispatch_limit: leases reclaimed per round of maintenance.
    durability: ``full`` survives power loss; ``fast`` survives a killed process only.
    """

    lease_timeout_ms: int = 15_000
    max_attempts: int = 3
    base_backoff_ms: int = 1_000
    max_backoff_ms: int = 60_000
    retry_dispatch_limit: int = 32
    durability: Literal["full", "fast"] = "full"

    @property
    def retry_policy(self) -> RetryPolicy:
        """The policy of agents that have none of their own."""
        return RetryPolicy(self.max_attempts, self.base_backoff_ms, self.max_backoff_ms)


# Made at import, so that threads never work out the type at the same time (relaymesh.wire.typed).
_DECODER = msgspec.json.Decoder(Settings)


def load_settings(root: Path) -> Settings:
    """Read the settings of a scoped root; a missing file means all defaults.

    Raises:
        SettingsError: unreadable, not JSON, an unknown key, or a wrong type.
    """
    path = root / SETTINGS_FILE
    try:
        with open(path, "rb") as file:
            data = file.read(_FILE_BYTES_MAX + 1)
    except (FileNotFoundError, NotADirectoryError):  # a root that is a file is refused by who opens it, in better words
        return Settings()
    except OSError as error:
        raise SettingsError(str(path), error.strerror or type(error).__name__) from error
    if len(data) > _FILE_BYTES_MAX:
        raise SettingsError(str(path), f"larger than {_FILE_BYTES_MAX} bytes")
    try:
        settings = _DECODER.decode(data.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SettingsError(str(path), str(error)) from error
    base_ms = max(1, settings.base_backoff_ms)
    return msgspec.structs.replace(
        settings,
        lease_timeout_ms=max(100, settings.lease_timeout_ms),
        max_attempts=max(1, settings.max_attempts),
        base_backoff_ms=base_ms,
        max_backoff_ms=max(base_ms, settings.max_backoff_ms),
        retry_dispatch_limit=max(1, settings.retry_dispatch_limit),
    )
