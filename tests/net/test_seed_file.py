"""A file of seeds is read again when it changes; its bad lines are told, and an unreadable one leaves what was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from relaymesh.core.mesh.seed import Seed
from relaymesh.net.resolve import Resolver
from relaymesh.net.seed_file import FILE_BYTES_MAX, SeedFile, SeedFileError, SeedWatch


class Told:
    def __init__(self, path: Path | None, *seeds: Seed) -> None:
        self.lists: list[tuple[str, ...]] = []
        self.sentences: list[str] = []
        self.watch = SeedWatch(
            seeds,
            path,
            tell=self.lists.append,
            say=self.sentences.append,
            resolver=Resolver(lambda host: {"cellar": ["10.0.0.7"]}.get(host, [])),
            look_s=0.01,
        )


def write(path: Path, text: str) -> None:
    aside = path.with_suffix(".new")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)  # another inode, so it is another file however coarse the clock of the disk is


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(SeedFileError, match=r"none\.txt"):
        SeedFile(tmp_path / "none.txt").read()


@pytest.mark.parametrize("data", [b"\xff\xfe", b"#" * (FILE_BYTES_MAX + 1)])
def test_what_is_no_text_or_too_long_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "seeds.txt"
    path.write_bytes(data)

    with pytest.raises(SeedFileError):
        SeedFile(path).read()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes in the file system are POSIX")
def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "seeds")
    file = SeedFile(tmp_path / "seeds")

    with pytest.raises(SeedFileError, match="it is a pipe or a device"):
        file.read()

    assert not file.changed()


def test_a_file_tells_that_it_changed_and_that_it_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "seeds.txt"
    write(path, "10.0.0.1:1")
    file = SeedFile(path)
    assert file.changed()
    file.read()
    assert not file.changed()

    write(path, "10.0.0.2:1")
    assert file.changed()
    path.unlink()
    assert file.changed()


def test_a_file_that_was_never_there_is_told_once(tmp_path: Path) -> None:
    told = Told(tmp_path / "none.txt")

    told.watch.look()
    told.watch.look()

    assert len(told.sentences) == 1 and "none.txt" in told.sentences[0]


def test_a_changed_file_is_told_as_a_whole_and_an_unchanged_one_not_again(tmp_path: Path) -> None:
    path = tmp_path / "seeds.txt"
    write(path, "10.0.0.1:1\nnonsense\n")
    told = Told(path, Seed("10.0.0.9", 1))

    told.watch.look()
    told.watch.look()
    write(path, "10.0.0.2:1\n")
    told.watch.look()

    assert told.lists == [("10.0.0.9:1", "10.0.0.1:1"), ("10.0.0.9:1", "10.0.0.2:1")]
    (sentence,) = told.sentences
    assert "line 2" in sentence and "the other seeds are used" in sentence


def test_while_the_file_cannot_be_read_what_it_said_stays_good_and_that_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "seeds.txt"
    write(path, "10.0.0.1:1")
    told = Told(path)
    told.watch.look()

    path.unlink()
    told.watch.look()
    told.watch.look()

    assert told.lists == [("10.0.0.1:1",)]
    assert len(told.sentences) == 1


def test_names_are_told_as_soon_as_they_are_known_and_nothing_after_the_end(tmp_path: Path) -> None:
    told = Told(None, Seed("cellar", 3))
    done: list[bool] = []

    told.watch.start()
    while ("10.0.0.7:3",) not in told.lists:
        done.append(told.watch._resolver.wait(0.01))
    told.watch.close()

    assert not told.watch._thread.is_alive()


def test_a_name_that_nobody_knows_is_told_once_beside_seeds_that_are_good(tmp_path: Path) -> None:
    path = tmp_path / "seeds.txt"
    write(path, "cellar:3\nmisspelt:3\n")
    told = Told(path)

    for _ in range(3):
        told.watch.look()
        assert told.watch._resolver.wait(30)

    assert told.lists[-1] == ("10.0.0.7:3",)
    (sentence,) = told.sentences
    assert sentence.startswith("no address is known of misspelt: check the names")
    told.watch.close()
