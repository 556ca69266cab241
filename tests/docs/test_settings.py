"""docs/settings.md is what scripts/settings_page.py writes from the table of settings."""

from __future__ import annotations

import subprocess
import sys

from relaymesh.core.setting_table import table
from tests.docs.page import REPO

SCRIPT = REPO / "scripts" / "settings_page.py"
PAGE = REPO / "docs" / "settings.md"


def test_the_page_is_what_the_script_writes() -> None:
    ended = subprocess.run([sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_setting_is_on_the_page_with_its_variable() -> None:
    text = PAGE.read_text(encoding="utf-8")

    assert [s.name for s in table() if f"| `{s.name}` |" not in text or f"`{s.variable}`" not in text] == []
