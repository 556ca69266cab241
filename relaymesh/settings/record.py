"""What was last known of a root's settings, so that any process can say what an edit has changed; and the open alert.

    run/settings.json      the effective values, of the file alone: overrides from the environment are a process's own
    alerts/settings.json   the settings file or the retry policies cannot be used; what runs keeps the values it had

A secret is compared by a keyed digest, and the file is read by its owner only. A record that is missing or damaged
counts as one with all defaults: the next load then says what differs from those.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Mapping
from pathlib import Path

import msgspec

from relaymesh.core.setting import Value
from relaymesh.core.setting_table import SECRET, table
from relaymesh.settings.aside import replace_file

__all__ = [
    "Alert",
    "Recorded",
    "clear_alert",
    "comparable",
    "no_record",
    "read_alert",
    "read_record",
    "write_alert",
    "write_record",
]

_RECORD = Path("run", "settings.json")
_ALERT = Path("alerts", "settings.json")
_BYTES_MAX = 4_194_304


class Recorded(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """values: by key, the secret as a digest. from_file: there was a file. salt: of the digest, hex."""

    values: dict[str, bool | int | str | list[str]]
    from_file: bool
    salt: str


class Alert(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A file cannot be used since then. code, message: of the error; node_id: who found it, None for a command."""

    code: str
    message: str
    since_ms: int
    node_id: str | None = None


_RECORD_DECODER = msgspec.json.Decoder(Recorded)
_ALERT_DECODER = msgspec.json.Decoder(Alert)


def read_record(root: Path) -> Recorded | None:
    """Return what was last recorded for the root, or None when there is no record or a damaged one.

    A key that the record does not know, from before it existed, has its default there.
    """
    try:
        recorded = _RECORD_DECODER.decode(_read(root / _RECORD))
        bytes.fromhex(recorded.salt)
    except (OSError, ValueError):
        return None
    return _complete(recorded)


def no_record() -> Recorded:
    """Return what a root without a record is compared with: the defaults, and a salt of its own."""
    return _complete(Recorded(values={}, from_file=False, salt=secrets.token_hex(16)))


def _complete(recorded: Recorded) -> Recorded:
    defaults = comparable({setting.name: setting.default for setting in table()}, recorded.salt)
    values = {name: recorded.values.get(name, default) for name, default in defaults.items()}
    return msgspec.structs.replace(recorded, values=values)


def write_record(root: Path, recorded: Recorded) -> None:
    """Record what holds now; the caller holds the lock of the root's settings.

    Raises:
        OSError: it cannot be written; the record is as it was.
    """
    replace_file(root / _RECORD, msgspec.json.format(msgspec.json.encode(recorded), indent=2) + b"\n", private=True)


def comparable(values: Mapping[str, Value], salt: str) -> dict[str, bool | int | str | list[str]]:
    """Return values in a form that can be stored and compared and does not reveal the secret."""
    shown = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    secret = str(values.get(SECRET, ""))
    digest = hashlib.blake2b(secret.encode(), key=bytes.fromhex(salt), digest_size=32)
    shown[SECRET] = digest.hexdigest() if secret else ""
    return shown


def read_alert(root: Path) -> Alert | None:
    """Return the open alert of the root, or None; one that cannot be read is none."""
    with contextlib.suppress(OSError, ValueError):  # MsgspecError is a ValueError
        return _ALERT_DECODER.decode(_read(root / _ALERT))
    return None


def write_alert(root: Path, alert: Alert) -> None:
    """Raise the alert; one that is open for the same reason keeps its time.

    Raises:
        OSError: it cannot be written.
    """
    former = read_alert(root)
    if former is not None and (former.code, former.message) == (alert.code, alert.message):
        return
    replace_file(root / _ALERT, msgspec.json.format(msgspec.json.encode(alert), indent=2) + b"\n", private=False)


def clear_alert(root: Path) -> None:
    """End the alert, if there is one.

    Raises:
        OSError: it cannot be removed.
    """
    (root / _ALERT).unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(_BYTES_MAX)
