"""How settings are shown: the view of the reference, every value with where it came from, and the JSON schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relaymesh.core.setting import INT_MAX, LONG_MAX, NAMES_MAX, TEXT_CHARS_MAX, Applies, Kind, Setting, Source, Value
from relaymesh.core.setting_table import SECRET, VIEW_KEYS, table
from relaymesh.rule_view import SettingView
from relaymesh.settings.file import SETTINGS_FILE, Loaded

__all__ = ["HIDDEN", "runtime_view", "schema", "shown"]

HIDDEN = "***"
"""Stands for a secret that is set."""


def runtime_view(values: Mapping[str, Value], *, signing: bool) -> dict[str, bool | int | str]:
    """Return the members of RuntimeSettingsView; the secret is told as whether packets are signed."""
    view: dict[str, bool | int | str] = {}
    for setting in table()[:VIEW_KEYS]:
        value = values[setting.name]
        if setting.name == SECRET:
            view["gossipPacketSigningEnabled"] = signing
        else:
            assert not isinstance(value, tuple)
            view[setting.name] = value
    return view


def shown(loaded: Loaded) -> list[SettingView]:
    """Return every setting with its effective value and where that came from, in table order."""
    found = loaded.effective
    views = []
    for setting in table():
        source, raised = found.sources[setting.name], found.raised.get(setting.name)
        views.append(
            SettingView(
                key=setting.name,
                value=presentable(setting, found.values[setting.name]),
                source=source.value,
                raised_from=raised.given if raised is not None else None,
                raised_to=str(raised.floor) if raised is not None else None,
                default=presentable(setting, setting.default),
                unit=setting.unit,
                hot=setting.applies is Applies.LIVE,
                variable=setting.variable if source is Source.ENVIRONMENT else None,
            )
        )
    return views


def presentable(setting: Setting, value: Value) -> bool | int | str | list[str]:
    """Return a value as it may be shown."""
    if setting.secret:
        return HIDDEN if value else ""
    return list(value) if isinstance(value, tuple) else value


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the file: what it accepts, with floors in the descriptions.

    A value below its floor is valid, it is raised; so the schema has no minimum there.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": SETTINGS_FILE,
        "type": "object",
        "additionalProperties": False,
        "properties": {setting.name: _property(setting) for setting in table()},
    }


def _property(setting: Setting) -> dict[str, Any]:
    match setting.kind:
        case Kind.BOOL:
            kind: dict[str, Any] = {"type": "boolean"}
        case Kind.INT | Kind.LONG:
            top = INT_MAX if setting.kind is Kind.INT else LONG_MAX
            kind = {"type": "integer", "minimum": -top - 1, "maximum": top}
        case Kind.TEXT:
            kind = {"type": "string", "maxLength": TEXT_CHARS_MAX}
        case Kind.CHOICE:
            kind = {"enum": list(setting.choices)}
        case Kind.NAMES:
            name = {"type": "string", "minLength": 1, "maxLength": TEXT_CHARS_MAX}
            kind = {"type": "array", "maxItems": NAMES_MAX, "items": name}
    floor = f" Raised to {setting.floor} when below." if setting.floor is not None else ""
    unit = f" Unit: {setting.unit}." if setting.unit else ""
    default = list(setting.default) if isinstance(setting.default, tuple) else setting.default
    return {**kind, "default": default, "description": f"{setting.effect}{unit} {setting.bounds}{floor}"}
