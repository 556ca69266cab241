"""Appending: rows in the order of the page, one chain, whoever writes and however it ends."""

from __future__ import annotations

import json
import logging
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from relaymesh.audit import AuditTrail, Record
from relaymesh.audit.verify import verify
from relaymesh.store.root import create_layout
from tests.audit import chain


@pytest.fixture
def root(tmp_path: Path) -> Path:
    create_layout(tmp_path)
    return tmp_path


def note(trail: AuditTrail, number: int = 0) -> None:
    trail.record("task.cancel", actor="cli", resource=f"task/{number}", result="cancelled", details={"n": number})


def test_a_row_has_all_members_in_order_and_null_where_there_is_none(root: Path) -> None:
    AuditTrail(root, "blue").record("init", actor="cli", resource="runtime/root", result="ok", task_id="tsk_1")

    (row,) = chain.rows(root)

    assert (row["namespace"], row["action"], row["actor"], row["resource"]) == ("blue", "init", "cli", "runtime/root")
    assert (row["task_id"], row["step_id"], row["principal_id"], row["details"]) == ("tsk_1", None, None, {})


def test_trails_that_know_nothing_of_each_other_make_one_chain(root: Path) -> None:
    for number in range(20):
        note(AuditTrail(root), number)

    assert [row["details"] for row in chain.rows(root)] == [{"n": number} for number in range(20)]


