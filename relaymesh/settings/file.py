"""The settings of one root: ``relaymesh-settings.json``, with overrides from the environment.

    default  <  relaymesh-settings.json  <  environment (RELAYMESH_<KEY IN UPPER SNAKE CASE>)

Keys are those of ``relaymesh.core.setting_table``. A file with an unknown key or a wrong type is refused with the path
of what is wrong, so that a misspelt limit is not ignored. A value below its floor is raised to the floor.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from relaymesh.core.json_object import RepeatedMemberError, members_once
from relaymesh.core.setting import Effective, Source, Value, WrongValueError, check, find, parse, settle
from relaymesh.core.setting_table import SECRET, Settings, by_name, table
from relaymesh.errors import RootError
from relaymesh.plain_file import open_plain

__all__ = [
    "BOM",
    "SETTINGS_FILE",
    "EnvironmentSettingError",
    "Loaded",
    "Settings",
    "SettingsError",
    "check_all",
    "decode",
    "from_environment",
    "load",
    "load_settings",
    "read_file",
]

SETTINGS_FILE = "relaymesh-settings.json"
_FILE_BYTES_MAX = 1_048_576
BOM = b"\xef\xbb\xbf"


class SettingsError(RootError):
    """The settings file cannot be used; nothing was changed."""

    code = "bad_settings"

    def __init__(self, path: str, cause: str, *, unreadable: bool = False, unwritable: bool = False) -> None:
        super().__init__(path, cause)
        self.path, self.cause, self.unreadable, self.unwritable = path, cause, unreadable, unwritable

    def __str__(self) -> str:
        if self.unwritable:  # to remove it would lose settings that are right
            return f"the settings file {self.path} cannot be written ({self.cause}): mend that; it is as it was"
        if self.unreadable:  # what it says may well be right
            return f"the settings file {self.path} cannot be read ({self.cause}): let this user read it as a file"
        return f"the settings file {self.path} is not valid ({self.cause}): mend or remove it"


class EnvironmentSettingError(RootError):
    """An environment variable that overrides a setting has a value which the setting cannot have."""

    code = "bad_settings_variable"

    def __init__(self, variable: str, cause: str) -> None:
        super().__init__(variable, cause)
        self.variable, self.cause = variable, cause

    def __str__(self) -> str:
        return f"the environment variable {self.variable} is not valid ({self.cause}): mend or unset it"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What one look at the settings found.

    mtime_ns: when the file was last changed, None without a file.
    given: what the file says, checked but not raised to floors.
    effective: with the environment; of_root: without it, as any process without overrides sees this root.
    """

    path: Path
    mtime_ns: int | None
    given: Mapping[str, Value] = field(repr=False)  # the secret is among them
    effective: Effective
    of_root: Effective

    @property
    def settings(self) -> Settings:
        return Settings.of(self.effective.values)

    @property
    def exposed(self) -> bool:
        """Whether the file holds a secret that others than its owner may read; False where modes say nothing."""
        if os.name == "nt" or not self.given.get(SECRET):
            return False
        try:
            return bool(os.stat(self.path).st_mode & 0o077)
        except OSError:
            return False


def load_settings(root: Path) -> Settings:
    """Read the settings of a scoped root; a missing file means all defaults.

    Raises:
        SettingsError: unreadable, not JSON, an unknown key, or a wrong type.
        EnvironmentSettingError
    """
    return load(root).settings


def load(root: Path, environment: Mapping[str, str] | None = None) -> Loaded:
    """Read the settings of a scoped root, and say where each came from; environment: by default that of this process.

    Raises:
        SettingsError, EnvironmentSettingError
    """
    path = root / SETTINGS_FILE
    found = read_file(path)
    data, mtime_ns = found if found is not None else (b"{}", None)
    given = check_all(decode(data, path), path)
    variables = from_environment(os.environ if environment is None else environment)
    layers = ((Source.FILE, given), (Source.ENVIRONMENT, variables))
    of_root = settle(table(), layers[0])
    return Loaded(path, mtime_ns, given, settle(table(), *layers) if variables else of_root, of_root)


def read_file(path: Path) -> tuple[bytes, int] | None:
    """Return the bytes of the file and its modification time in ns, or None when there is none.

    Raises:
        SettingsError: it cannot be read, or has more than 1 MiB.
    """
    try:
        with open_plain(path) as file:
            mtime_ns = os.fstat(file.fileno()).st_mtime_ns
            data = file.read(_FILE_BYTES_MAX + 1)
    except (FileNotFoundError, NotADirectoryError):  # a root that is a file is refused by who opens it, in better words
        return None
    except OSError as error:
        raise SettingsError(str(path), error.strerror or type(error).__name__, unreadable=True) from error
    if len(data) > _FILE_BYTES_MAX:
        raise SettingsError(str(path), f"larger than {_FILE_BYTES_MAX} bytes")
    return data, mtime_ns


def decode(data: bytes, path: Path) -> dict[str, object]:
    """Return the members of the JSON object, which may begin with a byte order mark.

    Raises:
        SettingsError: not UTF-8, not JSON, no object, or a key that stands there twice.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):  # what some editors call Unicode, and PowerShell's > writes
        raise SettingsError(str(path), "it is UTF-16: save it as UTF-8")
    try:
        text = data.removeprefix(BOM).decode()
    except UnicodeDecodeError as error:
        raise SettingsError(str(path), f"not UTF-8 at byte {error.start}") from error
    try:
        content = json.loads(text, object_pairs_hook=members_once, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise SettingsError(str(path), f"not valid JSON at {place}: {error.msg}") from error
    except WrongValueError as error:
        raise SettingsError(str(path), str(error)) from error
    except RepeatedMemberError as error:
        raise SettingsError(str(path), str(error)) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or arrays in arrays in arrays
        raise SettingsError(str(path), "not JSON that can be read: a number is too long or it is too deep") from error
    if not isinstance(content, dict):
        raise SettingsError(str(path), "expected one JSON object, as {...}")
    return content


def check_all(content: Mapping[str, object], path: Path) -> dict[str, Value]:
    """Return the members as values of settings; the first that is wrong is reported.

    Raises:
        SettingsError
    """
    known = by_name()
    try:
        return {name: check(find(name, known), value) for name, value in content.items()}
    except WrongValueError as error:
        raise SettingsError(str(path), str(error)) from error


def from_environment(environment: Mapping[str, str]) -> dict[str, Value]:
    """Return the settings that the environment overrides; an empty variable counts as not set.

    Raises:
        EnvironmentSettingError
    """
    found: dict[str, Value] = {}
    for setting in table():
        text = environment.get(setting.variable, "")
        if text.strip():
            try:
                found[setting.name] = parse(setting, text)
            except WrongValueError as error:
                raise EnvironmentSettingError(setting.variable, error.reason) from error
    return found


def _no_constant(word: str) -> None:
    raise WrongValueError("$", f"{word} is no JSON")
