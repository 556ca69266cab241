"""What an attempt keeps, without any process: cancellation, time, heartbeats, log, trace."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.agents.context import Attempt, Cancellation, Cancelled, Context, Snooze
from relaymesh.agents.log import LOG_BYTES_MAX, LOG_LINE_BYTES_MAX, LOG_LINES_MAX, AttemptLog, LineSplitter, cut_bytes
from relaymesh.agents.trace import child_traceparent, is_traceparent, span_id_of
from relaymesh.wire.work import StepOrder

MS = 1_000_000


def test_a_cancellation_is_set_once_and_keeps_its_first_reason() -> None:
    cancellation = Cancellation()
    called: list[str] = []
    cancellation.on_set(lambda: called.append("before"))
    assert not cancellation and not cancellation.is_set() and not cancellation.wait(0)

    assert cancellation.set("timeout")
    assert not cancellation.set("cancelled")
    cancellation.on_set(lambda: called.append("after"))

    assert cancellation and cancellation.wait() and cancellation.reason == "timeout"
    assert called == ["before", "after"]


def test_those_who_wait_for_a_cancellation_are_woken() -> None:
    cancellation = Cancellation()
    woken = threading.Event()
    thread = threading.Thread(target=lambda: cancellation.wait(10) and woken.set())
    thread.start()

    cancellation.set("now")

    assert woken.wait(10)
    thread.join()


def test_an_attempt_is_cancelled_at_its_timeout_and_its_grace_time_ends_once(order: Callable[..., StepOrder]) -> None:
    attempt = Attempt(order("a", timeout_ms=1_000), grace_ms=500)
    ended: list[int] = []
    attempt.on_grace_over = lambda: ended.append(1)
    start = attempt.started_at_ns

    assert attempt.pulse(start + 999 * MS) == start + 1_000 * MS
    assert not attempt.cancellation
    due = attempt.pulse(start + 1_000 * MS)
    assert attempt.cancellation.reason == "timeout"
    attempt.pulse(due - 1)
    assert ended == []
    attempt.pulse(due)
    attempt.pulse(due + 1)
    assert ended == [1]


def test_heartbeats_that_come_too_fast_are_kept_for_the_next_pulse(order: Callable[..., StepOrder]) -> None:
    passed: list[str] = []
    attempt = Attempt(order("a"), on_progress=lambda _, text: passed.append(text))
    context = Context(attempt)

    for progress in ("first", 0.5, {"done": 3}, "last\ud800"):
        context.heartbeat(progress)

    assert passed == ["first"]
    due = attempt.pulse(attempt.started_at_ns)
    assert due < attempt.deadline_ns
    assert attempt._late_progress == "last?"


def test_a_context_checks_and_snoozes(order: Callable[..., StepOrder]) -> None:
    attempt = Attempt(order("a", timeout_ms=60_000))
    context = Context(attempt)

    context.check()
    assert 59_000 < context.remaining_ms() <= 60_000
    with pytest.raises(Snooze) as snooze:
        context.snooze(0.0001)
    assert snooze.value.for_ms == 1
    for wrong in (-1, float("nan"), float("inf"), 31 * 86_400):
        with pytest.raises(ValueError):
            context.snooze(wrong)
    attempt.cancel("enough")
    assert context.remaining_ms() == 0
    with pytest.raises(Cancelled):
        context.check()


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.tuples(st.sampled_from(["INFO", "STDOUT"]), st.text(), st.integers(0, 9_000), st.booleans()), max_size=300
    )
)
def test_no_log_outgrows_its_bounds(entries: list[tuple[str, str, int, bool]]) -> None:
    log = AttemptLog()

    for level, text, times, ours in entries:
        (log.add_ours if ours else log.add)(level, text * max(1, times // max(1, len(text))))

    lines = log.lines()
    assert len(lines) <= LOG_LINES_MAX + 1
    assert sum(len(line.text.encode()) for line in lines[:LOG_LINES_MAX]) <= LOG_BYTES_MAX + 200
    assert all(len(line.text.encode()) <= LOG_LINE_BYTES_MAX for line in lines)


def test_a_log_without_a_flood_says_nothing_of_dropped_lines() -> None:
    log = AttemptLog()
    log.add("INFO", "one\r\ntwo")

    assert [line.text for line in log.lines()] == ["one", "two"]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.binary(max_size=40)), st.integers(0, 3))
def test_lines_do_not_depend_on_how_their_bytes_arrive(chunks: list[bytes], repeat: int) -> None:
    data = b"".join(chunks) * (repeat + 1)
    pieces, whole = [], []  # type: ignore[var-annotated]
    by_piece, at_once = LineSplitter(pieces.append), LineSplitter(whole.append)

    for _ in range(repeat + 1):
        for chunk in chunks:
            by_piece.feed(chunk)
    at_once.feed(data)
    by_piece.end()
    at_once.end()

    assert pieces == whole
    assert len(whole) == data.count(b"\n") + (not data.endswith(b"\n") and bool(data))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.sampled_from([b"a", b"\n", b"KEEP", b"bc\n"]), max_size=8).map(b"".join)))
def test_lines_that_nobody_wants_are_left_out_and_all_others_come_as_they_are(chunks: list[bytes]) -> None:
    whole: list[str] = []
    wanted: list[str] = []
    dropped = 0

    def skim(lines: bytes) -> bool:
        nonlocal dropped
        if b"KEEP" in lines:
            return False
        dropped += lines.count(b"\n")
        return True

    plain, skimming = LineSplitter(whole.append), LineSplitter(wanted.append, skim=skim)
    for chunk in chunks:
        plain.feed(chunk)
        skimming.feed(chunk)
    plain.end()
    skimming.end()

    assert [line for line in wanted if "KEEP" in line] == [line for line in whole if "KEEP" in line]
    assert len(wanted) + dropped == len(whole)


def test_what_comes_after_the_first_line_that_found_no_room_is_only_counted() -> None:
    log = AttemptLog()
    while not log.full:
        log.add("INFO", "x" * 4_000)
    kept = len(log.lines()) - 1

    log.add("INFO", "a\nb")
    log.drop(10)

    assert len(log.lines()) == kept + 1
    assert log.lines()[-1].text.startswith("13 more lines were dropped")


def test_a_line_without_end_is_cut() -> None:
    lines: list[str] = []
    splitter = LineSplitter(lines.append)
    for _ in range(1_000):
        splitter.feed(b"x" * 1_000)
    splitter.feed(b"\nnext")
    splitter.end()

    assert [len(line) for line in lines] == [LOG_LINE_BYTES_MAX, 4]
    assert lines[0].endswith("x...")


@settings(deadline=None)
@given(st.text(), st.integers(3, 50))
def test_cutting_keeps_to_the_bytes_and_to_whole_characters(text: str, bytes_max: int) -> None:
    cut = cut_bytes(text.encode("utf-8", "replace").decode(), bytes_max)

    assert len(cut.encode()) <= bytes_max


@given(st.text())
def test_every_attempt_has_a_span_of_its_own_that_both_sides_can_name(lease_token: str) -> None:
    span_id = span_id_of(lease_token)
    traceparent = child_traceparent("0af7651916cd43dd8448eb211c80319c", span_id, "")

    assert span_id == span_id_of(lease_token) != span_id_of(lease_token + "x")
    assert is_traceparent(traceparent) and traceparent.endswith("-01")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n",
    ],
)
def test_what_is_no_traceparent_is_told(text: str) -> None:
    assert not is_traceparent(text)
