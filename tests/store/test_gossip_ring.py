"""The keys of the mesh on disk: private, whole or not at all, and behind the setting when that is set."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from relaymesh.store.gossip_ring import (
    GossipRingError,
    RingKey,
    RingWatch,
    alone,
    cluster_label,
    load_ring,
    ring_of,
    save_ring,
)
from relaymesh.store.root import GOSSIP_KEYS, signs_gossip
from relaymesh.wire.mesh_key import KEYS_MAX

LABEL = cluster_label("default", "")
ONE, TWO = RingKey("secret number one", 5, 7), RingKey("secret number two", 9)


def test_what_is_saved_is_loaded_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    save_ring(tmp_path, (ONE, TWO))

    assert load_ring(tmp_path) == (ONE, TWO)
    assert [path.name for path in (tmp_path / "security").iterdir()] == ["gossip-keys.json"]
    if os.name != "nt":
        assert (tmp_path / GOSSIP_KEYS).stat().st_mode & 0o777 == 0o600


def test_without_keys_and_setting_nothing_is_signed(tmp_path: Path) -> None:
    found = ring_of(tmp_path, "", LABEL)

    assert (found.signing, found.source, found.differs) == (False, "none", False)
    assert not signs_gossip(tmp_path, "")


def test_without_the_setting_the_first_key_of_the_file_seals(tmp_path: Path) -> None:
    save_ring(tmp_path, (ONE, TWO))

    found = ring_of(tmp_path, "", LABEL)

    assert (found.signing, found.source) == (True, "ring")
    assert found.ring.primary == ONE.key(LABEL)
    assert found.ring.secondaries == (TWO.key(LABEL),)
    assert signs_gossip(tmp_path, "")


def test_the_setting_decides_which_key_seals_and_the_file_still_opens(tmp_path: Path) -> None:
    save_ring(tmp_path, (ONE, TWO))

    same, other = ring_of(tmp_path, ONE.secret, LABEL), ring_of(tmp_path, TWO.secret, LABEL)

    assert (same.source, same.differs, other.differs) == ("settings", False, True)
    assert other.ring.primary == TWO.key(LABEL)
    assert other.ring.secondaries == (ONE.key(LABEL),)


def test_a_full_file_and_a_setting_beside_it_make_a_full_ring(tmp_path: Path) -> None:
    save_ring(tmp_path, tuple(RingKey(f"secret number {number}") for number in range(KEYS_MAX)))

    found = ring_of(tmp_path, "another secret than those", LABEL)

    assert 1 + len(found.ring.secondaries) == KEYS_MAX


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"schema": "relaymesh.gossip.keys.v1", "keys": []}',
        '{"schema": "relaymesh.gossip.keys.v1", "keys": [{"secret": ""}]}',
        json.dumps({"schema": "relaymesh.gossip.keys.v2", "keys": [{"secret": "sesame-sesame"}]}),
        json.dumps({"schema": "relaymesh.gossip.keys.v1", "keys": ["sesame-sesame"] * 9}),
        json.dumps({"schema": "relaymesh.gossip.keys.v1", "keys": [{"secret": "sesame-sesame"}]}),
        '{"schema": "relaymesh.gossip.keys.v1", "keys": [{"secret": "sesame-sesame\\ud800"',
    ],
)
def test_a_damaged_file_is_told_without_what_is_in_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "security").mkdir()
    (tmp_path / GOSSIP_KEYS).write_text(content, encoding="utf-8")

    with pytest.raises(GossipRingError) as told:
        load_ring(tmp_path)

    assert "mend the file" in str(told.value)
    assert "sesame" not in str(told.value) and told.value.__cause__ is None


def test_a_key_does_not_show_its_secret() -> None:
    assert ONE.secret not in repr((ONE, ONE.key(LABEL)))


def test_one_changes_the_file_at_a_time(tmp_path: Path) -> None:
    with alone(tmp_path):
        descriptor = os.open(tmp_path / "run" / "gossip-keys.guard", os.O_RDWR)
        try:
            from relaymesh.file_lock import lock

            assert not lock(descriptor, shared=False)
        finally:
            os.close(descriptor)


def test_what_a_killed_writer_left_is_cleared_away(tmp_path: Path) -> None:
    save_ring(tmp_path, (ONE,))
    (tmp_path / "security" / ".gossip-keys.json.123.tmp").write_text("half")

    save_ring(tmp_path, (ONE, TWO))

    assert [path.name for path in (tmp_path / "security").iterdir()] == ["gossip-keys.json"]


def test_a_process_that_runs_reads_the_file_again_when_it_or_the_setting_changes(tmp_path: Path) -> None:
    watch = RingWatch(tmp_path, LABEL)
    first = watch.ring(ONE.secret)
    assert watch.ring(ONE.secret) is first and not first.secondaries

    save_ring(tmp_path, (ONE, TWO))
    second = watch.ring(ONE.secret)
    third = watch.ring(TWO.secret)

    assert second.secondaries == (TWO.key(LABEL),)
    assert (third.primary, third.secondaries) == (TWO.key(LABEL), (ONE.key(LABEL),))
    assert watch.differs
    assert watch.ring(TWO.secret) is third


def test_a_change_of_the_file_that_changes_no_key_leaves_the_ring_as_it_is(tmp_path: Path) -> None:
    save_ring(tmp_path, (ONE,))
    watch = RingWatch(tmp_path, LABEL)
    before = watch.ring("")

    save_ring(tmp_path, (RingKey(ONE.secret, 99, 99),))

    assert watch.ring("") is before


def test_while_the_file_is_damaged_the_former_ring_holds_and_that_is_told(tmp_path: Path) -> None:
    save_ring(tmp_path, (ONE, TWO))
    watch = RingWatch(tmp_path, LABEL)
    before = watch.ring("")

    (tmp_path / GOSSIP_KEYS).write_text("nonsense")
    during = watch.ring("")
    assert during is before and "mend the file" in watch.problem
    save_ring(tmp_path, (TWO,))

    assert watch.ring("").primary == TWO.key(LABEL)
    assert watch.problem == ""


def test_a_signed_mesh_does_not_open_because_its_file_is_damaged_at_the_start(tmp_path: Path) -> None:
    save_ring(tmp_path, (ONE,))
    (tmp_path / GOSSIP_KEYS).write_text("nonsense")

    ring = RingWatch(tmp_path, LABEL).ring("")

    assert not ring.primary.open
    assert ring.primary != ONE.key(LABEL)
