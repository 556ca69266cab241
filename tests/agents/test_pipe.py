"""Frames: whatever arrives is a message, an error that is named, or the end."""

from __future__ import annotations

import os
import struct
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.agents.pipe import FrameReader, write_message
from relaymesh.agents.process import _parts
from relaymesh.agents.running_mark import RunningMark, create_mark_file
from relaymesh.errors import MessageError
from relaymesh.wire.codec import MESSAGE_BYTES_MAX, MalformedMessageError, Message, encode
from relaymesh.wire.work import LogLine, RunSteps, StepOrder, StepReport, StepReports, StopWorker

texts = st.text(st.characters(exclude_categories=["Cs"]))
reports = st.builds(
    StepReport,
    row_id=st.integers(-(2**63), 2**63 - 1),
    lease_token=texts,
    kind=st.sampled_from(["succeeded", "failed", "snoozed"]),
    output=texts,
    retry_after_ms=st.none() | st.integers(0, 2**40),
    log=st.lists(st.builds(LogLine, st.integers(0, 2**60), texts, texts)).map(tuple),
)


def read_all(data: bytes) -> list[Message]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        reader = FrameReader(os.dup(file.fileno()))
        try:
            found = []
            while (message := reader.read()) is not None:
                found.append(message)
            return found
        finally:
            reader.close()


def frame(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(reports, max_size=3).map(lambda them: StepReports(tuple(them))), max_size=4))
def test_messages_come_out_as_they_went_in(tmp_path_factory: pytest.TempPathFactory, messages: list[Message]) -> None:
    path = tmp_path_factory.getbasetemp() / "frames"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for message in messages:
        write_message(fd, message)
    os.close(fd)

    assert read_all(path.read_bytes()) == messages


@settings(deadline=None, max_examples=80)
@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_an_error_that_is_named(data: bytes) -> None:
    for stream in (data, frame(data), frame(encode(StopWorker())) + data):
        try:
            read_all(stream)
        except MessageError as error:
            assert str(error)


@settings(deadline=None, max_examples=60)
@given(reports, st.data())
def test_a_frame_that_was_damaged_is_refused_or_another_message(report: StepReport, data: st.DataObject) -> None:
    damaged = bytearray(encode(StepReports((report,))))
    position = data.draw(st.integers(0, len(damaged) - 1))
    damaged[position] = data.draw(st.integers(0, 255))

    try:
        read_all(frame(bytes(damaged)))
    except MessageError as error:
        assert str(error)


def test_the_end_in_the_middle_of_a_frame_is_the_end() -> None:
    whole = frame(encode(StopWorker()))

    for length in range(len(whole)):
        assert read_all(whole[:length]) == []


def test_a_frame_above_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(MalformedMessageError, match="above the limit"):
        read_all(struct.pack(">I", MESSAGE_BYTES_MAX + 1))


def test_a_message_larger_than_the_pipe_is_written_piece_by_piece() -> None:
    reading, writing = os.pipe()
    message = StepReports((StepReport(1, "l", "succeeded", "x" * 1_000_000),))
    thread = threading.Thread(target=lambda: (write_message(writing, message), os.close(writing)))
    thread.start()

    reader = FrameReader(reading)

    assert reader.read() == message
    assert reader.read() is None
    thread.join()
    reader.close()


def test_orders_with_large_payloads_travel_in_several_frames() -> None:
    orders = tuple(StepOrder(n, "s", "t", "a", 1, "x" * 3_000_000, "l", 1, "i", "0", 1) for n in range(5))

    parts = list(_parts(RunSteps(orders)))

    assert [order for part in parts for order in part.orders] == list(orders)  # type: ignore[attr-defined]
    assert len(parts) == 5
    assert list(_parts(RunSteps(orders[:1] * 0))) == []


def test_the_mark_of_a_running_step_is_seen_through_every_mapping() -> None:
    fd = create_mark_file()
    ours, theirs = RunningMark(fd), RunningMark(fd)
    os.close(fd)
    ours.clear()
    assert theirs.read() is None

    for row_id in (0, 5, -1, 2**62):
        theirs.set(row_id)
        assert ours.read() == row_id

    ours.close()
    theirs.close()


def test_no_scratch_file_stays_behind(tmp_path: Path) -> None:
    before = os.listdir(tempfile.gettempdir())
    os.close(create_mark_file())

    assert os.listdir(tempfile.gettempdir()) == before
