"""Bars, layout, tones and foreign text: the small rules of the console."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relaymesh.core.console_history import BARS, BARS_ASCII, SAMPLES_MAX, SPAN_NS, History, Sample, bars
from relaymesh.core.console_layout import FRAME_LINES, Pane, plan, scroll
from relaymesh.core.console_tone import Tone, member_word, tone_of_age, tone_of_state
from relaymesh.core.printable import printable

SECOND = 1_000_000_000
values = st.lists(st.none() | st.floats(0, 1e9), max_size=100)


def sample(at_ns: int, waiting: int) -> Sample:
    return Sample(at_ns, (waiting, 0, 0), (None, None, None), 0.0)


@given(values, st.sampled_from([BARS, BARS_ASCII]))
def test_bars_keep_order_blanks_and_the_difference_between_nothing_and_something(
    found: list[float | None], marks: str
) -> None:
    drawn = bars(found, marks)

    assert len(drawn) == len(found)
    for mark, value in zip(drawn, found, strict=True):
        assert (mark == " ") == (value is None)
        if value is not None:
            assert (mark == marks[0]) == (value == 0)
    known = [(value, marks.index(mark)) for mark, value in zip(drawn, found, strict=True) if value is not None]
    for (low, level), (high, above) in zip(sorted(known), sorted(known)[1:], strict=False):
        assert low <= high and level <= above
    if known and max(known)[0] > 0:
        assert marks[-1] in drawn


@given(st.lists(st.tuples(st.integers(0, 10 * SECOND), st.integers(0, 1000)), max_size=100), st.integers(0, 200))
def test_the_columns_hold_the_largest_of_each_slice_and_the_history_is_bounded(
    steps: list[tuple[int, int]], width: int
) -> None:
    history, at_ns, taken = History(), 0, []
    for passed, waiting in steps:
        at_ns += passed
        history.add(sample(at_ns, waiting))
        taken.append((at_ns, waiting))

    columns = history.columns(lambda one: one.waiting[0], width)

    assert len(columns) == width
    assert len(history) <= SAMPLES_MAX
    known = [value for value in columns if value is not None]
    kept = [waiting for at, waiting in taken if at >= at_ns - SPAN_NS]
    assert set(known) <= set(kept)
    if width and taken:
        assert columns[-1] is not None and columns[-1] >= taken[-1][1]


def test_a_history_of_many_samples_keeps_the_newest() -> None:
    history = History()

    for number in range(3 * SAMPLES_MAX):
        history.add(sample(number, number))

    assert len(history) == SAMPLES_MAX
    assert history.columns(lambda one: one.waiting[0], 1) == [3 * SAMPLES_MAX - 1]


@given(st.integers(1, 200), st.dictionaries(st.sampled_from(Pane), st.integers(0, 300)), st.sampled_from(Pane))
def test_panes_fit_the_height_and_the_one_with_the_focus_is_there(
    height: int, wanted: dict[Pane, int], focus: Pane
) -> None:
    placed = plan(height, wanted, focus)

    assert sum(one.lines for one in placed) <= max(1, height - FRAME_LINES)
    assert [one.pane for one in placed] == [pane for pane in Pane if pane in {one.pane for one in placed}]
    assert any(one.pane is focus and one.lines >= 1 for one in placed)


def test_all_panes_are_there_on_a_terminal_of_24_lines() -> None:
    wanted = dict.fromkeys(Pane, 50)

    for focus in Pane:
        placed = plan(24, wanted, focus)

        assert len(placed) == len(Pane)
        assert sum(one.lines for one in placed) == 24 - FRAME_LINES


@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 60))
def test_the_selected_row_is_among_those_that_are_shown(selected: int, count: int, room: int) -> None:
    selected = min(selected, max(0, count - 1))

    first = scroll(selected, count, room)

    assert 0 <= first <= max(0, count - 1)
    if count and room:
        assert first <= selected < first + room
        assert first + room <= max(count, room)


def test_a_member_whose_process_is_gone_is_not_called_alive() -> None:
    assert member_word("ALIVE", process_alive=False, drained=False) == "ENDED"
    assert member_word("ALIVE", process_alive=None, drained=False) == "ALIVE"
    assert member_word("ALIVE", process_alive=True, drained=True) == "DRAINED"
    assert member_word("ALIVE", process_alive=True, drained=True, stopping=True) == "STOPPING"
    assert member_word("ALIVE", process_alive=False, drained=False, stopping=True) == "ENDED"
    assert member_word("DEAD", process_alive=False, drained=False) == "DEAD"
    assert member_word("LEFT", process_alive=False, drained=False) == "LEFT"


def test_tones_tell_late_from_too_late() -> None:
    assert [tone_of_age(ms, 10) for ms in (9, 10, 19, 20)] == [Tone.PLAIN, Tone.WARN, Tone.WARN, Tone.BAD]
    assert tone_of_state("SUSPECT") is Tone.WARN
    assert tone_of_state("what nobody knows") is Tone.PLAIN


@given(st.text())
def test_foreign_text_cannot_steer_a_terminal(text: str) -> None:
    shown = printable(text)

    assert shown.isprintable()
    assert printable(shown) == shown


def test_escapes_and_marks_of_direction_are_shown_as_what_they_are() -> None:
    assert printable("\x1b]0;own\x07 \x9b31m \u202e\n") == "\\x1b]0;own\\x07 \\x9b31m \\u202e\\n"
