"""Draw the pictures of the status console in docs/pictures: the same bytes each time, from data that stands still.

python scripts/console_pictures.py           write them
python scripts/console_pictures.py --check   say which differ from what would be written; exit status 1
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console as Terminal
from rich.text import Text

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

from relaymesh.console.board import board_of, paused_of, rows_of, sample_of, standings_of  # noqa: E402
from relaymesh.console.draw import Look, once, screen  # noqa: E402
from relaymesh.core.console import Console  # noqa: E402
from relaymesh.core.console_event import Event, Key, Query, Seen, Tick  # noqa: E402
from relaymesh.core.console_news import News  # noqa: E402
from relaymesh.node_view import AlertState  # noqa: E402
from relaymesh.status_view import (  # noqa: E402
    StatusHealth,
    StatusLane,
    StatusMember,
    StatusOutcome,
    StatusPool,
    StatusRunning,
    StatusTrouble,
)

FOLDER = REPO / "docs" / "pictures"
_S = 1_000_000_000
_INTERVAL_S = 2
_SAMPLES = 150


def _id(kind: str, number: int) -> str:
    return f"{kind}_0198c0de-{number:04x}-7a00-8000-{number * 7919 % 2**48:012x}"


def _member(name: str, status: str, silent_ms: int, **rest: object) -> StatusMember:
    facts = {
        "node_id": name,
        "status": status,
        "process_alive": None,
        "heartbeat_age_ms": silent_ms,
        "status_age_ms": 5_400_000,
        "rtt_ms": None,
        "generation": 3,
        "host": "rack-a",
        "pid": 4120,
        "running": 0,
        "drained": False,
    }
    return StatusMember(**{**facts, **rest})  # type: ignore[arg-type]


def sample(moment: int) -> StatusOutcome:
    """Return how the root of the pictures stands at one moment: a wave of work that comes and goes."""
    wave = abs(moment % 60 - 30)
    owners = ("node-a", "node-b", "node-a", "node-c")
    agents = ("fetch", "summarize", "render", "fetch")
    return StatusOutcome(
        namespace="default",
        root="/srv/relaymesh",
        checked_at_ms=1_800_000_000_000 + moment * _INTERVAL_S * 1_000,
        nodes_alive=2,
        cluster_epoch=4,
        paused=False,
        pauses=(),
        members=(
            _member("node-c", "DEAD", 42_000, status_age_ms=12_000, running=1, host="rack-b"),
            _member("node-a", "ALIVE", 800, running=2),
            _member("node-b", "ALIVE", 2_100, running=1, drained=True, generation=1, host="rack-b"),
        ),
        members_total=3,
        lanes=tuple(
            StatusLane(
                priority=priority,
                waiting=wave * factor // 4,
                ended=30 * factor,
                latency_p50_ms=20 * factor,
                latency_p95_ms=60 * factor + wave * 10,
                paused=False,
            )
            for priority, factor in (("HIGH", 1), ("NORMAL", 6), ("LOW", 14))
        ),
        pools=(StatusPool(pool="inline", used=0, slots=2), StatusPool(pool="process", used=3, slots=8)),
        running=tuple(
            StatusRunning(
                task_id=_id("tsk", number),
                step_id=f"stp_{_id('tsk', number)}_{agents[number]}-{number}",
                agent=agents[number],
                priority="NORMAL",
                attempt=1 + number % 2,
                owner=owners[number],
                owner_status="DEAD" if owners[number] == "node-c" else "ALIVE",
                lease_epoch=number + 1,
                lease_age_ms=31_000 if owners[number] == "node-c" else 900 * number,
                running_ms=8_000 + 900 * number,
            )
            for number in (3, 0, 1, 2)
        ),
        running_total=4,
        trouble=(
            StatusTrouble(
                task_id=_id("tsk", 21),
                step_id=f"stp_{_id('tsk', 21)}_fetch-9",
                agent="fetch",
                status="RETRYING",
                attempt=2,
                age_ms=3_000,
                next_retry_in_ms=9_000,
                last_error="HTTP 503 from the catalogue",
            ),
            StatusTrouble(
                task_id=_id("tsk", 22),
                step_id=f"stp_{_id('tsk', 22)}_render-4",
                agent="render",
                status="DEAD_LETTER",
                attempt=3,
                age_ms=240_000,
                next_retry_in_ms=None,
                last_error="ValueError: no page 12",
            ),
        ),
        retrying_total=1,
        dead_letter_total=1,
        throughput_per_s=round(3 + wave / 8, 2),
        alerts=(AlertState(rule="queue_lag", phase="firing", severity="warning", since_ms=1_800_000_240_000),),
        health=StatusHealth(
            ok=True,
            stalled_ms=0,
            disk_free_bytes=65 * 2**30,
            disk_pressure=False,
            lease_conflicts_1h=1,
            problems=(),
        ),
    )


def console(width: int, height: int) -> tuple[Console, int]:
    """Return a console that has watched for five minutes, and the moment at which it stands."""
    rules = Console(interval_ms=_INTERVAL_S * 1_000, read_only=False, width=width, height=height)
    now_ns = 0
    for moment in range(_SAMPLES):
        now_ns = moment * _INTERVAL_S * _S
        for effect in rules.handle(now_ns, Tick()):
            if isinstance(effect, Query):
                found = sample(moment)
                news = News().take(found.checked_at_ms, standings_of(found))
                body, rows = board_of(found, news), rows_of(found, news)
                rules.handle(now_ns, Seen(effect.version, body, rows, sample_of(found, now_ns), paused_of(found)))
    return rules, now_ns


def picture(lines: list[Text], width: int, title: str) -> str:
    """Return an SVG of a terminal with these lines."""
    terminal = Terminal(record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    terminal.print(Text("\n").join(lines), no_wrap=True, overflow="crop")
    svg = terminal.export_svg(title=title, unique_id=title.replace(" ", "-"))
    # A picture fetches nothing: the fonts of the reader's machine do.
    return re.sub(r"<!--.*?-->|@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def pictures() -> dict[str, str]:
    """Return all pictures by the names of their files."""
    look = Look(clock="12:00:00")
    found = {"status.svg": picture(once(sample(_SAMPLES - 1), 80, look), 80, "relaymesh status")}
    plan: dict[str, tuple[int, int, list[Event], int]] = {
        "top.svg": (80, 24, [Key("tab"), Key("tab")], 0),
        "top-wide.svg": (140, 36, [], 0),
        "top-narrow.svg": (40, 24, [], 0),
        "top-confirm.svg": (80, 24, [Key("tab"), Key("tab"), Key("C")], 0),
        "top-stale.svg": (80, 24, [], 47 * _S),
        "top-help.svg": (110, 30, [Key("?")], 0),
    }
    for name, (width, height, events, later_ns) in plan.items():
        rules, now_ns = console(width, height)
        for event in events:
            rules.handle(now_ns, event)
        title = name.removesuffix(".svg").replace("-", " ")
        found[name] = picture(screen(rules, now_ns + later_ns, look), width, f"relaymesh {title}")
    return found


def main(words: list[str]) -> int:
    """Write the pictures, or compare them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    different = []
    for name, text in pictures().items():
        path = FOLDER / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            different.append(name)
            if "--check" not in words:
                path.write_text(text, encoding="utf-8", newline="\n")
    for name in different:
        print(f"{'differs' if '--check' in words else 'written'}: {name}")
    return 1 if different and "--check" in words else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
