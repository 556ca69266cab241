"""The disaster drill: a snapshot, a proven copy in a second place, and a root made of it."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from relaymesh.client import Client
from relaymesh.disaster import KeepError, every
from relaymesh.errors import RelayMeshError
from relaymesh.file_lock import Hold, holding
from relaymesh.store.snapshot import SnapshotBusyError
from relaymesh.store.verify import verify_snapshot

MEMBERS = [
    "namespace",
    "timestamp",
    "snapshot_output",
    "snapshot_root",
    "snapshot_files",
    "snapshot_bytes",
    "offsite_output",
    "drill_enabled",
    "drill_ok",
    "drill_message",
    "drill_root",
]


def client_at(folder: Path, at_ms: int, namespace: str = "default") -> Client:
    return Client(folder, namespace=namespace, now_ms=lambda: at_ms)


@pytest.mark.parametrize("namespace", ["default", "tenant-7"])
def test_a_round_with_a_drill_works_in_the_default_folders_of_every_namespace(tmp_path: Path, namespace: str) -> None:
    with client_at(tmp_path / "data", 1_700_000_000_000, namespace) as client:
        client.submit("echo", "x" * 70_000)
        report = client.dr_automation(drill=True)

    home = tmp_path / "data" / "dr" / namespace
    assert (report.drill_ok, report.drill_message) == (True, "restore_ok")
    assert report.snapshot_output == str(home / "snapshots" / "snapshot-1700000000000")
    assert report.offsite_output == str(home / "offsite" / "snapshot-1700000000000")
    assert verify_snapshot(Path(report.offsite_output)).ok
    assert not Path(report.drill_root).exists()
    document = json.loads((home / "report-latest.json").read_text())
    assert list(document) == MEMBERS
    assert document["timestamp"] == "2023-11-14T22:13:20.000Z"


def test_without_a_drill_it_is_said_that_there_was_none(tmp_path: Path) -> None:
    with client_at(tmp_path / "data", 1) as client:
        client.init()
        report = client.dr_automation(report_out=tmp_path / "report.json")

    assert (report.drill_enabled, report.drill_ok, report.drill_message) == (False, True, "skipped")
    assert json.loads((tmp_path / "report.json").read_text())["drill_message"] == "skipped"


def test_the_newest_are_kept_in_both_places_and_what_else_lies_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "off" / "snapshot-mine").mkdir(parents=True)
    for at_ms in range(1, 6):
        with client_at(tmp_path / "data", at_ms) as client:
            client.init()
            client.dr_automation(snapshot_root=tmp_path / "on", offsite_root=tmp_path / "off", keep=2)

    assert sorted(path.name for path in (tmp_path / "on").iterdir()) == ["snapshot-4", "snapshot-5"]
    kept = {path.name for path in (tmp_path / "off").iterdir() if not path.name.startswith(".")}
    assert kept == {"snapshot-4", "snapshot-5", "snapshot-mine"}


def test_what_a_round_that_was_killed_left_is_dropped_by_the_next(tmp_path: Path) -> None:
    for name in (".drill-abc", ".snapshot-1.partial"):
        (tmp_path / "off" / name / "relaymesh-root").mkdir(parents=True)
    with client_at(tmp_path / "data", 5) as client:
        client.init()
        client.dr_automation(offsite_root=tmp_path / "off")

    assert {path.name for path in (tmp_path / "off").iterdir()} == {"snapshot-5", ".dr.guard"}


def test_a_drill_of_a_root_that_is_not_well_afterwards_fails_and_older_snapshots_stay(tmp_path: Path) -> None:
    # A file where a folder belongs: the copy is exact, and what is made of it cannot be used.
    with client_at(tmp_path / "data", 1) as client:
        client.init()
        client.dr_automation(keep=1)
        (tmp_path / "data" / "inbox" / "high").rmdir()
        (tmp_path / "data" / "inbox" / "high").write_text("in the way")
    with client_at(tmp_path / "data", 2) as client:
        report = client.dr_automation(drill=True, keep=1)

    assert (report.drill_ok, report.drill_message) == (False, "restore_health_failed")
    assert not Path(report.drill_root).exists()
    assert {path.name for path in (tmp_path / "data/dr/default/offsite").glob("snapshot-*")} == {
        "snapshot-1",
        "snapshot-2",
    }


def test_two_rounds_do_not_work_on_one_second_place(tmp_path: Path) -> None:
    with client_at(tmp_path / "data", 1) as client:
        client.init()
        with holding(tmp_path / "off" / ".dr.guard", Hold.EXCLUSIVE), pytest.raises(SnapshotBusyError):
            client.dr_automation(offsite_root=tmp_path / "off")


@pytest.mark.skipif(os.name == "nt", reason="needs a path that no folder can have")
def test_a_second_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with client_at(tmp_path / "data", 1) as client:
        client.init()
        with pytest.raises(RelayMeshError) as caught:
            client.dr_automation(offsite_root=tmp_path / "file" / "below")

    assert "\n" not in str(caught.value)


def test_at_least_one_is_kept(tmp_path: Path) -> None:
    with client_at(tmp_path / "data", 1) as client:
        client.init()
        with pytest.raises(KeepError):
            client.dr_automation(keep=0)


def test_a_loop_ends_when_it_is_told_to() -> None:
    over = threading.Event()
    rounds = 0
    for _ in every(1, over):
        rounds += 1
        over.set()

    assert rounds == 1
