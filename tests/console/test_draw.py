from __future__ import annotations

import io

import pytest
from msgspec import structs
from msgspec.structs import replace
from rich.console import Console as Terminal
from rich.text import Text

from relaymesh.console.board import board_of, paused_of, rows_of, sample_of, standings_of, task_lines
from relaymesh.console.draw import HELP, Look, once, screen
from relaymesh.console.words import age, count, duration, short_step
from relaymesh.core.console import Console
from relaymesh.core.console_event import Key, Query, Seen, Tick
from relaymesh.core.console_layout import Pane
from relaymesh.core.console_news import Item, News
from relaymesh.status_view import StatusOutcome
from relaymesh.view import TaskView, WorkflowDetail, WorkflowTask
from tests.console.sample_status import EVIL, sample_status

SECOND = 1_000_000_000


def well_but(*notes: str, problems: tuple[str, ...] = (), age_ms: int | None = 0) -> StatusOutcome:
    status = sample_status(evil="")
    health = structs.replace(
        status.health, ok=not problems, problems=problems, notes=notes, checks_age_ms=age_ms, disk_pressure=False
    )
    return structs.replace(status, health=health)


def console_with(width: int, height: int, status: StatusOutcome | None = None) -> Console:
    console = Console(interval_ms=2_000, read_only=False, width=width, height=height)
    status = status or sample_status()
    news = News().take(status.checked_at_ms, standings_of(status))
    for at_ns in (0, 3 * SECOND):
        (query,) = [one for one in console.handle(at_ns, Tick()) if isinstance(one, Query)]
        sample = sample_of(status, at_ns)
        body, rows = board_of(status, news), rows_of(status, news)
        console.handle(at_ns, Seen(query.version, body, rows, sample, paused_of(status)))
    return console


def printed(lines: list[Text], width: int, **options: object) -> str:
    out = io.StringIO()
    terminal = Terminal(file=out, width=width, force_terminal=True, color_system="truecolor", **options)  # type: ignore[arg-type]
    terminal.print(Text("\n").join(lines), no_wrap=True, overflow="crop")
    return out.getvalue()


@pytest.mark.parametrize("width", [1, 10, 40, 59, 60, 80, 110, 200])
@pytest.mark.parametrize("height", [1, 3, 5, 12, 24, 60])
def test_every_screen_fits_its_terminal(width: int, height: int) -> None:
    console = console_with(width, height)

    for keys in ("", "?", "x", "/", "\x1b", "C"):
        for key in keys:
            console.handle(4 * SECOND, Key(key))
        lines = screen(console, 4 * SECOND, Look(clock="12:00:00"))
        assert len(lines) == height
        assert all(line.cell_len <= width for line in lines)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 24), (200, 60)])
def test_nothing_foreign_steers_the_terminal(width: int, height: int) -> None:
    console = console_with(width, height)
    screens = [screen(console, 4 * SECOND, Look()), once(sample_status(), width, Look())]
    for pane in Pane:
        console.handle(4 * SECOND, Key("enter"))
        screens.append(screen(console, 4 * SECOND, Look()))
        console.handle(4 * SECOND, Key("escape"))
        console.handle(4 * SECOND, Key("C"))
        screens.append(screen(console, 4 * SECOND, Look()))
        console.handle(4 * SECOND, Key("n"))
        console.handle(4 * SECOND, Key("tab"))
        assert pane

    for lines in screens:
        for line in lines:
            assert line.plain.isprintable(), line.plain


def test_the_page_of_keys_is_on_the_smallest_common_terminal_as_a_whole() -> None:
    console = console_with(80, 24)
    console.handle(4 * SECOND, Key("?"))

    shown = {line.plain.rstrip() for line in screen(console, 4 * SECOND, Look())}

    assert [line for line in HELP if line not in shown] == []


