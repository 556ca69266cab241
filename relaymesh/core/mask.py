"""What of an audit record's details may be written down: secrets are masked, and what is too large is cut.

A value is masked when its name says that it is a secret, or when it looks like a credential. Names are compared without
regard to case. What people need to work with stays readable: ids, counts, names of fields and paths of files.

    {"password": "x", "tokens": 12, "key_file": "/srv/keys.json", "auth": {"api_key": "y"}}
    {"password": "***", "tokens": 12, "key_file": "/srv/keys.json", "auth": {"api_key": "***"}}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias

__all__ = ["DEPTH_MAX", "ITEMS_MAX", "MASK", "TEXT_CHARS_MAX", "Json", "field_names", "mask"]

MASK = "***"
TEXT_CHARS_MAX = 2_048
"""Longer texts are cut, and say how much was left out."""
ITEMS_MAX = 256
"""Members of one object or array; what is beyond is left out and counted under ``…``."""
DEPTH_MAX = 12

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

_SECRET_WORD = re.compile(
    r"password|passwd|passphrase|secret|token|authorization|api[_-]?key|credential|cookie", re.IGNORECASE
)
_KEY_NAME = re.compile(r"key|.*_key|key_.*|[a-z0-9]+(?:[A-Z][a-z0-9]*)*Key", re.DOTALL)
_COUNT = re.compile(
    r"(?:^|_)(?:count|counts|total|max|min|limit|used|left|bytes|size|rate|number|sum|budget|age_ms|ttl_ms|ms)(?:_|$)"
    r"|(?:tokens|keys|credentials|secrets|passwords)$",
    re.IGNORECASE,
)
_PATH_NAME = re.compile(r"(?:^|_)(?:file|path|dir|folder)s?$|(?:File|Path|Dir)$")
_LONG = re.compile(r"[A-Za-z0-9+/=_\-:.]{24,}")
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
# The text that may stand behind is a step's name in its workflow.
_OUR_ID = re.compile(rf"(?:(?:[a-z]{{2,8}}_)*{_UUID})(?:[_.:\[][A-Za-z0-9_.:\[\]-]{{0,128}})?")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d)?")
_ID_NAME = re.compile(
    r"(?:^|_)(?:id|ids|node|nodes|task|step|msg|agent|agents|worker|owner|resource|action|status|route|hash|sha256|cid"
    r"|namespace|version|checksum|fields|kid)$"
    r"|(?:Id|Ids|Hash|Fields)$",
    re.IGNORECASE,
)
_WORD = r"(?:password|passwd|passphrase|secret|token|api[_-]?key|credential)"
# Anybody may have written what is masked, and none of it may take long: no pattern begins with a repetition, and what
# is repeated is not tried again in other ways (``*+``). The backslashes are those of JSON that stands as text in JSON.
_ASSIGNED = re.compile(rf"(?i)({_WORD}[\w-]*+\\*+[\"']?+\s*+[:=]\s*+\\*+[\"']?+)([^\s\"',;&]++)")
_FLAG = re.compile(rf"(?i)--?[\w-]*{_WORD}[\w-]*+")
_FLAG_AND_VALUE = re.compile(rf"(?i)(?<![^\s\"'])({_FLAG.pattern[4:]})(\s++[\"']?+)([^\s\"']++)")
_USER_INFO = re.compile(r"(?i)\b([a-z][a-z0-9+.-]{1,31}://[^\s/:@\"']{0,256}:)([^\s/\"']+)(?=@)")
_COOKIE = re.compile(r"(?i)(\b(?:set-)?cookie[\"']?\s*:\s*)([^\r\n]+)")
_BEARER = re.compile(
    r"(?i)\b((?:authorization[\"']?+\s*+[:=]\s*+[\"']?+\s*+)?+(?:bearer|basic)\s++)([A-Za-z0-9+/=_\-.~]{8,}+)"
)
_MARGIN_CHARS = 512
"""Behind the cut, what is looked at too: a secret that the cut would shorten so that it is not known as one."""
_FLAG_CHARS = 256
"""A longer word is no option of a command line."""


def field_names(names: Iterable[str]) -> frozenset[str]:
    """Return configured names in the form in which ``mask`` compares them: ``apiCode`` and ``api_code`` are one."""
    return frozenset(_plain(name) for name in names)


def mask(details: Mapping[str, object], extra: frozenset[str] = frozenset()) -> dict[str, Json]:
    """Return a copy of ``details`` without secrets, of JSON values only, within the bounds of this module.

    extra: more names of fields whose values are secret (``field_names``).
    """
    return _object(details, extra, 0)


def _object(details: Mapping[str, object], extra: frozenset[str], depth: int) -> dict[str, Json]:
    masked: dict[str, Json] = {}
    for number, (key, value) in enumerate(details.items()):
        if number == ITEMS_MAX:
            masked["…"] = len(details) - ITEMS_MAX
            break
        name = str(key)
        masked[_cut(name)] = MASK if _secret_name(name, value, extra) else _value(name, value, extra, depth)
    return masked


def _value(name: str, value: object, extra: frozenset[str], depth: int) -> Json:
    match value:
        case None | bool():
            return value
        case int():
            return value if abs(value) < 1 << 63 else str(value)[:TEXT_CHARS_MAX]
        case float():
            return value if value - value == 0 else None  # JSON has no word for infinity
        case str():
            return MASK if _looks_secret(name, value) else _text(value)
        case Mapping():
            return _object(value, extra, depth + 1) if depth < DEPTH_MAX else "…"
        case list() | tuple() | set() | frozenset():
            if depth >= DEPTH_MAX:
                return "…"
            items = list(value)
            masked = [_value(name, item, extra, depth + 1) for item in items[:ITEMS_MAX]]
            for at, item in enumerate(items[: len(masked) - 1]):  # words of a command line
                if isinstance(item, str) and isinstance(items[at + 1], str) and _is_secret_flag(item, items[at + 1]):
                    masked[at + 1] = MASK
            return [*masked, f"… {len(items) - ITEMS_MAX} more"] if len(items) > ITEMS_MAX else masked
        case bytes() | bytearray():
            return f"{len(value)} bytes"
        case _:
            return _value(name, str(value), extra, depth)


def _secret_name(name: str, value: object, extra: frozenset[str]) -> bool:
    if extra and _plain(name) in extra:
        return True
    if not (_SECRET_WORD.search(name) or _KEY_NAME.fullmatch(name) or _KEY_NAME.fullmatch(name.lower())):
        return False
    match value:
        case None | bool():
            return False  # whether there is one is no secret
        case int() | float():
            return not _COUNT.search(name)
        case str():
            return not (_PATH_NAME.search(name) and _is_path(value))
        case _:
            return True


def _looks_secret(name: str, text: str) -> bool:
    """Whether a whole text could be a credential: one long word in which letters and digits, or cases, are mixed."""
    text = text[:TEXT_CHARS_MAX]  # of more, no more is shown
    if not _LONG.fullmatch(text) or _OUR_ID.fullmatch(text) or _INSTANT.fullmatch(text):
        return False
    if _ID_NAME.search(name) or _is_path(text):
        return False
    return not all(_is_word(part) for part in re.split(r"[_\-:./=+]+", text) if part)


def _is_word(part: str) -> bool:
    """Whether it reads as a word, a number or a name in camel case, and not as random characters."""
    if part.isdigit() or (part.isalpha() and (part.islower() or part.isupper()) and len(part) < 24):
        return True
    humps = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", part)
    if len(humps) > 1 and any(hump.isupper() and len(hump) > 6 for hump in humps):
        return False  # no abbreviation is that long
    digits = sum(hump.isdigit() for hump in humps)
    return digits <= 1 and len(part) >= 4 * (len(humps) - digits) and len(humps) <= 8


def _is_path(text: str) -> bool:
    """Whether it is a path: one that begins as paths do, or ends in a file name with a suffix, of readable parts."""
    if len(text) > TEXT_CHARS_MAX:
        return False
    if not re.match(r"(?:[A-Za-z]:[\\/]|~?/|\.{1,2}[\\/])", text) and not re.search(
        r"[\\/].*\.[A-Za-z0-9]{1,8}$", text
    ):
        return False
    parts = re.split(r"[\\/]", text)
    return "=" not in text and "+" not in text and max(map(len, parts)) <= 255


def _text(text: str) -> str:
    left_out = len(text) - TEXT_CHARS_MAX
    if left_out <= 0:
        return _cut(_without_secrets(text))
    shown = _without_secrets(text[: TEXT_CHARS_MAX + _MARGIN_CHARS])[:TEXT_CHARS_MAX]
    return f"{shown}… {left_out} more characters"


def _without_secrets(text: str) -> str:
    if "=" in text or ":" in text or " " in text:
        text = _BEARER.sub(rf"\1{MASK}", text)
        text = _ASSIGNED.sub(rf"\1{MASK}", text)
    if "://" in text:
        text = _USER_INFO.sub(rf"\1{MASK}", text)
    if "-" in text:
        text = _FLAG_AND_VALUE.sub(_without_value, text)
    if "ookie" in text:
        text = _COOKIE.sub(rf"\1{MASK}", text)
    return text


def _is_secret_flag(flag: str, value: str) -> bool:
    """Whether a word of a command line is the secret that the option before it takes."""
    if len(flag) > _FLAG_CHARS or not _FLAG.fullmatch(flag) or _COUNT.search(flag.lstrip("-").replace("-", "_")):
        return False
    return not value.startswith("-") and not value.isdigit() and not _is_path(value)


def _without_value(found: re.Match[str]) -> str:
    flag, gap, value = found.groups()
    return f"{flag}{gap}{MASK}" if _is_secret_flag(flag, value) else found[0]


def _cut(text: str) -> str:
    if len(text) <= TEXT_CHARS_MAX:
        return text
    return f"{text[:TEXT_CHARS_MAX]}… {len(text) - TEXT_CHARS_MAX} more characters"


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()