def test_threads_and_processes_that_append_at_once_make_one_chain(root: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from relaymesh.audit import AuditTrail, Record\n"
        "trail = AuditTrail(Path(sys.argv[1]))\n"
        "for n in range(40): trail.record_many([Record('a', sys.argv[2], 'r', 'ok', {'n': n})] * 3)\n"
    )
    command = [sys.executable, "-c", code, str(root)]
    others = [subprocess.Popen([*command, f"p{number}"]) for number in range(3)]
    trail = AuditTrail(root)
    threads = [threading.Thread(target=lambda: [note(trail) for _ in range(40)]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = [other.wait(60) for other in others]

    assert statuses == [0, 0, 0]
    rows = chain.rows(root)
    assert len(rows) == 3 * 120 + 120
    for actor in ("p0", "p1", "p2"):  # each writer's rows stand in its order
        ours = [row["details"]["n"] for row in rows if row["actor"] == actor]  # type: ignore[index]
        assert ours == [n for n in range(40) for _ in range(3)]


def test_half_a_line_of_a_killed_writer_is_cut_off_and_the_chain_goes_on(root: Path) -> None:
    trail = AuditTrail(root)
    note(trail, 1)
    log = root / "audit" / "audit.log"
    whole = log.read_bytes()
    note(trail, 2)
    second = log.read_bytes()[len(whole) :]
    for cut in (1, 100, len(second) - 1):
        log.write_bytes(log.read_bytes() + second[:cut])
        note(trail, 3)

        assert chain.rows(root)[-1]["details"] == {"n": 3}


def test_whole_lines_whose_writer_was_killed_before_it_moved_the_head_count(root: Path) -> None:
    trail = AuditTrail(root)
    note(trail, 1)
    head = (root / "audit" / "audit.lock").read_bytes()
    note(trail, 2)
    (root / "audit" / "audit.lock").write_bytes(head)

    note(trail, 3)

    assert [row["details"] for row in chain.rows(root)] == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_a_log_without_its_head_is_continued(root: Path) -> None:
    note(AuditTrail(root), 1)
    (root / "audit" / "audit.lock").unlink()

    note(AuditTrail(root), 2)

    assert len(chain.rows(root)) == 2


def test_a_row_that_was_cut_off_shows_after_more_rows_were_written(root: Path) -> None:
    note(AuditTrail(root), 1)
    log = root / "audit" / "audit.log"
    kept = log.read_bytes()
    note(AuditTrail(root), 2)
    log.write_bytes(kept)

    note(AuditTrail(root), 3)

    with pytest.raises(AssertionError, match="row 2 links to"):
        chain.rows(root)


def test_the_secret_key_is_for_its_owner_only(root: Path) -> None:
    note(AuditTrail(root))

    assert stat.S_IMODE((root / "security" / "audit-signing.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((root / "audit" / "audit.lock").stat().st_mode) == 0o600


def test_what_cannot_be_written_is_counted_and_the_next_row_tells(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    trail = AuditTrail(root)
    note(trail, 1)
    log = root / "audit" / "audit.log"
    log.rename(log.with_suffix(".aside"))
    log.mkdir()  # nobody, root included, can append to a folder

    with caplog.at_level(logging.ERROR, "relaymesh.audit"):
        note(trail, 2)
        note(trail, 3)
    log.rmdir()
    log.with_suffix(".aside").rename(log)
    note(AuditTrail(root), 4)

    assert trail.lost == 2
    assert "cannot be written" in caplog.text
    assert "1 record is missing in it" in caplog.text and "2 records are missing in it" in caplog.text
    gap, after = chain.rows(root)[1:]
    assert (gap["action"], gap["result"]) == ("audit.gap", "lost")
    assert gap["details"]["lost"] == 2  # type: ignore[index]
    assert after["details"] == {"n": 4}


def test_details_that_are_too_large_are_left_out_and_named(root: Path) -> None:
    AuditTrail(root).record(
        "a", actor="cli", resource="r", result="ok", details={f"n{n}": "x" * 2000 for n in range(100)}
    )

    (line,) = chain.lines(root)
    assert len(line) < 65_536
    assert json.loads(line)["details"]["left_out"][:2] == ["n0", "n1"]


def test_no_thousand_rows_stand_without_a_seal(root: Path) -> None:
    trail = AuditTrail(root)
    trail.record_many([Record("a", "cli", "r", "ok")] * 2_500)
    note(trail)

    sealed = [number for number, row in enumerate(chain.rows(root), 1) if row["signature"]]

    assert sealed == [1000, 2000]


def test_rows_that_a_power_failure_took_are_told_of_and_the_chain_goes_on(root: Path) -> None:
    before = AuditTrail(root, now_ms=lambda: 1_000_000, boot=lambda: "before")
    for number in range(4):  # the first is synced, the others come within the same second
        note(before, number)
    log = root / "audit" / "audit.log"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:2]) + lines[2][:50])

    note(AuditTrail(root, now_ms=lambda: 2_000_000, boot=lambda: "after"), 9)

    first, second, gap, last = chain.rows(root)
    assert (first["details"], second["details"], last["details"]) == ({"n": 0}, {"n": 1}, {"n": 9})
    assert gap["details"] == {"lost": 2, "since_ms": None, "cause": "power_failure"}


def test_what_was_synced_and_is_gone_was_cut_off_whatever_boot_it_is(root: Path) -> None:
    now = [1_000_000]
    before = AuditTrail(root, now_ms=lambda: now[0], boot=lambda: "before")
    for number in range(3):
        note(before, number)
        now[0] += 5_000
    log = root / "audit" / "audit.log"
    log.write_bytes(log.read_bytes().splitlines(keepends=True)[0])

    note(AuditTrail(root, boot=lambda: "after"), 9)

    with pytest.raises(AssertionError, match="row 2 links to"):
        chain.rows(root)


def test_a_writer_that_was_killed_while_it_rotated_leaves_a_chain_that_goes_on(root: Path) -> None:
    trail = AuditTrail(root)
    note(trail, 1)
    (root / "audit" / "segments").mkdir()
    (root / "audit" / "audit.log").rename(trail.place.plain(1))  # and the head was not moved any more

    note(AuditTrail(root), 2)
    note(AuditTrail(root), 3)

    assert [row["details"] for row in chain.rows(root)] == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert verify(trail.place).reason == ""


def test_a_log_is_rotated_when_it_is_old(root: Path) -> None:
    now = [1_000_000]
    trail = AuditTrail(root, segment_age_ms=60_000, now_ms=lambda: now[0])
    note(trail, 1)
    now[0] += 59_000
    note(trail, 2)
    now[0] += 1_000
    note(trail, 3)

    assert len(trail.place.plain(1).read_bytes().splitlines()) == 2
    assert len(chain.rows(root)) == 3


def test_a_pack_that_was_killed_is_made_again(root: Path) -> None:
    trail = AuditTrail(root, segment_bytes=1)
    note(trail, 1)
    note(trail, 2)
    trail.place.packed(1).write_bytes(b"half a segm")  # the plain one is removed last

    assert trail.pack() == 1

    assert len(chain.rows(root)) == 2
    assert verify(trail.place).reason == ""