def test_what_a_task_says_is_shown_line_by_line_and_harmless() -> None:
    task = TaskView(
        task_id="tsk_1",
        status="DEAD_LETTER",
        idempotency_key=EVIL,
        trace_id="",
        result_payload=EVIL * 5_000,
        last_error="first" + EVIL + "second",
        created_at_ms=1,
        updated_at_ms=2,
    )
    workflow = WorkflowDetail(
        task=WorkflowTask(task_id="tsk_1", status="DEAD_LETTER", trace_id="", created_at_ms=1, updated_at_ms=2),
        steps=(),
    )

    lines = task_lines(task, workflow, ())

    assert all(line.isprintable() for line in lines)
    assert any("(cut:" in line for line in lines)


def test_stale_data_is_grey_and_says_its_age() -> None:
    console = console_with(80, 24)

    fresh = printed(screen(console, 4 * SECOND, Look()), 80)
    stale = printed(screen(console, 60 * SECOND, Look()), 80)

    assert "as it was" not in fresh and "\x1b[32m" in fresh
    assert "as it was 57s ago" in stale and "\x1b[32m" not in stale and "\x1b[90m" in stale


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (well_but("a node says that its clock jumped"), "a node says that its clock jumped"),
        (well_but("one", "two", age_ms=12_300), "(2 things, looked at 12s ago) one; two"),
        (well_but("a note", problems=("a key is broken",)), "a key is broken"),
        (
            well_but(problems=("a key is broken", "a link"), age_ms=9_000),
            "(2 things, looked at 9s ago) a key is broken",
        ),
        (
            structs.replace(well_but(problems=("a key is broken",)), nodes_alive=0),
            "no node runs on this root; a key is broken",
        ),
        (structs.replace(well_but("a note"), nodes_alive=0), "no node runs on this root: this is what the store holds"),
        (well_but(age_ms=None), "well: the store answers"),
    ],
)
def test_own_health_is_one_line_that_says_how_much_there_is_and_how_old(status: StatusOutcome, said: str) -> None:
    lines = screen(console_with(80, 24, status), 4 * SECOND, Look())

    assert lines[1].plain.startswith(said)
    assert len(lines) == 24 and all(line.cell_len <= 80 for line in lines)


def test_however_much_is_wrong_own_health_takes_one_line_of_a_small_terminal() -> None:
    status = well_but(*["a long note " * 20] * 30, problems=tuple(["a long problem " * 20] * 30), age_ms=99_000)

    lines = screen(console_with(80, 24, status), 4 * SECOND, Look())

    assert lines[1].plain.startswith("(30 things, looked at 99s ago) a long problem")
    assert lines[2].plain.startswith("MEMBERS")
    assert len(lines) == 24 and all(line.cell_len <= 80 for line in lines)


def test_without_utf_8_all_of_it_is_ascii() -> None:
    console = console_with(80, 24)

    for line in screen(console, 4 * SECOND, Look(plain=True)):
        assert line.plain.isascii(), line.plain


def test_the_selected_row_is_marked_without_colours_too() -> None:
    console = console_with(80, 24)

    lines = [line.plain for line in screen(console, 4 * SECOND, Look())]

    assert [line for line in lines if line.startswith("> one")]


def test_what_happened_to_nodes_is_told_in_words_on_the_smallest_usual_terminal_and_once() -> None:
    console = console_with(80, 24)

    live = [line.plain for line in screen(console, 4 * SECOND, Look())]
    printed_once = [line.plain for line in once(sample_status(), 80, Look())]

    for lines in (live, printed_once):
        at = next(place for place, line in enumerate(lines) if line.startswith("WHAT HAPPENED"))
        assert lines[at + 1].startswith("   60s two") and "is dead: nobody hears from it" in lines[at + 1]


