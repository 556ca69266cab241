"""Texts that are too long for a row."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.core.limit import SPILL_BYTES
from relaymesh.core.outcome import Failed
from relaymesh.store import read
from relaymesh.store.error import StoreFullError, StoreIOError
from relaymesh.store.payload import PayloadFiles, PayloadMissingError
from relaymesh.wire.store import FinishedStep, Grant
from tests.store.bench import Bench, policy_of, report_of

LONG = "größer als eine Zeile " * 4_000


def files_of(root: Path) -> list[Path]:
    return sorted(path for path in (root / "payload").rglob("*") if path.is_file())


def grant_of(bench: Bench) -> Grant | Failed:
    (row,) = bench.claimed_rows()
    rendered = bench.store.render(row)
    return rendered if isinstance(rendered, Grant) else rendered[1]


def test_a_long_input_comes_back_from_its_file_when_it_is_claimed(bench: Bench) -> None:
    step_id = bench.one(payload=LONG)

    grant = grant_of(bench)

    assert isinstance(grant, Grant) and grant.payload == LONG
    assert bench.step(step_id)["payload"] is None
    (file,) = files_of(bench.root)
    assert bench.step(step_id)["payload_path"] == file.relative_to(bench.root).as_posix()
    assert file.name == hashlib.blake2b(LONG.encode(), digest_size=32).hexdigest()


def test_the_bound_is_counted_in_bytes(bench: Bench) -> None:
    for text, spilled in (("x" * SPILL_BYTES, False), ("x" * (SPILL_BYTES + 1), True), ("ä" * SPILL_BYTES, True)):
        assert (bench.store.payloads.spill(text) is not None) is spilled


def test_a_long_output_comes_back_in_the_result_and_to_its_dependents(bench: Bench) -> None:
    task_id = bench.flow({"id": "a"}, {"id": "b", "input": {"$from": "a"}})
    (lease,) = bench.claim()
    bench.succeed(lease, LONG)

    (row,) = bench.claimed_rows()
    grant = bench.store.render(row)
    assert isinstance(grant, Grant) and grant.payload == LONG
    bench.succeed(row.lease, "short")

    assert bench.step_of(task_id, "a")["result_payload"] is None
    view = read.task_view(bench.store.conn, task_id, bench.store.payloads.text)
    assert view is not None and view.status == "SUCCESS"
    assert json.loads(view.result_payload or "") == {f"stp_{task_id}_a": LONG, f"stp_{task_id}_b": "short"}


def test_a_long_output_of_a_single_step_is_its_tasks_result(bench: Bench) -> None:
    step_id = bench.one()
    (lease,) = bench.claim()

    bench.succeed(lease, LONG)

    task = bench.task_of(step_id)
    assert (task["status"], task["result_payload"]) == ("SUCCESS", None)
    view = read.task_view(bench.store.conn, str(task["task_id"]), bench.store.payloads.text)
    assert view is not None and json.loads(view.result_payload or "") == {step_id: LONG}
    assert task["result_hash"] == hashlib.sha256((view.result_payload or "").encode()).hexdigest()


def test_a_late_long_output_does_not_take_the_place_of_the_owners_short_one(bench: Bench) -> None:
    step_id = bench.one()
    (old,) = bench.claim()
    bench.release(old)
    (new,) = bench.claim()

    bench.finish((new, report_of(new, output="right")), (old, report_of(old, output=LONG)))

    assert json.loads(str(bench.task_of(step_id)["result_payload"])) == {step_id: "right"}


def damage(file: Path, how: str) -> None:
    if how == "missing":
        file.unlink()
    elif how == "shortened":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        data = bytearray(file.read_bytes())
        data[7] ^= 1
        file.write_bytes(data)


@pytest.mark.parametrize("how", ["missing", "shortened", "altered"])
def test_an_input_whose_file_is_damaged_is_a_failure_that_is_not_retried(bench: Bench, how: str) -> None:
    bench.one(payload=LONG)
    damage(files_of(bench.root)[0], how)

    failed = grant_of(bench)

    assert isinstance(failed, Failed)
    assert (failed.code, failed.retryable) == ("payload_missing", False)
    assert "\n" not in failed.error


@pytest.mark.parametrize("how", ["missing", "altered"])
def test_a_list_whose_file_is_damaged_ends_the_map_step_and_no_other_commit(bench: Bench, how: str) -> None:
    task_id = bench.flow({"id": "a"}, {"id": "m", "map": {"$from": "a"}}, {"id": "z"})
    first, last = bench.claim()
    a, z = (first, last) if first.step_id.endswith("_a") else (last, first)
    items = json.dumps(["item"] * 20_000)
    spilled = bench.store.payloads.keep("output", a.step_id, items)
    damage(files_of(bench.root)[0], how)

    # Damaged between its writing and the commit that names it, in which there is another result as well.
    with bench.store.write():
        bench.store.finish(
            [
                FinishedStep(a, report_of(a, output=items), "w"),
                FinishedStep(z, report_of(z, output="fine"), "w"),
            ],
            node_id="n1",
            spilled={a.lease_token: spilled},
            policy_of=policy_of,
            now_ms=bench.now_ms,
        )

    assert bench.step_of(task_id, "z")["status"] == "SUCCESS"
    assert bench.step_of(task_id, "m")["status"] == "DEAD_LETTER"
    assert "payload file" in str(bench.task(task_id)["last_error"])


def test_a_result_whose_file_is_damaged_is_an_error_with_a_code(bench: Bench) -> None:
    step_id = bench.one()
    (lease,) = bench.claim()
    bench.succeed(lease, LONG)
    damage(files_of(bench.root)[0], "altered")

    with pytest.raises(PayloadMissingError):
        read.task_view(bench.store.conn, str(bench.step(step_id)["task_id"]), bench.store.payloads.text)


names = st.text(st.sampled_from("./\\abcdef0123456789%~:\0 "), max_size=90) | st.builds(
    lambda before, digest: before + digest,
    st.sampled_from(["", "payload/", "../", "/etc/", "payload/../../", "payload\\..\\", "C:\\", "payload/aa/"]),
    st.text("0123456789abcdef", min_size=64, max_size=64) | st.sampled_from(["secret", "..", "passwd"]),
)


@settings(max_examples=200, deadline=None)
@given(names)
def test_a_name_in_a_row_never_leads_out_of_the_payload_folder(name: str) -> None:
    opened: list[Path] = []

    class Watching(type(Path())):  # type: ignore[misc]
        def read_bytes(self) -> bytes:
            opened.append(Path(self))
            raise FileNotFoundError

        def open(self, *_: object, **__: object) -> object:  # type: ignore[override]
            opened.append(Path(self))
            raise FileNotFoundError

    files = PayloadFiles(Watching("/srv/root"))

    with pytest.raises(PayloadMissingError):
        files.read(name)

    for path in opened:
        assert Path(os.path.normpath(path)).parent.parent == Path("/srv/root/payload")


def test_one_text_is_one_file_however_often_it_is_stored(bench: Bench) -> None:
    for _ in range(3):
        bench.one(payload=LONG)

    assert len(files_of(bench.root)) == 1


def test_a_damaged_file_is_mended_by_the_next_who_stores_the_text(bench: Bench) -> None:
    name = bench.store.payloads.spill(LONG)
    assert name is not None
    damage(bench.root / name, "shortened")

    bench.store.payloads.spill(LONG)

    assert bench.store.payloads.read(name) == LONG


def test_threads_that_store_one_text_at_once_do_not_get_in_each_others_way(tmp_path: Path) -> None:
    errors: list[BaseException] = []
    start = threading.Barrier(8)

    def spill(number: int) -> None:
        try:
            for turn in range(12):
                start.wait(timeout=10)
                PayloadFiles(tmp_path).spill(f"turn {turn} " * 20_000)
        except BaseException as error:
            errors.append(error)
            start.abort()

    threads = [threading.Thread(target=spill, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert len(files_of(tmp_path)) == 12
    for file in files_of(tmp_path):
        assert hashlib.blake2b(file.read_bytes(), digest_size=32).hexdigest() == file.name


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StoreFullError),
        (errno.EDQUOT, StoreFullError),
        (errno.EIO, StoreIOError),
        (errno.EACCES, StoreIOError),
    ],
)
def test_a_disk_that_refuses_a_payload_is_an_error_with_a_code_and_leaves_no_half_file(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)

    with pytest.raises(kind):
        bench.one(payload=LONG)

    assert files_of(bench.root) == []
    assert bench.rows("SELECT * FROM tasks") == []


def test_a_new_file_and_each_new_folder_are_on_disk_before_the_row_names_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def note(descriptor: int) -> None:
        synced.append(os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), bench.root))
        real(descriptor)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to see what was synced")
    monkeypatch.setattr(os, "fsync", note)

    name = bench.store.payloads.spill(LONG)
    bench.store.payloads.spill(LONG)

    folder = os.path.dirname(str(name))
    assert synced[0].startswith(f"{folder}/.")
    # The second time all of it is there, but whoever made it may not have come to sync the folders.
    assert synced[1:] == [folder, "payload"] * 2
