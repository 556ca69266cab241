"""The settings of one root: where they are read, edited, and compared with what was known before.

core/setting_table.py    which there are, and the rules about them
file.py                  read ``relaymesh-settings.json`` and the environment
edit.py                  change one key of the file, whole or not at all
record.py                the settings that were last known for the root, and the alert about a bad file
shown.py                 what ``settings show`` and ``settings schema`` print
aside.py                 replace a file in one step, one writer at a time
"""

from __future__ import annotations

from relaymesh.settings.file import (
    SETTINGS_FILE,
    EnvironmentSettingError,
    Loaded,
    Settings,
    SettingsError,
    load,
    load_settings,
)

__all__ = [
    "SETTINGS_FILE",
    "EnvironmentSettingError",
    "Loaded",
    "Settings",
    "SettingsError",
    "load",
    "load_settings",
]
