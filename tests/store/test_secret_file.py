"""A file of secrets, whichever it is: what a bad one says, and what it never says."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest

from relaymesh.errors import RelayMeshError
from relaymesh.store.gossip_ring import load_ring
from relaymesh.store.keyring import load_keyring
from relaymesh.store.root import GOSSIP_KEYS
from relaymesh.store.seal import KEYRING
from relaymesh.store.secret_file import SecretFile

SECRET = "c2VjcmV0LXNlY3JldA"


class ProbeError(RelayMeshError):
    code = "probe"

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(path, cause)
        self.path, self.cause = path, cause


FILE = SecretFile("security/probe.json", "probe.guard", "probe.v1", 4_096, "a probe", ProbeError)


def write(root: Path, name: str, text: str) -> None:
    (root / "security").mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


@pytest.mark.parametrize(
    "content", [SECRET, f'{{"schema": "{SECRET}"}}', f'["{SECRET}"]', "[" * 3_000, f'"{SECRET * 9_999}"']
)
def test_a_file_that_is_none_is_one_sentence_without_what_is_in_it(tmp_path: Path, content: str) -> None:
    for name, load in ((GOSSIP_KEYS, load_ring), (KEYRING, load_keyring)):
        write(tmp_path, name, content)

        with pytest.raises(RelayMeshError) as caught:
            load(tmp_path)

        assert f"{tmp_path / name} cannot be used (expected a JSON object of schema " in str(caught.value)
        assert SECRET not in str(caught.value)
        assert caught.value.__cause__ is None


def test_what_is_saved_is_read_again_and_is_its_owners_alone(tmp_path: Path) -> None:
    (tmp_path / "security").mkdir(mode=0o755)
    left = tmp_path / "security" / ".probe.json.1.tmp"
    left.write_text(SECRET)

    FILE.save(tmp_path, {"keys": [SECRET]})

    assert FILE.load(tmp_path, lambda content: content["keys"]) == [SECRET]
    assert json.loads((tmp_path / FILE.path).read_text())["schema"] == "probe.v1"
    assert not left.exists()
    if sys.platform != "win32":
        assert stat.S_IMODE((tmp_path / FILE.path).stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "security").stat().st_mode) == 0o700


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "security").write_text("in the way")

    with pytest.raises(ProbeError):
        FILE.save(tmp_path, {})

    assert (tmp_path / "security").read_text() == "in the way"


def test_there_is_no_file_before_the_first_save(tmp_path: Path) -> None:
    assert FILE.load(tmp_path, lambda content: content) is None
