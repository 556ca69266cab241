"""What two snapshots do not have alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from relaymesh.client import Client
from relaymesh.store.snapshot_diff import SHOWN_MAX, diff_snapshots
from relaymesh.store.verify import SnapshotMissingError
from relaymesh.view import TaskRequest
from tests.store.bench import Bench
from tests.store.test_snapshot import LONG, fill


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fill(tmp_path / "root").close()
    with Client(tmp_path / "root") as client:
        client.snapshot_export(tmp_path / "a")
    return tmp_path / "root"


def test_a_snapshot_is_identical_to_itself(root: Path, tmp_path: Path) -> None:
    outcome = diff_snapshots(tmp_path / "a", tmp_path / "a")

    assert outcome.identical and outcome.changes == ()


def test_every_kind_of_difference_is_counted_and_named(root: Path, tmp_path: Path) -> None:
    bench = Bench(root)
    bench.run_all()  # the one that waited
    bench.close()
    with Client(root) as client:
        client.submit("echo", LONG + "new")
    (root / "relaymesh-settings.json").write_text('{"maxAttempts": 9, "gossipSharedSecret": "hush"}')
    (root / "agents" / "scripts.json").write_text('{"agents": [1]}')
    (root / "agents" / "more.json").write_text("{}")
    with Client(root) as client:
        client.snapshot_export(tmp_path / "b")

    outcome = diff_snapshots(tmp_path / "a", tmp_path / "b")
    back = diff_snapshots(tmp_path / "b", tmp_path / "a")

    assert not outcome.identical
    assert (outcome.tasks_added, outcome.tasks_removed, outcome.tasks_changed) == (1, 0, 1)
    assert (outcome.steps_added, outcome.steps_removed, outcome.steps_changed) == (1, 0, 1)
    assert (outcome.payloads_added, outcome.payloads_removed, outcome.payloads_changed) == (1, 0, 0)
    assert outcome.settings_changed == 2
    assert outcome.files_added >= 1 and outcome.files_changed >= 2  # the audit log, too
    named = {(change.kind, change.name, change.change) for change in outcome.changes}
    assert ("setting", "maxAttempts", "changed") in named and ("file", "agents/more.json", "added") in named
    assert "hush" not in str(outcome)
    assert (back.tasks_added, back.tasks_removed, back.payloads_removed) == (0, 1, 1)


def test_all_are_counted_and_only_the_first_are_named(root: Path, tmp_path: Path) -> None:
    requests = [TaskRequest(agent="echo", input=str(number)) for number in range(SHOWN_MAX * 3)]
    with Client(root) as client:
        assert len(list(client.submit_many(requests))) == len(requests)
        client.snapshot_export(tmp_path / "b")

    outcome = diff_snapshots(tmp_path / "a", tmp_path / "b")

    assert outcome.tasks_added == outcome.steps_added == SHOWN_MAX * 3
    assert sum(change.kind == "task" for change in outcome.changes) == SHOWN_MAX
    assert sum(change.kind == "step" for change in outcome.changes) == SHOWN_MAX


def test_what_is_no_snapshot_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(SnapshotMissingError):
        diff_snapshots(tmp_path / "a", tmp_path / "nowhere")
