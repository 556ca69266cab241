from __future__ import annotations

import pytest

from relaymesh.core.setting_table import table
from relaymesh.settings.stray import STRAYS_MAX, misspelled


def test_a_misspelled_variable_is_told_with_the_one_that_was_meant() -> None:
    (said,) = misspelled(["PATH", "RELAYMESH_GOSIP_SHARED_SECRET", "RELAYMESH_LOG_LEVEL"])

    assert '"RELAYMESH_GOSIP_SHARED_SECRET" means nothing' in said
    assert said.endswith("is RELAYMESH_GOSSIP_SHARED_SECRET meant?")


@pytest.mark.parametrize("name", ["RELAYMESH_X", "RELAYMESH_", "relaymesh_max_attempts", "MY_RELAYMESH_MAX_ATTEMPT"])
def test_a_name_that_is_near_nothing_is_somebodys_own(name: str) -> None:
    assert misspelled([name]) == ()


def test_no_variable_that_counts_is_called_misspelled_and_the_sentences_are_bounded() -> None:
    assert misspelled(setting.variable for setting in table()) == ()
    assert len(misspelled(f"RELAYMESH_MAX_ATTEMPTS{n}" for n in range(50))) == STRAYS_MAX