def test_the_latest_news_is_on_the_screen_whichever_pane_has_the_focus() -> None:
    console = console_with(80, 24)
    for number in range(9):
        at_ns = (6 + 3 * number) * SECOND
        (query,) = [one for one in console.handle(at_ns, Tick()) if isinstance(one, Query)]
        status = sample_status(evil="")
        items = tuple(Item(n, 1_000_000, "two", "ALIVE", f"is told {n}") for n in range(number, -1, -1))
        console.handle(
            at_ns,
            Seen(query.version, board_of(status, items), rows_of(status, items), sample_of(status, at_ns), frozenset()),
        )
    for _ in Pane:
        lines = [line.plain for line in screen(console, 31 * SECOND, Look())]
        at = next(place for place, line in enumerate(lines) if line.startswith("WHAT HAPPENED"))

        assert "two is told 8" in lines[at + 1], console.focus

        console.handle(31 * SECOND, Key("tab"))


def test_what_a_node_says_of_its_mesh_is_there_in_place_of_well_and_in_full_in_the_details() -> None:
    note = "node one: nobody answers at 127.0.0.1:17888: " + "a node has to run there, " * 4 + "and that is the end"
    status = sample_status(evil="")
    status = replace(status, health=replace(status.health, ok=True, problems=(), notes=(note,)))

    printed_once = [line.plain for line in once(status, 80, Look())]
    details = rows_of(status)[Pane.MEMBERS][0].lines

    assert " ".join(printed_once[1:3]).startswith("node one: nobody answers at 127.0.0.1:17888")
    assert "well" not in "\n".join(printed_once)
    for lines in (printed_once, details):
        assert "that is the end" in " ".join(lines)
        assert all(len(line) <= 80 for line in lines)


def test_a_node_that_runs_and_counts_as_dead_is_not_called_no_node() -> None:
    status = sample_status(evil="")
    (dead,) = [one for one in status.members if one.status == "DEAD"]
    why = "the worker of two is paused: it was DEAD"
    health = replace(status.health, ok=False, problems=(why,))
    status = replace(status, nodes_alive=0, members=(replace(dead, process_alive=True),), health=health)
    over = replace(status, members=(replace(dead, process_alive=False),))

    held, gone = ([line.plain for line in once(one, 80, Look())] for one in (status, over))

    assert "no node is ALIVE" in held[0] and held[1] == why
    assert "no node runs" in gone[0] and gone[1].startswith("no node runs on this root")


def test_a_column_without_a_measurement_has_a_dash() -> None:
    lines = [line.plain for line in once(sample_status(evil=""), 80, Look())]

    (row,) = [line for line in lines if line.strip().startswith("one") and "ALIVE" in line]
    assert " - " in row


def test_numbers_are_short() -> None:
    assert [age(ms) for ms in (0, 99_999, 100_000, 7_200_000, 172_800_000)] == ["0s", "99s", "1m", "2h", "2d"]
    assert [duration(ms) for ms in (None, 0.4, 999, 1_500, 120_000)] == ["-", "0ms", "999ms", "1.5s", "2m"]
    assert [count(n) for n in (99_999, 100_000, 12_000_000)] == ["99999", "100k", "12M"]
    assert short_step("stp_tsk_" + "0" * 36 + "_merge") == "merge"
    assert short_step("stp_" + "1" * 36) == "stp_…11111111"


def test_the_pictures_in_the_docs_are_what_the_console_draws() -> None:
    import subprocess
    import sys
    from pathlib import Path

    script = Path(__file__).resolve().parents[2] / "scripts" / "console_pictures.py"

    ran = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)

    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr


@pytest.mark.parametrize("width", [60, 80, 110])
def test_the_word_for_a_member_that_is_stopping_is_not_cut(width: int) -> None:
    status = well_but()
    first = structs.replace(status.members[0], stopping=True)
    console = console_with(width, 30, structs.replace(status, members=(first, *status.members[1:])))

    lines = screen(console, 4 * SECOND, Look(clock="12:00:00"))

    assert any("one" in line.plain and "STOPPING" in line.plain for line in lines)
