"""What one setting is, and the rules about values: types, floors, names, and what changed.

    given (file < environment) ──check──▶ values ──raise to floors──▶ effective ──compare──▶ changed names

A floor is a number or the effective value of another setting that stands earlier in the table, so one pass in table
order settles every chain (dead is never below suspect, suspect never below the lease). Raising is silent: a running
system is not stopped over a number that is merely too low.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, assert_never

from relaymesh.core.nearest import did_you_mean, quoted

__all__ = [
    "INT_MAX",
    "LONG_MAX",
    "NAMES_MAX",
    "SECRET_VARIABLES",
    "TEXT_CHARS_MAX",
    "Applies",
    "Effective",
    "Kind",
    "Raised",
    "Setting",
    "Source",
    "Value",
    "WrongValueError",
    "changed_names",
    "check",
    "find",
    "parse",
    "settle",
]

INT_MAX: Final = 2**31 - 1
LONG_MAX: Final = 2**63 - 1
TEXT_CHARS_MAX: Final = 4_096
"""The longest text of a setting; a longer one is refused."""
NAMES_MAX: Final = 256
"""Names in a list of names; a longer list is refused."""

_PATH_CHARS_MAX: Final = 80
# One digit more than any number that fits: what is longer is too large whatever follows, and Python refuses to convert
# texts of some thousand digits.
_DIGITS: Final = 20

SECRET_VARIABLES: Final = ("RELAYMESH_GOSSIP_SHARED_SECRET",)
"""Variables that override a secret. They are for RelayMesh: what runs agents does not get them."""

Value = bool | int | str | tuple[str, ...]


class Kind(Enum):
    """What a value may be. INT has 32 bits, LONG 64; NAMES is a list of texts; CHOICE one of a few words."""

    BOOL = "bool"
    INT = "int"
    LONG = "long"
    TEXT = "text"
    NAMES = "list of text"
    CHOICE = "word"


class Applies(Enum):
    """When a changed value reaches a process that runs."""

    LIVE = "at the next reload"
    START = "at the next start"


class Source(Enum):
    """Where a value was found; a later one beats an earlier one."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the settings file.

    name: in the file, as ``leaseTimeoutMs``; attribute: in the program, as ``lease_timeout_ms``.
    floor: a number, or the name of an earlier setting; a smaller value is raised to it. None: no number.
    choices: the words of a CHOICE. unit: of a number, else empty.
    effect, bounds: for people: what it does; what it must stay above or below, and the sane range.
    secret: never shown, compared only by digest.
    """

    name: str
    attribute: str
    kind: Kind
    default: Value
    floor: int | str | None
    choices: tuple[str, ...]
    unit: str
    effect: str
    bounds: str
    applies: Applies
    secret: bool = False

    @property
    def variable(self) -> str:
        """The environment variable that overrides it: ``leaseTimeoutMs`` is ``RELAYMESH_LEASE_TIMEOUT_MS``."""
        return f"RELAYMESH_{self.attribute.upper()}"


class WrongValueError(ValueError):
    """A value that a setting cannot have. path: where it stands, as ``$.leaseTimeoutMs``; reason: never the value of
    a secret.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.reason} - at `{self.path}`"


@dataclass(frozen=True, slots=True)
class Raised:
    """A value that was below its floor. given: what was asked for; floor: the number, or the name, that it hit."""

    given: int
    floor: int | str


@dataclass(frozen=True, slots=True)
class Effective:
    """What holds: every setting's value in table order, where each was found, and which were raised."""

    values: Mapping[str, Value] = field(repr=False)  # the secret is among them
    sources: Mapping[str, Source]
    raised: Mapping[str, Raised]


def find(name: str, settings: Mapping[str, Setting]) -> Setting:
    """Return the setting of that name.

    Raises:
        WrongValueError: there is none; the reason names the nearest one.
    """
    found = settings.get(name)
    if found is None:
        path = f"$.{name}" if name.isidentifier() and len(name) <= _PATH_CHARS_MAX else "$"
        raise WrongValueError(path, f"no setting is called {quoted(name)}{did_you_mean(name, settings)}")
    return found


