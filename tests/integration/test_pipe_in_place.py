"""A pipe in the place of a file that is read keeps nobody waiting: it is refused in one sentence."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from relaymesh.agents.agent_file import load_script_file
from relaymesh.audit.key import AuditKeyError, load_secret
from relaymesh.errors import AgentLoadError
from relaymesh.settings import SettingsError, load_settings
from relaymesh.store.error import KeyringError
from relaymesh.store.keyring import load_keyring
from relaymesh.store.verify import SnapshotDamagedError, read_manifest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no pipes in folders")

READERS = (
    ("relaymesh-settings.json", load_settings, SettingsError),
    ("security/payload-keys.json", load_keyring, KeyringError),
    ("security/audit-signing.key", lambda root: load_secret(root / "security"), AuditKeyError),
    ("agents/scripts.json", load_script_file, AgentLoadError),
    ("manifest.json", read_manifest, SnapshotDamagedError),
)


@pytest.mark.parametrize(("place", "read", "error"), READERS, ids=[place for place, *_ in READERS])
def test_a_pipe_is_refused_at_once(
    tmp_path: Path, place: str, read: Callable[[Path], object], error: type[Exception]
) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / "relaymesh-root").mkdir()
    os.mkfifo(tmp_path / place)
    raised: list[BaseException] = []

    def look() -> None:
        try:
            read(tmp_path)
        except BaseException as fault:
            raised.append(fault)

    reader = threading.Thread(target=look, daemon=True)
    reader.start()
    reader.join(30)

    assert len(raised) == 1 and isinstance(raised[0], error), raised
