"""Checking the chain: whatever was changed is found, and what was not verifies."""

from __future__ import annotations

import gzip
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaymesh.audit import AuditTrail, Record
from relaymesh.audit.read import Filter, newest
from relaymesh.audit.verify import Integrity, verify
from relaymesh.core.mask import DEPTH_MAX
from relaymesh.store.root import create_layout
from tests.audit import chain

TEXT = st.text(max_size=40)
DETAILS = st.dictionaries(
    TEXT,
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.binary(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)
RECORDS = st.builds(
    Record, TEXT, TEXT, TEXT, TEXT, DETAILS, st.none() | TEXT, st.none() | TEXT, at_ms=st.integers(0, 4 * 10**12)
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    create_layout(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def written() -> Iterator[list[str]]:
    """The lines of a log of 40 rows in several segments."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        create_layout(root)
        trail = AuditTrail(root, segment_bytes=4_000)
        for number in range(20):
            trail.record_many([Record("a", "cli", f"task/{number}", "ok", {"n": number, "k": part}) for part in "xy"])
        yield [root, chain.lines(root)]  # type: ignore[misc]


def check(root: Path, limit: int = 0) -> Integrity:
    return verify(AuditTrail(root).place, limit)


def lay_out(root: Path, lines: list[str], like: Path) -> None:
    """Write lines as a log whose head and key are those of another root."""
    create_layout(root)
    for name in ("security/audit-signing.key", "security/audit-signing.pub"):
        (root / name).write_bytes((like / name).read_bytes())
    rest = list(lines)
    (root / "audit" / "segments").mkdir(exist_ok=True)
    for path in sorted((like / "audit" / "segments").glob("audit-*.jsonl")):
        count = len(path.read_bytes().splitlines())
        (root / "audit" / "segments" / path.name).write_text("".join(f"{line}\n" for line in rest[:count]), "ascii")
        rest = rest[count:]
    (root / "audit" / "audit.log").write_text("".join(f"{line}\n" for line in rest), "ascii")
    (root / "audit" / "audit.lock").write_bytes((like / "audit" / "audit.lock").read_bytes())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(RECORDS, max_size=4), max_size=8), st.sampled_from([300, 2_000, 1 << 20]))
def test_any_rows_verify_over_any_segments(batches: list[list[Record]], segment_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        create_layout(root)
        for number, batch in enumerate(batches):
            trail = AuditTrail(root, segment_bytes=segment_bytes)
            trail.record_many(batch)
            if number == 4:
                trail.pack()
        found, rows = check(root), chain.rows(root)

    assert (found.broken_line, found.reason) == (0, "")
    assert (found.total, found.checked) == (len(rows), sum(map(len, batches)))
    assert found.tail_hash == (rows[-1]["hash"] if rows else "")


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_a_changed_row_is_named(written: list, data: st.DataObject) -> None:  # type: ignore[type-arg]
    like, lines = written
    at = data.draw(st.integers(0, len(lines) - 1))
    line = lines[at]
    place = data.draw(st.integers(0, len(line) - 1))
    other = data.draw(st.characters(min_codepoint=32, max_codepoint=126).filter(lambda c: c != line[place]))
    tampered = [*lines[:at], line[:place] + other + line[place + 1 :], *lines[at + 1 :]]

    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder), tampered, like)
        found = check(Path(folder))

    assert found.broken_line == at + 1
    assert found.reason in ("invalid_json", "prev_hash_mismatch", "hash_mismatch", "signature_mismatch")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_removed_inserted_or_moved_row_is_named(written: list, data: st.DataObject) -> None:  # type: ignore[type-arg]
    like, lines = written
    at = data.draw(st.integers(0, len(lines) - 2))
    other = data.draw(st.integers(0, len(lines) - 1).filter(lambda n: n != at))
    tampered = list(lines)
    match data.draw(st.sampled_from(["removed", "inserted", "swapped", "cut"])):
        case "removed":
            del tampered[at]
            first = at + 1
        case "inserted":
            tampered.insert(at, lines[other])
            first = at + 1
        case "swapped":
            tampered[at], tampered[other] = lines[other], lines[at]
            first = min(at, other) + 1
        case _:
            del tampered[at + 1 :]
            first = at + 2

    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder), tampered, like)
        found = check(Path(folder))

    assert (found.broken_line, found.reason) == (first, "prev_hash_mismatch")


def test_a_missing_segment_is_found_at_the_row_behind_it(root: Path) -> None:
    trail = AuditTrail(root, segment_bytes=1)
    trail.record_many([Record("a", "cli", "r", "ok")] * 3)
    trail.record_many([Record("b", "cli", "r", "ok")] * 3)
    trail.record_many([Record("c", "cli", "r", "ok")] * 3)

    trail.place.plain(2).unlink()

    assert (check(root).broken_line, check(root).reason) == (4, "prev_hash_mismatch")


def test_a_damaged_compressed_segment_is_found(root: Path) -> None:
    trail = AuditTrail(root, segment_bytes=1)
    for _ in range(3):
        trail.record_many([Record("a", "cli", "r", "ok")] * 600)
    assert trail.pack() == 2
    packed = trail.place.packed(1)
    data = bytearray(packed.read_bytes())
    data[len(data) - 40] ^= 0xFF
    packed.write_bytes(data)

    found = check(root)

    assert 512 < found.broken_line <= 601
    assert found.reason in ("invalid_json", "hash_mismatch")


def test_a_seal_that_was_taken_away_or_forged_is_found(root: Path) -> None:
    AuditTrail(root).record_many([Record("a", "cli", "r", "ok")] * 1_001)
    log = root / "audit" / "audit.log"
    whole = log.read_bytes()
    seal = whole.splitlines()[999].rsplit(b'"', 2)[1]
    assert len(seal) == 128

    lock = (root / "audit" / "audit.lock").read_bytes()
    log.write_bytes(whole.replace(seal, b""))
    (root / "audit" / "audit.lock").unlink()  # its size would tell
    taken = check(root)
    log.write_bytes(whole.replace(seal, b"ab" * 64))
    (root / "audit" / "audit.lock").write_bytes(lock)
    forged = check(root)

    assert (taken.broken_line, taken.reason) == (1001, "signature_mismatch")
    assert (forged.broken_line, forged.reason) == (1000, "signature_mismatch")


def test_a_chain_that_was_made_anew_without_the_key_is_found_by_its_end(root: Path, tmp_path_factory) -> None:  # type: ignore[no-untyped-def]
    other = tmp_path_factory.mktemp("other")
    create_layout(other)
    AuditTrail(root).record_many([Record("a", "cli", "r", "ok", {"n": 1})] * 3)
    AuditTrail(other).record_many([Record("a", "cli", "r", "ok", {"n": 2})] * 3)

    (root / "audit" / "audit.log").write_bytes((other / "audit" / "audit.log").read_bytes())

    assert check(root).reason == "prev_hash_mismatch"


def test_rows_without_a_hash_are_counted_and_restart_the_chain(root: Path) -> None:
    (root / "audit" / "audit.log").write_text('{"action":"old"}\n{"action":"older"}\n')

    AuditTrail(root).record("a", actor="cli", resource="r", result="ok")

    found = check(root)
    assert (found.total, found.checked, found.legacy, found.reason) == (3, 3, 2, "")


def test_with_a_limit_only_the_last_rows_are_checked(root: Path) -> None:
    trail = AuditTrail(root, segment_bytes=1)
    for number in range(4):
        trail.record_many([Record("a", "cli", "r", "ok", {"n": number})] * 5)
    plain = trail.place.plain(1)
    plain.write_bytes(plain.read_bytes().replace(b'"n":0', b'"n":7'))

    assert check(root, 8) == Integrity(20, 8, tail_hash=str(chain_end(root)))
    assert check(root).broken_line == 1


def chain_end(root: Path) -> str:
    return chain.lines(root)[-1].split('"hash":"')[1][:64]


def test_what_is_older_can_be_dropped_and_the_rest_verifies(root: Path) -> None:
    now = [1_000_000]
    trail = AuditTrail(root, segment_bytes=1, now_ms=lambda: now[0])
    for _ in range(4):
        trail.record_many([Record("a", "cli", "r", "ok")] * 5)
        now[0] += 1_000_000
    trail.pack()

    assert trail.drop_before(2_500_000) == 2

    found = check(root)
    assert (found.total, found.checked, found.reason) == (10, 10, "")
    assert sorted(path.name for path in trail.place.segments.glob("*.gz")) == ["audit-00000003.jsonl.gz"]


def test_any_tool_can_read_a_compressed_segment(root: Path) -> None:
    trail = AuditTrail(root, segment_bytes=1)
    trail.record_many([Record("a", "cli", "r", "ok")] * 1_500)
    trail.record_many([Record("b", "cli", "r", "ok")])
    plain = trail.place.plain(1).read_bytes()

    trail.pack()

    assert gzip.decompress(trail.place.packed(1).read_bytes()) == plain
    assert not trail.place.plain(1).exists()


APPEND = (
    "import sys; from pathlib import Path; from relaymesh.audit import AuditTrail, Record\n"
    "trail = AuditTrail(Path(sys.argv[1]), segment_bytes=60_000)\n"
    "n = 0\n"
    "while True:\n"
    "    trail.record_many([Record('a', 'cli', 'r', 'ok', {'n': n, 'pad': 'word ' * 60})] * (1 + n % 70)); n += 1\n"
    "    if n % 15 == 0: trail.pack()\n"
    "    if n == 1: print('up', flush=True)\n"
)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX; the file formats are the same")
def test_writers_killed_at_any_moment_leave_a_log_that_verifies(root: Path) -> None:
    chance = random.Random(7)
    for _ in range(12):
        writers = [
            subprocess.Popen([sys.executable, "-c", APPEND, str(root)], stdout=subprocess.PIPE) for _ in range(2)
        ]
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        # No moment of the writer is known from outside: how far it comes in a random number of our own writes varies.
        for _ in range(chance.randrange(1, 60)):
            AuditTrail(root).record("between", actor="cli", resource="r", result="ok", details={"x": os.getpid()})
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.wait()

        found = check(root)
        assert (found.broken_line, found.reason, found.where) == (0, "", "")
    assert found.total > 100
    assert not [row for row in chain.rows(root) if row["action"] == "audit.gap"]


def test_details_deeper_than_the_bound_do_not_keep_a_row_from_being_written(root: Path) -> None:
    deep: dict[str, object] = {}
    for _ in range(DEPTH_MAX * 50):
        deep = {"d": deep}

    AuditTrail(root).record("a", actor="cli", resource="r", result="ok", details=deep)

    assert check(root).checked == 1


DROP = (
    "import os, signal, sys; from pathlib import Path; from relaymesh.audit import AuditTrail\n"
    "left = int(sys.argv[2])\n"
    "def watch(event, args):\n"
    "    global left\n"
    "    if event in ('open', 'os.remove') and 'audit' in str(args[0]):\n"
    "        left -= 1\n"
    "        if left == 0:\n"
    "            os.kill(os.getpid(), getattr(signal, 'SIGKILL', signal.SIGTERM))\n"
    "sys.addaudithook(watch)\n"
    "AuditTrail(Path(sys.argv[1])).drop_before(5_000_000, at_most=2)\n"
)


def test_a_removal_of_segments_that_is_killed_at_any_file_is_finished_by_the_next(root: Path, tmp_path: Path) -> None:
    now = [1_000_000]
    trail = AuditTrail(root, segment_bytes=1, now_ms=lambda: now[0])
    for _ in range(4):
        trail.record("a", actor="cli", resource="r", result="ok")
        now[0] += 1_000_000
    trail.pack()
    copy, killed = tmp_path / "copy", 0
    for step in range(1, 40):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(root, copy)
        ended = subprocess.run([sys.executable, "-c", DROP, str(copy), str(step)], check=False).returncode

        assert check(copy).reason == ""
        AuditTrail(copy).drop_before(5_000_000)
        assert (check(copy).reason, list((copy / "audit" / "segments").glob("*.gz"))) == ("", [])
        if ended == 0:
            break
        killed += 1
    assert killed >= 8


FORGED = (
    b'{"timestamp":"2030-01-01T00:00:00.000Z","namespace":"default","action":"forged","actor":"x","principal_id":null,'
    b'"resource":"r","result":"ok","trace_id":null,"span_id":null,"task_id":null,"step_id":null,"details":{}}\n'
)


def test_a_row_without_a_hash_before_the_first_row_is_named(root: Path) -> None:
    AuditTrail(root).record_many([Record("a", "cli", f"task/{number}", "ok") for number in range(3)])
    log = root / "audit" / "audit.log"
    log.write_bytes(FORGED + log.read_bytes())

    found = check(root)

    assert (found.broken_line, found.reason) == (1, "hash_mismatch")


def test_the_first_row_that_lost_its_hashes_is_named_and_rows_of_before_the_chain_are_not(root: Path) -> None:
    log = root / "audit" / "audit.log"
    log.write_bytes(FORGED * 2)
    AuditTrail(root).record("a", actor="cli", resource="r", result="ok")
    before = check(root)
    log.write_bytes(FORGED + log.read_bytes())

    found = check(root)

    assert (before.broken_line, before.legacy) == (0, 2)
    assert (found.broken_line, found.reason) == (3, "hash_mismatch")


@pytest.mark.parametrize("number", [0, 3, 99])
def test_a_segment_that_nobody_wrote_is_named_for_a_query_would_tell_of_its_rows(root: Path, number: int) -> None:
    trail = AuditTrail(root, segment_bytes=1)
    for resource in "abc":
        trail.record("a", actor="cli", resource=resource, result="ok")
    trail.pack()
    forged = trail.place.plain(number)
    forged.write_bytes(FORGED)

    found = check(root)

    assert any('"forged"' in line for line in newest(trail.place, Filter(), 9))
    assert (found.broken_line, found.reason) == (1 if number == 0 else 3, "prev_hash_mismatch")
    assert str(forged) in found.where


def test_a_segment_that_a_crash_left_while_it_was_dropped_is_no_fault_as_long_as_it_fits(root: Path) -> None:
    trail = AuditTrail(root, segment_bytes=1)
    for resource in "abc":
        trail.record("a", actor="cli", resource=resource, result="ok")
    trail.pack()
    left = trail.place.packed(1).read_bytes()
    assert trail.drop_before(4 * 10**12, at_most=1) == 1
    trail.place.packed(1).write_bytes(left)

    assert (check(root).broken_line, check(root).checked) == (0, 3)
    trail.place.packed(1).write_bytes(gzip.compress(FORGED))
    assert check(root).broken_line != 0
