"""The folders of the file bus: nothing is followed, nothing is overwritten, and a lost race is no error."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import sys
from pathlib import Path

import pytest

from relaymesh.core.inbox import FILE_BYTES_MAX, SETTLE_MS, Held, Kind, Take
from relaymesh.store.inbox_files import Content, FileOps, InboxFiles, Sight, Unreadable
from relaymesh.store.root import create_layout

posix = pytest.mark.skipif(sys.platform == "win32", reason="special files of POSIX")
NOW_MS = 1_700_000_000_000


def ticket(number: int) -> str:
    return f"tsk_018bcfe5-6800-7a3f-9c41-{number:012x}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    create_layout(tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture
def files(root: Path) -> InboxFiles:
    return InboxFiles(root, "n1")


def drop(root: Path, name: str = "a.json", data: bytes = b"{}", *, age_ms: int = 60_000) -> Path:
    path = root / "inbox" / "normal" / name
    path.write_bytes(data)
    at_ns = (NOW_MS - age_ms) * 1_000_000
    os.utime(path, ns=(at_ns, at_ns))
    return path


def take(files: InboxFiles, name: str = "a.json", number: int = 1) -> Held:
    held = Held.taken(ticket(number), "normal", name, Take())
    assert files.take(Sight("normal", name, Kind.FILE), held)
    return held


def answer(held: Held, text: str = "") -> bytes:
    return json.dumps({"ticket": held.ticket, "text": text}).encode()


# Taking ---------------------------------------------------------------------------------------------------------------


def test_entries_come_in_the_order_of_their_names_without_those_being_written(root: Path, files: InboxFiles) -> None:
    for name in ("b.json", "a.json", ".c.json", "d.json.tmp"):
        drop(root, name)

    found, whole = files.list_lane("normal")

    assert [sight.name for sight in found] == ["a.json", "b.json"] and whole


@posix
def test_links_and_special_files_are_told_apart_without_following_them(root: Path, files: InboxFiles) -> None:
    lane = root / "inbox" / "normal"
    drop(root, "file")
    (lane / "folder").mkdir()
    os.symlink(root / "relaymesh.db", lane / "link")
    os.symlink(root, lane / "link-to-folder")
    os.mkfifo(lane / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(lane / "sock"))

        found, _ = files.list_lane("normal")

    assert {sight.name: sight.kind for sight in found} == {
        "file": Kind.FILE,
        "folder": Kind.FOLDER,
        "link": Kind.OTHER,
        "link-to-folder": Kind.OTHER,
        "fifo": Kind.OTHER,
        "sock": Kind.OTHER,
    }


def test_one_of_two_takers_has_the_file_and_the_other_goes_on(root: Path, files: InboxFiles) -> None:
    drop(root)
    sight = Sight("normal", "a.json", Kind.FILE)

    first = files.take(sight, Held.taken(ticket(1), "normal", "a.json", Take()))
    second = InboxFiles(root, "n2").take(sight, Held.taken(ticket(2), "normal", "a.json", Take()))

    assert (first, second) == (True, False)


def test_the_folder_of_an_owner_is_made_again_when_somebody_has_removed_it(root: Path, files: InboxFiles) -> None:
    drop(root)
    take(files, number=1)
    files.put_away(Held.taken(ticket(1), "normal", "a.json", Take()), "dead", ".reason.json", b"{}")
    files.drop_owner("n1")
    drop(root, "b.json")
    sight, held = Sight("normal", "b.json", Kind.FILE), Held.taken(ticket(2), "normal", "b.json", Take())

    with pytest.raises(FileNotFoundError):
        files.take(sight, held)

    assert files.take(sight, held)


# Reading --------------------------------------------------------------------------------------------------------------


def test_a_file_is_read_whole_and_its_age_says_whether_it_may_grow(root: Path, files: InboxFiles) -> None:
    drop(root, "old", b"x" * 100_000)
    drop(root, "new", b"y", age_ms=SETTLE_MS - 1)

    assert files.read(take(files, "old", 1), NOW_MS) == Content(b"x" * 100_000, unfinished=False)
    assert files.read(take(files, "new", 2), NOW_MS) == Content(b"y", unfinished=True)


def test_a_file_above_the_limit_is_not_read(root: Path, files: InboxFiles) -> None:
    path = drop(root)
    with open(path, "r+b") as file:
        file.truncate(FILE_BYTES_MAX + 1)

    found = files.read(take(files), NOW_MS)

    assert isinstance(found, Unreadable) and found.code == "file_too_large"


@posix
@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_what_is_put_in_the_place_of_a_file_after_it_was_judged_is_not_read(
    root: Path, files: InboxFiles, kind: str
) -> None:
    drop(root)
    held = take(files)
    place = root / "processing" / "n1" / held.file_name
    place.unlink()
    if kind == "link":
        os.symlink("/etc/passwd", place)
    elif kind == "fifo":
        os.mkfifo(place)  # to open one that nobody writes to must not wait
    else:
        place.mkdir()

    found = files.read(held, NOW_MS)

    assert isinstance(found, Unreadable) and found.code == "not_a_file" and not found.later


@posix
def test_a_second_name_of_a_file_is_refused_once_it_cannot_be_the_writers_own(root: Path, files: InboxFiles) -> None:
    secret = root / "security" / "secret"
    secret.write_bytes(b"secret")
    os.utime(secret, (1, 1))
    os.link(secret, root / "inbox" / "normal" / "a.json")

    found = files.read(take(files), NOW_MS)

    assert isinstance(found, Unreadable) and found.code == "hard_link" and not found.later


def test_a_file_that_somebody_else_has_taken_is_gone(files: InboxFiles) -> None:
    found = files.read(Held(ticket(1), "normal", "a.json"), NOW_MS)

    assert isinstance(found, Unreadable) and found.gone


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs modes that hold for us")
def test_a_file_that_we_may_not_read_is_said_to_be_so(root: Path, files: InboxFiles) -> None:
    drop(root).chmod(0)

    found = files.read(take(files), NOW_MS)

    assert isinstance(found, Unreadable) and found.code == "unreadable" and not found.later


# Putting away ---------------------------------------------------------------------------------------------------------


def test_a_file_is_put_away_with_its_answer_and_nothing_else_is_left(root: Path, files: InboxFiles) -> None:
    drop(root)
    held = take(files)

    assert files.put_away(held, "done/2026-01-31", ".result.json", answer(held)) == "a.json"

    assert sorted(os.listdir(root / "done" / "2026-01-31")) == ["a.json", "a.json.result.json"]
    assert not list(files.held())


def test_neither_a_file_nor_an_answer_is_overwritten(root: Path, files: InboxFiles) -> None:
    for number in (1, 2):
        drop(root, data=str(number).encode())
        held = take(files, number=number)
        files.put_away(held, "dead", ".reason.json", answer(held))
    (root / "dead" / "b.json").write_bytes(b"somebody's")
    drop(root, "b.json")
    held = take(files, "b.json", 3)
    name = files.put_away(held, "dead", ".reason.json", answer(held))

    assert name == f"{ticket(3)}~b.json"
    assert (root / "dead" / "a.json").read_bytes() == b"1"
    assert (root / "dead" / f"{ticket(2)}~a.json").read_bytes() == b"2"
    assert json.loads((root / "dead" / f"{ticket(2)}~a.json.reason.json").read_bytes())["ticket"] == ticket(2)
    assert (root / "dead" / "b.json").read_bytes() == b"somebody's"


def test_an_answer_that_was_written_before_a_crash_is_kept(root: Path, files: InboxFiles) -> None:
    drop(root)
    held = take(files)
    (root / "dead" / "a.json.reason.json").write_bytes(answer(held, "the first"))
    (root / "dead" / f".{held.ticket}.tmp").write_bytes(b"half a")

    assert files.put_away(held, "dead", ".reason.json", answer(held, "the second")) == "a.json"

    assert sorted(os.listdir(root / "dead")) == ["a.json", "a.json.reason.json"]
    assert json.loads((root / "dead" / "a.json.reason.json").read_bytes())["text"] == "the first"


@pytest.mark.parametrize("beside", [b"", b"[]", b"{", b"\xff", b'{"ticket": 7}'])
def test_what_lies_in_the_place_of_an_answer_may_be_anything(root: Path, files: InboxFiles, beside: bytes) -> None:
    drop(root)
    held = take(files)
    (root / "dead" / "a.json.reason.json").write_bytes(beside)

    assert files.put_away(held, "dead", ".reason.json", answer(held)) == f"{ticket(1)}~a.json"
    assert (root / "dead" / "a.json.reason.json").read_bytes() == beside


class NoLinks(FileOps):
    def link(self, source: str, target: str) -> None:
        raise OSError(errno.EPERM, "this disk has no hard links")


def test_a_disk_without_hard_links_is_written_to_as_well(root: Path) -> None:
    files = InboxFiles(root, "n1", NoLinks())
    for number in (1, 2):
        drop(root)
        held = take(files, number=number)
        files.put_away(held, "dead", ".reason.json", answer(held))

    assert sorted(os.listdir(root / "dead")) == sorted(
        ["a.json", "a.json.reason.json", f"{ticket(2)}~a.json", f"{ticket(2)}~a.json.reason.json"]
    )


# The layout -----------------------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_the_group_may_write_into_the_lanes_and_nowhere_else_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    former = os.umask(umask)
    try:
        create_layout(tmp_path / "root")
    finally:
        os.umask(former)

    writable = {
        str(path.relative_to(tmp_path / "root"))
        for path in [tmp_path / "root", *(tmp_path / "root").rglob("*")]
        if stat.S_IMODE(path.stat().st_mode) & 0o022
    }
    assert writable == {"inbox/high", "inbox/normal", "inbox/low"}
    for lane in writable:
        assert stat.S_IMODE((tmp_path / "root" / lane).stat().st_mode) == 0o2770
    for on_the_way in (tmp_path / "root", tmp_path / "root" / "inbox"):
        assert on_the_way.stat().st_mode & 0o010


@posix
def test_a_mode_that_an_operator_has_chosen_stays(tmp_path: Path) -> None:
    create_layout(tmp_path)
    (tmp_path / "inbox" / "low").chmod(0o700)

    create_layout(tmp_path)

    assert stat.S_IMODE((tmp_path / "inbox" / "low").stat().st_mode) == 0o700