def check(setting: Setting, value: object) -> Value:
    """Return a value that came from JSON as the setting's type; numbers are not raised here.

    Raises:
        WrongValueError: another type, a word that is no choice, or beyond the limits of this module.
    """
    path = f"$.{setting.name}"
    match setting.kind:
        case Kind.BOOL if isinstance(value, bool):
            return value
        case Kind.INT | Kind.LONG if isinstance(value, int) and not isinstance(value, bool):
            top = INT_MAX if setting.kind is Kind.INT else LONG_MAX
            if not -top - 1 <= value <= top:
                raise WrongValueError(path, f"expected a whole number of {-top - 1} to {top}")
            return value
        case Kind.TEXT if isinstance(value, str):
            return _text(value.strip(), path)
        case Kind.CHOICE if isinstance(value, str):
            if value not in setting.choices:
                raise WrongValueError(path, f"expected {_either(setting.choices)}, not {quoted(value)}")
            return value
        case Kind.NAMES if isinstance(value, list | tuple):
            if len(value) > NAMES_MAX:
                raise WrongValueError(path, f"expected at most {NAMES_MAX} names, not {len(value)}")
            return tuple(_name(item, f"{path}[{at}]") for at, item in enumerate(value))
    raise WrongValueError(path, f"expected {_expected(setting)}, got {_json_type(value)}")


def parse(setting: Setting, text: str) -> Value:
    """Return a value that was typed, on a command line or in the environment.

    A bool is ``true`` or ``false``; a number is decimal; names stand in a JSON array, or separated by commas.

    Raises:
        WrongValueError: as ``check``.
    """
    path = f"$.{setting.name}"
    typed = text.strip()
    match setting.kind:
        case Kind.BOOL:
            if typed.lower() not in ("true", "false"):
                raise WrongValueError(path, f"expected true or false, not {quoted(typed)}")
            return typed.lower() == "true"
        case Kind.INT | Kind.LONG:
            digits = typed[1:] if typed[:1] in ("-", "+") else typed
            if not (digits.isascii() and digits.isdigit()):
                raise WrongValueError(path, f"expected a whole number, not {quoted(typed)}")
            number = int(digits.lstrip("0")[:_DIGITS] or "0")
            return check(setting, -number if typed.startswith("-") else number)
        case Kind.TEXT | Kind.CHOICE:
            return check(setting, typed)
        case Kind.NAMES:
            if not typed.startswith("["):
                return check(setting, [name.strip() for name in typed.split(",") if name.strip()])
            try:
                return check(setting, json.loads(typed))
            except (ValueError, RecursionError) as error:
                if isinstance(error, WrongValueError):
                    raise
                raise WrongValueError(path, "expected names, separated by commas or as a JSON array") from error
    assert_never(setting.kind)


def settle(table: Sequence[Setting], *layers: tuple[Source, Mapping[str, Value]]) -> Effective:
    """Return what holds, given checked values by source; a later layer beats an earlier one."""
    values: dict[str, Value] = {}
    sources: dict[str, Source] = {}
    raised: dict[str, Raised] = {}
    for setting in table:
        name, value, source = setting.name, setting.default, Source.DEFAULT
        for layer, given in layers:
            if name in given:
                value, source = given[name], layer
        if setting.floor is not None:
            floor = values[setting.floor] if isinstance(setting.floor, str) else setting.floor
            assert isinstance(value, int) and isinstance(floor, int)
            if value < floor:
                raised[name] = Raised(value, setting.floor)
                value = floor
        values[name], sources[name] = value, source
    return Effective(values, sources, raised)


def changed_names(
    table: Sequence[Setting], former: Mapping[str, object], now: Mapping[str, object], *, skip: Collection[str] = ()
) -> tuple[str, ...]:
    """Return the names whose value differs, in table order. A name that one side lacks is as its default there."""
    return tuple(
        setting.name
        for setting in table
        if setting.name not in skip
        and former.get(setting.name, setting.default) != now.get(setting.name, setting.default)
    )


def _text(value: str, path: str) -> str:
    if len(value) > TEXT_CHARS_MAX:
        raise WrongValueError(path, f"expected at most {TEXT_CHARS_MAX} characters, not {len(value)}")
    if any(0xD800 <= ord(char) <= 0xDFFF for char in value):
        # Bytes from outside that are not UTF-8 arrive as such halves.
        raise WrongValueError(path, "it is not valid Unicode: write it as UTF-8")
    return value


def _name(item: object, path: str) -> str:
    if not isinstance(item, str) or not item.strip():
        raise WrongValueError(path, f"expected a name, got {_json_type(item)}")
    return _text(item.strip(), path)


def _expected(setting: Setting) -> str:
    match setting.kind:
        case Kind.BOOL:
            return "true or false"
        case Kind.INT | Kind.LONG:
            return "a whole number"
        case Kind.TEXT:
            return "a text"
        case Kind.NAMES:
            return "a list of names"
        case Kind.CHOICE:
            return _either(setting.choices)
    assert_never(setting.kind)


def _either(words: Iterable[str]) -> str:
    return " or ".join(quoted(word) for word in words)


def _json_type(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int():
            return "a whole number"
        case float():
            return "a number with a fraction"
        case str():
            return "a text" if value.strip() else "an empty text"
        case list() | tuple():
            return "an array"
    return "an object"
