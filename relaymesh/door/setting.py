"""The settings of a root."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relaymesh.argument import check_text, check_whole_number
from relaymesh.door.base import Door

if TYPE_CHECKING:
    from relaymesh.rule_view import SettingSetOutcome, SettingsHistoryEntry, SettingsReloadOutcome, SettingView
    from relaymesh.settings.record import Alert

__all__ = ["Configures"]


class Configures(Door):
    """Settings, and what became of them."""

    def settings(self) -> list[SettingView]:
        """Return each setting as it holds for a process that starts now with this environment, and where it came from.

        Raises:
            SettingsError, EnvironmentSettingError: the file, or a variable, cannot be used.
        """
        from relaymesh.settings import load
        from relaymesh.settings.shown import shown

        return shown(load(self.root))

    def settings_alert(self) -> Alert | None:
        """Return since when and why what runs keeps its former settings, or None when it does not."""
        from relaymesh.settings.record import read_alert

        return read_alert(self.root)

    def set_setting(self, key: str, text: str) -> SettingSetOutcome:
        """Change one key of the settings file; ``text`` as it is typed: a number, ``true``, a word, names with commas.

        Raises:
            BadSettingError: there is no such key, or it cannot have this value.
            SettingsError, EnvironmentSettingError: the file has another fault, or a variable has. It is as it was.
        """
        from relaymesh.configure import set_setting

        check_text("key", key)
        check_text("text", text)
        self._loaded = None
        return set_setting(self.root, key, text, audit=self.audit, actor=self._actor)

    def reload_settings(self) -> SettingsReloadOutcome:
        """Read settings and retry policies again; return what differs from what was last recorded for the root.

        Raises:
            SettingsError, EnvironmentSettingError, AgentLoadError: a file cannot be used; nodes keep what they have.
        """
        from relaymesh.reload import reload_settings

        self._loaded = None
        return reload_settings(self.root, audit=self.audit, now_ms=self._now_ms(), actor=self._actor)

    def settings_history(self, limit: int = 20) -> list[SettingsHistoryEntry]:
        """Return the loads of settings that the audit log knows, newest first.

        Raises:
            RootMissingError, AuditUnreadableError
        """
        from relaymesh.configure import settings_history

        check_whole_number("limit", limit)
        return settings_history(limit, audit=self.audit)
