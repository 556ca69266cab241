"""The text of a settings file with one key changed; the rest keeps its order, its indentation and its line ends."""

from __future__ import annotations

import json
import re
from pathlib import Path

from relaymesh.core.setting import Setting, Value
from relaymesh.core.setting_table import SECRET
from relaymesh.settings.file import BOM, check_all, decode

__all__ = ["edited", "holds_secret"]

_INDENT = re.compile(r"\{\s*?\n([ \t]+)\"")


def edited(data: bytes | None, path: Path, setting: Setting, value: Value) -> bytes:
    """Return the file with this value; data None: there is no file yet.

    Raises:
        SettingsError: the file is no JSON object, or another key of it is wrong.
    """
    content = {} if data is None else decode(data, path)
    content[setting.name] = list(value) if isinstance(value, tuple) else value
    check_all(content, path)
    text = (data or b"").removeprefix(BOM).decode()
    found = _INDENT.search(text)
    new = json.dumps(content, indent=found[1] if found is not None else 2, ensure_ascii=False)
    if text.endswith("\n") or not text:
        new += "\n"
    if "\r\n" in text:
        new = new.replace("\n", "\r\n")
    return (BOM if (data or b"").startswith(BOM) else b"") + new.encode()


def holds_secret(data: bytes, path: Path) -> bool:
    """Return whether the file must be read by its owner only."""
    return bool(decode(data, path).get(SECRET))
